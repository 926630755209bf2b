"""Scores after some iterations of mean field: those that `refine` works with, for every system that runs it."""

import numpy as np
import pytest
import torch
from planted import planted

from pipeline import systems
from pipeline.algorithms import iterations, refiners
from pipeline.core import settings
from pipeline.core.settings import Settings

CONFIG = settings.ROOT / "config" / "systems"
CPU = torch.device("cpu")
CHOSEN = {path.stem: settings.read(path, "systems") for path in sorted(CONFIG.glob("*.yaml"))}
MEAN_FIELD = [name for name, chosen in CHOSEN.items() if "normalisation" in chosen]  # of kernels


def build(name, **changed):
    return systems.build(Settings(CHOSEN[name].plain() | changed), 2, CPU)


@pytest.mark.parametrize("name", MEAN_FIELD)
def test_the_best_classes_are_what_refine_returns_at_each_number(name):
    sample, unaries = planted(3)
    numbers = [0, 1, 2, CHOSEN[name].iterations]
    shown = iterations.scores_after(build(name), sample.image, unaries, numbers)
    found = [scores.argmax(dim=0).numpy() for scores in shown]
    for number, labels in zip(numbers, found, strict=True):
        np.testing.assert_array_equal(labels, build(name, iterations=number).refine(sample.image, unaries))
    assert (found[0] != found[-1]).mean() > 0.01


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("deeplab", {}),  # in one call
        ("fullcrf", {"tolerance": 0.05}),
        ("fullcrf", {"filter": "window", "clip": 0.2, "temperature": 2.0}),
        ("convcrf", {"blur": 2}),
        ("convcrf_released", {}),
    ],
)
def test_the_last_scores_are_the_module_s_to_the_bit(name, changed):
    sample, unaries = planted(3)
    system = build(name, **changed)
    batch = refiners.as_batch(sample.image, unaries, CPU)
    with torch.inference_mode():
        expected = system.module(*batch)[0]
        unary = system.module.unary(batch[1])[0]
    first, last = iterations.scores_after(system, sample.image, unaries, (0, system.settings.iterations))
    assert torch.equal(last, expected)
    assert torch.equal(first, unary)
    assert last.shape == (2, *sample.truth.shape)


def test_fitted_values_count_and_stay():
    sample, unaries = planted(3)
    system = build("fullcrf")
    before = next(iterations.scores_after(system, sample.image, unaries, [2]))
    system.module.set("appearance_weight", 40.0)
    state = system.state()
    after = next(iterations.scores_after(system, sample.image, unaries, [2]))
    assert (before - after).abs().max() > 1
    assert system.state() == state and system.module.settings.iterations == CHOSEN["fullcrf"].iterations


def test_systems_that_run_mean_field_are_known():
    assert [name for name in CHOSEN if iterations.are_in(build(name))] == MEAN_FIELD
    assert MEAN_FIELD and not iterations.are_in(build("unary"))
