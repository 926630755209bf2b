"""DifNet on given unaries: seeds, fits, what they move, statistics, sizes, extremes, refusals."""

import dataclasses

import numpy as np
import pytest
import torch
from learned import CONFIG, CPU
from observe import refusal
from planted import planted, wrong

from pipeline import systems
from pipeline.core import settings
from pipeline.core.errors import SettingsError
from pipeline.nets.difnet import LEVELS
from pipeline.systems.difnet import PARTS, Diffuser

SMALL = {"width": 0.125, "seed_stride": 2, "feature_channels": 8}
BRANCHED = SMALL | {"walks": list(LEVELS)}
ALL = {"parameters": dict.fromkeys(PARTS, 1)}


def chosen(name="difnet", fit=None, **changed):
    values = settings.read(CONFIG / f"{name}.yaml", "systems").plain()
    return settings.check(values | changed | {"fit": values["fit"] | (fit or {})}, "systems", where="a test")


def built(classes=2, **changed):
    return systems.build(chosen(**changed), classes, CPU)


def case(height=20, width=24, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = 255 * torch.rand(1, 3, height, width, generator=generator)
    return images, torch.randn(1, classes, height, width, generator=generator).log_softmax(dim=1)


def test_seeds_are_the_mean_of_each_cell():
    _, log_probability = case(6, 8)
    found = Diffuser(chosen(seed_stride=2), 3, {}).seeds(log_probability)
    assert torch.allclose(found, log_probability.unflatten(2, (3, 2)).unflatten(4, (4, 2)).mean(dim=(3, 5)), atol=1e-6)
    assert Diffuser(chosen(seed_stride=1), 3, {}).seeds(log_probability) is log_probability
    assert Diffuser(chosen(seed_stride=4), 3, {}).seeds(log_probability).shape == (1, 3, 2, 2)


@pytest.mark.parametrize("changed", [SMALL, SMALL | {"walks": ["image", "image", "layer1"]}])
def test_a_fit_gains_on_what_it_has_not_seen(changed):
    system = built(**changed, fit={"epochs": 25, "batch": 2})
    # Images of different sizes make a batch.
    curve = list(system.fit([planted(0), planted(1, (16, 30))], seed=0))
    assert curve[-1]["loss"] < 0.85 * curve[0]["loss"]
    assert not system.module.training
    unary = systems.build(settings.read(CONFIG / "unary.yaml", "systems"), 2, CPU)
    sample, unaries = planted(2)
    assert wrong(system, sample, unaries) < 0.5 * wrong(unary, sample, unaries)


def test_a_fit_tells_mu_and_beta_and_those_of_the_first_walk_are_equal():
    system = built(**SMALL, fit={"epochs": 5, "batch": 1})
    curve = list(system.fit([planted(0), planted(1)], seed=0))
    assert {f"{name}_{walk}" for name in ("mu", "beta") for walk in (1, 2, 3)} < set(curve[0])
    assert curve[0]["mu_1"] == pytest.approx(0.5)
    assert curve[-1]["mu_1"] != pytest.approx(0.5, abs=0.01)
    for step in curve:
        assert step["mu_1"] == pytest.approx(step["beta_1"], abs=1e-4)
        assert all(0 < step[name] < 1 for name in step if name.startswith(("mu", "beta")))


@pytest.mark.parametrize("part", PARTS)
def test_only_what_is_named_is_fitted(part):
    system = built(**BRANCHED, fit={"epochs": 2, "batch": 2, "parameters": {part: 1}})
    system.module.measure([case(classes=2)])
    before = {name: value.clone() for name, value in system.module.named_parameters()}
    list(system.fit([planted(0), planted(1)], seed=0))
    moved = {name for name, value in system.module.named_parameters() if not torch.equal(value, before[name])}
    assert moved
    beginnings = ("diffusion.mu", "diffusion.beta") if part == "mixing" else f"diffusion.{part}."
    assert all(name.startswith(beginnings) for name in moved)


def test_equal_fits_are_equal_and_come_back_from_their_numbers():
    fitted = []
    for _ in range(2):
        system = built(**BRANCHED, fit={"epochs": 2, "batch": 2})
        list(system.fit([planted(0), planted(1)], seed=0))
        fitted.append(system)
    one, two = (system.state() for system in fitted)
    assert one.keys() == two.keys()
    assert all(np.array_equal(one[name], two[name]) for name in one)
    again = systems.build(fitted[0].settings, 2, CPU, one)
    given = case(classes=2)
    assert torch.equal(again.module(*given), fitted[0].module(*given))


def test_nothing_to_fit_takes_no_step():
    for fit in ({"epochs": 0}, {"parameters": {}}):
        assert list(built(**SMALL, fit=fit).fit([planted(0)], seed=0)) == []


def test_statistics_are_those_of_the_images_and_stay():
    module = Diffuser(chosen(**BRANCHED), 3, {})
    first = module.diffusion.features[0]
    module.measure([case(seed=0), case(seed=1)])
    seen = []
    first[0].register_forward_hook(lambda layer, given, made: seen.append(made))
    module.train()
    module(*case(seed=0))
    module(*case(seed=1))
    both = torch.stack(seen)
    assert torch.allclose(first[1].running_mean, both.mean(dim=(0, 1, 3, 4)), atol=1e-5)
    alone = torch.stack([each.var(dim=(0, 2, 3)) for each in seen])
    assert torch.allclose(first[1].running_var, alone.mean(dim=0), rtol=1e-4)
    kept = first[1].running_mean.clone()
    module(*case(seed=2))
    assert torch.equal(first[1].running_mean, kept)


def test_an_image_of_one_position_may_be_among_those_fitted():
    sample, unaries = planted(1)
    one = dataclasses.replace(sample, image=sample.image[:1, :1], truth=sample.truth[:1, :1])
    small = one, dataclasses.replace(unaries, scores=unaries.scores[:, :1, :1])
    for samples in ([small], [planted(0), small]):
        system = built(**BRANCHED, fit={"epochs": 1, "batch": 1})
        curve = list(system.fit(samples, seed=0))
        assert all(np.isfinite(step["loss"]) for step in curve)


def test_building_draws_from_no_other_generator():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    Diffuser(chosen(**BRANCHED), 3, {})
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 3), (33, 50)])
def test_any_size_is_refined(size):
    system = built(classes=3, **BRANCHED)
    images, log_probability = case(*size)
    assert system.module(images, log_probability).shape == (1, 3, *size)
    assert system.labels(images, log_probability).shape == size


