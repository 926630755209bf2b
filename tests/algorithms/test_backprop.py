"""The loop of a training: resumes bit for bit, stops at a loss that is not finite, freezes and decays as told."""

import copy

import builders
import numpy as np
import pytest
import tiny
import torch
from observe import untimed
from torch import nn

from pipeline.algorithms import backprop
from pipeline.algorithms.batches import Views
from pipeline.core.errors import DataError, SettingsError
from pipeline.core.grids import Grid
from pipeline.core.settings import Settings

NAMES = tuple(f"image_{number}" for number in range(7))
SAMPLES = {name: builders.sample(name, seed, (14, 16)) for seed, name in enumerate(NAMES)}
CONSTANT = {"name": "constant"}
SCALING = Settings({"channels": "rgb", "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]})
LOOP = tiny.LOOP | {"epochs": 3, "batch": 2, "crop": [12, 12], "learning_rate": 1e-2, "weight_decay": 1e-3}


class Network(nn.Module):
    """A small network with all that a training treats apart: normalisation, dropout, biases, a classifier."""

    grid = Grid("cells", 2)

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.dropout, self.classifier = nn.Dropout2d(0.3), nn.Conv2d(8, 4, 1)

    def forward(self, images):
        return self.classifier(self.dropout(self.backbone(images)))


def network():
    torch.manual_seed(5)
    return Network()


def training(loss_at="pixels", **changed):
    return _training(Settings(LOOP | changed), loss_at)


def _training(settings, loss_at):
    module = backprop.Segmenter(network(), SCALING, loss_at=loss_at)
    groups = backprop.network_groups(module.network, settings)
    views = Views(SAMPLES.__getitem__, NAMES, settings, (0.5, 0.5, 0.5), seed=3)
    return backprop.Training(module, groups, settings, views.steps_per_epoch, seed=3), views


def training_of(iterations, schedule, **changed):
    """A training whose length is told in steps, of which 3 are an epoch."""
    loop = {key: value for key, value in LOOP.items() if key != "epochs"}
    settings = Settings(loop | {"iterations": iterations, "schedule": schedule} | changed)
    return _training(settings, "pixels")


def run(made, views, steps=None, **options):
    losses = []
    for loss in made.run(views, workers=0, **options):
        losses.append(loss)
        if len(losses) == steps:
            break
    return losses


def tensors(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("killed_after", [1, 3, 4, 8])
def test_a_resumed_training_ends_as_the_undisturbed_one(killed_after):
    undisturbed, views = training()
    losses = run(undisturbed, views)
    assert len(losses) == 9

    killed, views = training()
    first = run(killed, views, steps=killed_after)
    state = copy.deepcopy(killed.state_dict())
    torch.manual_seed(1234)  # nothing of the process's own random state may matter
    resumed, views = training()
    resumed.load_state_dict(state)
    assert resumed.done == killed_after
    assert first + run(resumed, views) == losses
    assert equal(tensors(resumed.module), tensors(undisturbed.module))
    assert untimed(resumed.history) == untimed(undisturbed.history)


def test_a_finished_training_has_nothing_left_to_do():
    made, views = training()
    run(made, views)
    before = tensors(made.module)
    assert run(made, views) == []
    assert equal(tensors(made.module), before)


def test_the_state_is_a_copy_of_no_moment_but_its_own():
    made, views = training()
    run(made, views, steps=3)
    state = copy.deepcopy(made.state_dict())
    other, views = training()
    other.load_state_dict(state)
    other.history.append("more")
    assert len(state["history"]) == 1


def test_training_lowers_the_loss():
    made, views = training(epochs=8, schedule=CONSTANT)
    losses = run(made, views)
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])


def test_history():
    made, views = training(heldout_every=2)
    looks = iter([40.0, 50.0])
    losses = run(made, views, evaluate=lambda: {"heldout_miou": next(looks), "heldout_category_miou": 60.0})
    assert [entry["epoch"] for entry in made.history] == [1, 2, 3]
    assert [entry["steps"] for entry in made.history] == [3, 6, 9]
    # Every second epoch, and the last.
    assert [entry["heldout_miou"] for entry in made.history] == [None, 40.0, 50.0]
    assert ["heldout_category_miou" in entry for entry in made.history] == [False, True, True]
    for epoch, entry in enumerate(made.history):
        assert entry["loss"] == pytest.approx(np.mean(losses[3 * epoch : 3 * epoch + 3]))
        # The rate told is that of the epoch's last step: the schedule of section 5, ((1 − n/N)^0.9)².
        assert entry["lr"] == pytest.approx(1e-2 * (1 - (3 * epoch + 2) / 9) ** 1.8)


def test_constant_schedule():
    made, views = training(schedule=CONSTANT)
    run(made, views)
    assert {entry["lr"] for entry in made.history} == {1e-2}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_before_the_step(value):
    made, views = training()
    run(made, views, steps=2)
    before = {name: value.clone() for name, value in made.module.named_parameters()}
    images = torch.full((2, 3, 12, 12), value)
    with pytest.raises(DataError, match=r"training, step 2: found a loss of (nan|inf).*lower the learning rate"):
        made.step(images, torch.zeros(2, 12, 12, dtype=torch.long))
    assert made.done == 2
    assert all(torch.equal(value, before[name]) for name, value in made.module.named_parameters())


def test_frozen_normalisation_keeps_its_statistics():
    made, views = training(normalisation="frozen")
    made.module.network.backbone[1].running_mean += 0.25
    before = tensors(made.module)
    run(made, views, steps=3)
    after = tensors(made.module)
    kept = [name for name in before if "running" in name or "num_batches" in name]
    assert len(kept) == 3
    assert all(torch.equal(before[name], after[name]) for name in kept)
    # Its scale and shift go on learning.
    assert not torch.equal(before["network.backbone.1.weight"], after["network.backbone.1.weight"])


def test_trained_normalisation_moves_its_statistics():
    made, views = training()
    before = tensors(made.module)
    run(made, views, steps=1)
    assert not torch.equal(before["network.backbone.1.running_mean"], made.module.network.backbone[1].running_mean)


def test_void_alone_is_a_step_without_gradient():
    made, _ = training(normalisation="frozen")
    assert made.step(torch.rand(2, 3, 12, 12), torch.full((2, 12, 12), 255)) == 0.0


def test_rates_and_decay_by_part():
    module = network()
    settings = Settings(LOOP | {"learning_rate": 1e-3, "classifier_rate": 10, "bias_rate": 2, "weight_decay": 5e-4})
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    found = {
        names[id(parameter)]: (round(group["lr"], 9), group["weight_decay"])
        for group in backprop.network_groups(module, settings)
        for parameter in group["params"]
    }
    # Section 5 of arXiv:1412.7062: ten times as fast in the classifier; as released, biases twice, without decay.
    assert found == {
        "backbone.0.weight": (1e-3, 5e-4),
        "backbone.0.bias": (2e-3, 0.0),
        "backbone.1.weight": (1e-3, 0.0),
        "backbone.1.bias": (2e-3, 0.0),
        "classifier.weight": (1e-2, 5e-4),
        "classifier.bias": (2e-2, 0.0),
    }


def test_what_does_not_learn_is_frozen():
    made, views = training(learns=["classifier"], normalisation="frozen")
    before = tensors(made.module)
    run(made, views, steps=2)
    after = tensors(made.module)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"network.classifier.weight", "network.classifier.bias"}


