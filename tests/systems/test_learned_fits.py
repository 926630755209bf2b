"""Fits of learnt parts: they come back, move, learn at rates of their own, and never in the reference."""

import numpy as np
import pytest
import torch
from learned import CLASSES, CONFIG, CPU, FREE, case, chosen, convcrf, stirred, unwatched
from planted import planted, wrong

from pipeline import systems
from pipeline.core import settings
from pipeline.core.errors import DataError, SettingsError
from pipeline.kernels import dispatch
from pipeline.systems.convcrf import ConvCRF


def test_numbers_come_back():
    crf = stirred(convcrf(positions=FREE)).float()
    again = ConvCRF(crf.settings, CLASSES, crf.numbers())
    images, log_probability = (x.float() for x in case())
    assert torch.allclose(again(images, log_probability), crf(images, log_probability), rtol=1e-5, atol=1e-5)
    assert again.values()["positions_moved"] == pytest.approx(0.3, rel=0.3)
    assert crf.numbers()["compatibility"].shape == (CLASSES, CLASSES)


def test_numbers_of_another_shape_are_refused():
    with pytest.raises(
        DataError, match=r"fitted compatibility: found \(3, 3\) numbers, expected \(4, 4\) as the settings"
    ):
        ConvCRF(chosen("convcrf_c"), 4, {"compatibility": np.zeros((3, 3), np.float32)})


@pytest.mark.parametrize(
    ("name", "changed"),
    [("compatibility", {}), ("unary_weight", {"combine": "sum"}), ("theta_alpha", {"appearance_position": False})],
)
def test_what_the_settings_do_not_use_cannot_be_fitted(name, changed):
    with pytest.raises(
        SettingsError, match=rf"key 'fit\.parameters': found '{name}', expected what these settings use"
    ):
        systems.build(chosen("convcrf", **changed, fit={"parameters": {name: 1}}), CLASSES, CPU)


def test_a_fit_without_iterations_is_refused():
    system = systems.build(chosen("crfrnn", training_iterations=0), 2, CPU)
    with pytest.raises(SettingsError, match="found 0 iterations while it is fitted"):
        list(system.fit([planted(0)], seed=0))


@pytest.mark.parametrize("name", ["convcrf_ct", "crfrnn"])
def test_fit_moves_every_learnt_part_and_lowers_the_loss(name):
    preset = settings.read(CONFIG / f"{name}.yaml", "systems").plain()
    weak = {"appearance_weight": 0.5, "smoothness_weight": 0.2, "theta_alpha": 10.0}
    if name == "convcrf_ct":
        weak |= {"blur": 1, "filter_size": 5}  # the image has few cells of 4 px
    values = preset | weak | {"fit": unwatched(preset["fit"]) | {"epochs": 12, "batch": 2}}
    system = systems.build(settings.check(values, "systems", where="a test"), 2, CPU)
    # Images of different sizes make a batch.
    curve = list(system.fit([planted(0), planted(1, (16, 30))], seed=0))
    assert curve[-1]["loss"] < 0.8 * curve[0]["loss"]
    moved = system.module.values()
    for part in preset["fit"]["parameters"]:
        before = 0 if f"{part}_moved" in moved else values[part]
        assert abs(moved.get(f"{part}_moved", moved.get(part)) - before) > 1e-3, part
    assert not system.module.training
    unary = systems.build(settings.read(CONFIG / "unary.yaml", "systems"), 2, CPU)
    sample, unaries = planted(2)
    assert wrong(system, sample, unaries) < 0.5 * wrong(unary, sample, unaries)


@pytest.mark.parametrize("name", ["convcrf_ct", "crfrnn", "crfrnn_paper", "crfrnn_released"])
def test_nothing_falls_back_to_the_reference_while_it_is_trained(name, monkeypatch):
    """Single precision on the CPU: every kernel's forward and backward pass is the compiled one's."""
    taken, pick = set(), dispatch.pick

    def picked(kernel, *arguments):
        backend = pick(kernel, *arguments)
        taken.add((kernel, backend))
        return backend

    monkeypatch.setattr(dispatch, "pick", picked)
    system = systems.build(chosen(name, fit={"epochs": 1}), 2, CPU)
    list(system.fit([planted(0)], seed=0))
    assert {backend for _, backend in taken} == {"cpu"}
    assert len(taken) >= 2


def test_factors_make_some_parts_learn_slower():
    """Adam's first step is the learning rate, whatever the gradient."""
    rates = {"appearance_weight": 1, "compatibility": 0.25}
    system = systems.build(chosen("crfrnn", fit={"parameters": rates, "epochs": 1, "learning_rate": 0.1}), 2, CPU)
    list(system.fit([planted(0)], seed=0))
    moved = system.module.values()
    assert moved["appearance_weight_moved"] == pytest.approx(0.1, rel=1e-2)
    assert moved["compatibility_moved"] == pytest.approx(0.025, rel=1e-2)
    assert moved["smoothness_weight_moved"] == 0
