"""The loop of a training: resumes bit for bit, stops at a loss that is not finite, freezes and decays as told."""

import copy

import builders
import numpy as np
import pytest
import torch
from torch import nn

from pipeline.algorithms import backprop, refiners
from pipeline.algorithms.batches import Views
from pipeline.core.errors import DataError
from pipeline.core.settings import Settings
from pipeline.core.unaries import Unaries

NAMES = tuple(f"image_{number}" for number in range(7))
SAMPLES = {name: builders.sample(name, seed, (14, 16)) for seed, name in enumerate(NAMES)}
JITTER = {"brightness": 0.1, "contrast": 0.2, "saturation": 0.2, "hue": 0.02}
SCALING = Settings({"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]})
LOOP = {
    "loss": "cross_entropy",
    "epochs": 3,
    "batch": 2,
    "crop": [12, 12],
    "schedule": "squared_poly",
    "power": 0.9,
    "precision": "float32",
    "normalisation": "trained",
    "heldout_every": 0,
    "augmentation": {"flip": True, "rotation": 10, "resize": [0.8, 1.25], "jitter": JITTER},
}


def network():
    """A small network with all that a training treats apart: normalisation, dropout, biases."""
    torch.manual_seed(5)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout2d(0.3), nn.Conv2d(8, 4, 1)
    )


def training(learning_rate=1e-2, **changed):
    settings = Settings(LOOP | changed)
    module = backprop.Segmenter(network(), SCALING)
    groups = backprop.decay_groups(module, learning_rate, 1e-3)
    views = Views(SAMPLES.__getitem__, NAMES, settings, (0.5, 0.5, 0.5), seed=3)
    return backprop.Training(module, groups, settings, views.steps_per_epoch, seed=3), views


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
    assert resumed.history == undisturbed.history


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
    made, views = training(epochs=8, schedule="constant")
    losses = run(made, views)
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])


def test_history():
    made, views = training(heldout_every=2)
    looks = iter([40.0, 50.0])
    losses = run(made, views, evaluate=lambda: next(looks))
    assert [entry["epoch"] for entry in made.history] == [1, 2, 3]
    assert [entry["steps"] for entry in made.history] == [3, 6, 9]
    # Every second epoch, and the last.
    assert [entry["heldout_miou"] for entry in made.history] == [None, 40.0, 50.0]
    for epoch, entry in enumerate(made.history):
        assert entry["loss"] == pytest.approx(np.mean(losses[3 * epoch : 3 * epoch + 3]))
        # The rate told is that of the epoch's last step: the schedule of section 5, ((1 − n/N)^0.9)².
        assert entry["lr"] == pytest.approx(1e-2 * (1 - (3 * epoch + 2) / 9) ** 1.8)


def test_constant_schedule():
    made, views = training(schedule="constant")
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
    made.module.network[1].running_mean += 0.25
    before = tensors(made.module)
    run(made, views, steps=3)
    after = tensors(made.module)
    kept = [name for name in before if "running" in name or "num_batches" in name]
    assert len(kept) == 3
    assert all(torch.equal(before[name], after[name]) for name in kept)
    # Its scale and shift go on learning.
    assert not torch.equal(before["network.1.weight"], after["network.1.weight"])


def test_trained_normalisation_moves_its_statistics():
    made, views = training()
    before = tensors(made.module)
    run(made, views, steps=1)
    assert not torch.equal(before["network.1.running_mean"], made.module.network[1].running_mean)


def test_void_alone_is_a_step_without_gradient():
    made, _ = training(normalisation="frozen")
    assert made.step(torch.rand(2, 3, 12, 12), torch.full((2, 12, 12), 255)) == 0.0


def test_decay_is_on_kernels_alone():
    module = network()
    module[4].weight.requires_grad_(False)
    kernels, others = backprop.decay_groups(module, 1e-3, 5e-4)
    assert (kernels["weight_decay"], others["weight_decay"]) == (5e-4, 0.0)
    assert {group["lr"] for group in (kernels, others)} == {1e-3}
    assert [id(parameter) for parameter in kernels["params"]] == [id(module[0].weight)]
    wanted = [module[0].bias, module[1].weight, module[1].bias, module[4].bias]
    assert [id(parameter) for parameter in others["params"]] == [id(parameter) for parameter in wanted]


def test_a_module_that_learns_nothing_has_no_group():
    assert backprop.decay_groups(network().requires_grad_(False), 1e-3, 5e-4) == []


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


class Scale(nn.Module):
    """A system with one number."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.1))

    def forward(self, images, log_probability):
        return self.factor * log_probability


def fit_scale(samples, seed=0, epochs=4, batch=2):
    module = Scale()
    settings = Settings({"loss": "cross_entropy", "epochs": epochs, "batch": batch, "learning_rate": 0.1})
    values = refiners.fit(
        module, samples, settings, seed, torch.device("cpu"), lambda: {"factor": module.factor.item()}
    )
    return list(values), module


def labelled(count=3):
    samples = [builders.sample(str(seed), seed, (10, 12)) for seed in range(count)]
    scores = [builders.scores_of(sample.truth, 4, seed=9, stride=2, noise=0.1) for sample in samples]
    return [(s, Unaries(torch.from_numpy(score), "logits")) for s, score in zip(samples, scores, strict=True)]


def test_fit_of_given_unaries_tells_each_step():
    curve, module = fit_scale(labelled())
    assert [entry["step"] for entry in curve] == list(range(1, 9))
    assert {entry["steps"] for entry in curve} == {8}
    assert curve[0]["factor"] == pytest.approx(0.1)
    assert curve[-1]["loss"] < curve[0]["loss"]
    assert module.factor.item() > 0.1


def test_fit_of_given_unaries_depends_on_the_seed_alone():
    torch.manual_seed(1)
    first, _ = fit_scale(labelled())
    torch.manual_seed(2)
    assert fit_scale(labelled())[0] == first
    assert fit_scale(labelled(), seed=1)[0] != first


def test_fit_of_given_unaries_stops_at_a_loss_that_is_not_finite():
    sample, unaries = labelled(1)[0]
    unaries.scores[0, 0, 0] = float("nan")
    with pytest.raises(DataError, match=r"fit, step 1: found a loss of nan, expected a finite one"):
        fit_scale([(sample, unaries)])