def test_a_part_that_is_not_there_is_refused():
    with pytest.raises(SettingsError, match=r"key 'learns': found 'multiscale'.*there are backbone, classifier"):
        training(learns=["classifier", "multiscale"])


def test_groups_leave_out_what_needs_no_gradient():
    assert backprop.groups(network().requires_grad_(False), lambda name: 1e-3, 5e-4) == []


def test_sgd_keeps_a_share_of_the_last_step():
    made, _ = training(optimiser={"name": "sgd", "momentum": 0.9}, schedule=CONSTANT, weight_decay=0)
    weight = made.module.network.classifier.weight
    images, truth = torch.rand(2, 3, 12, 12), torch.randint(0, 4, (2, 12, 12))
    step = torch.zeros_like(weight)
    for _ in range(3):
        before = weight.detach().clone()
        made.step(images, truth)
        step = 0.9 * step - 1e-2 * weight.grad
        # Three roundings of numbers below 1.
        assert torch.allclose(weight, before + step, rtol=0, atol=3 * torch.finfo(torch.float32).eps)


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        ({"name": "constant"}, [1, 1, 1, 1, 1, 1, 1, 1]),
        ({"name": "poly", "power": 0.9}, [(1 - n / 8) ** 0.9 for n in range(8)]),
        ({"name": "squared_poly", "power": 0.9}, [(1 - n / 8) ** 1.8 for n in range(8)]),
        ({"name": "step", "every": 3, "factor": 0.1}, [1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01]),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