def test_one_colour_and_certain_unaries_stay_finite():
    module = Diffuser(chosen(**BRANCHED, fit=ALL), 3, {})
    log_probability = torch.full((1, 3, 12, 16), -1e4)
    log_probability[:, 1] = 0
    scores = module(torch.full((1, 3, 12, 16), 255.0), log_probability)
    assert torch.isfinite(scores).all()
    assert (scores.argmax(dim=1) == 1).all()
    scores.sum().backward()
    assert all(torch.isfinite(x.grad).all() for x in module.parameters())


def test_a_gradient_reaches_the_network_before_it():
    module = Diffuser(chosen(**BRANCHED), 3, {}).train()
    images, log_probability = case()
    log_probability.requires_grad_()
    module(images, log_probability).square().sum().backward()
    assert log_probability.grad.abs().min() > 0


@pytest.mark.parametrize(("changed", "fit"), [(BRANCHED, ALL), ({}, {})])
def test_recomputing_changes_no_gradient_and_keeps_less(changed, fit):
    found, kept = [], []
    for recompute in (False, True):
        module = Diffuser(chosen(**changed, fit=fit), 3, {}).train()
        module.recompute = recompute
        held = {}

        def keep(tensor, held=held):
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            scores = module(*case(64, 80))
        scores.square().sum().backward()
        parameters = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
        kept.append(sum(size for place, size in held.items() if place not in parameters))
        found.append([parameter.grad for parameter in module.parameters()])
    assert all(torch.equal(plain, again) for plain, again in zip(*found, strict=True))
    assert kept[1] < 0.8 * kept[0]


def test_the_published_walks_begin_at_a_half():
    module = Diffuser(chosen("difnet_paper", width=0.125, depth=18), 3, {})
    assert module.diffusion.walks == LEVELS
    assert module.diffusion.affinity == "product"
    assert all(value == pytest.approx(0.5) for value in module.values().values())


def test_refusals():
    assert refusal(lambda: built(fit={"parameters": {"similarities": 1}}), SettingsError) == (
        "a test, key 'fit.parameters.similarities': found an unknown key, expected a known one; "
        "did you mean 'similarity'?"
    )
    assert refusal(lambda: built(walks=["layer1"]), SettingsError) == (
        "positions: found 60, expected 0 where no walk is over the image; set it to 0, or walk on the image"
    )
    found = refusal(lambda: built(fit={"parameters": {"similarity": 1}}), SettingsError)
    assert found == (
        "key 'fit.parameters': found 'similarity', expected features, importance, mixing: these walks have no branch; "
        "take it out, or walk on layer1 to layer4"
    )
    assert refusal(lambda: built(branch_weights="resnet18.pth"), SettingsError) == (
        "key 'branch_weights': found 'resnet18.pth', expected none: these walks have no branch; "
        "set none, or walk on layer1 to layer4"
    )
    state = built(**SMALL).state()
    state["mu"] = np.zeros(5, np.float32)
    assert refusal(lambda: systems.build(chosen(**SMALL), 2, CPU, state)) == (
        "fitted mu: found the shape (5,), expected the shape (3,) as the settings say; run `fit` again"
    )
    del state["mu"]
    assert refusal(lambda: systems.build(chosen(**SMALL), 2, CPU, state)) == (
        "fitted mu: found none, expected the shape (3,) as the settings say; run `fit` again"
    )
    assert refusal(lambda: chosen(walks=["image", "layer5"]), SettingsError) == (
        "a test, key 'walks.1': found 'layer5', expected one of image, layer1, layer2, layer3, layer4; mend the value"
    )
    assert refusal(lambda: chosen(walks=[]), SettingsError).startswith("a test, key 'walks': found []")