def test_schedules(schedule, factors):
    made, views = training_of(8, schedule, classifier_rate=10)
    seen = []
    for _ in made.run(views, workers=0):
        seen.append({round(group["lr"], 12) for group in made.optimiser.param_groups})
    assert seen == [{round(1e-2 * factor, 12), round(1e-1 * factor, 12)} for factor in factors]


def test_iterations_end_within_an_epoch():
    made, views = training_of(8, CONSTANT, heldout_every=2)
    losses = run(made, views, evaluate=lambda: {"heldout_miou": 50.0})
    assert len(losses) == 8
    assert [(entry["epoch"], entry["steps"]) for entry in made.history] == [(1, 3), (2, 6), (3, 8)]
    assert [entry["heldout_miou"] for entry in made.history] == [None, 50.0, 50.0]
    assert made.history[-1]["loss"] == pytest.approx(np.mean(losses[6:]))


@pytest.mark.parametrize(("grid", "rows", "cols"), [("points", [0, 4, 8], [0, 4, 8]), ("cells", [1, 5, 9], [2, 6, 10])])
def test_the_targets_of_entries_are_the_truth_at_their_pixels(grid, rows, cols):
    module = backprop.Segmenter(network(), SCALING, loss_at="entries")
    module.network.grid = Grid(grid, 4)
    truth = torch.arange(11).view(1, -1, 1) * 100 + torch.arange(12)
    assert module.targets(truth)[0].tolist() == [[100 * row + col for col in cols] for row in rows]


def test_entries_beyond_the_image_have_no_truth(monkeypatch):
    monkeypatch.setattr(Network, "grid", Grid("points", 2, -1.5))
    with pytest.raises(SettingsError, match="key 'loss_at': found 'entries', expected 'pixels', as some"):
        training(loss_at="entries")


def test_a_loss_at_entries_sees_every_second_pixel(monkeypatch):
    monkeypatch.setattr(Network, "grid", Grid("points", 2))
    made, _ = training(loss_at="entries", normalisation="frozen")
    images, truth = torch.rand(2, 3, 11, 12), torch.full((2, 11, 12), 255)
    assert made.step(images, truth) == 0.0
    truth[:, 1::2], truth[:, :, 1::2] = 3, 3
    assert made.step(images, truth) == 0.0
    truth[:, ::2, ::2] = torch.randint(0, 4, (2, 6, 6))
    made.module.train()
    torch.manual_seed((3 * 1_000_003 + 2) % 2**63)  # the dropout of step 2
    made.module.network.backbone[1].eval()
    expected = nn.functional.cross_entropy(made.module(images), truth[:, ::2, ::2])
    assert made.step(images, truth) == pytest.approx(expected.item())


def test_segmenter_answers_at_the_size_of_the_image():
    module = backprop.Segmenter(network(), SCALING)
    assert module(torch.rand(2, 3, 13, 17)).shape == (2, 4, 13, 17)


def test_segmenter_feeds_levels_and_log_probabilities_to_its_system():
    class Listener(nn.Module):
        def forward(self, images, log_probability):
            self.heard = images, log_probability
            return log_probability

    module = backprop.Segmenter(network(), SCALING, Listener()).eval()
    images = torch.rand(1, 3, 12, 12)
    module(images)
    levels, log_probability = module.refiner.heard
    assert torch.equal(levels, images * 255)
    # Probabilities of 4 classes add up to 1 within a few float32 roundings.
    assert (log_probability.exp().sum(dim=1) - 1).abs().max() < 1e-6
