"""The fit of a system on given unaries: tells each step, follows from its seed alone, stops at a loss of NaN."""

import builders
import pytest
import torch
from torch import nn

from pipeline.algorithms import refiners
from pipeline.core.errors import DataError
from pipeline.core.grids import Grid
from pipeline.core.settings import Settings
from pipeline.core.unaries import Unaries


class Scale(nn.Module):
    """A system with one number."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.1))

    def rate(self, name):
        return 1

    def values(self):
        return {"factor": self.factor.item()}

    def forward(self, images, log_probability):
        return self.factor * log_probability


def fit_scale(samples, seed=0, epochs=4, batch=2):
    module = Scale()
    settings = Settings({"loss": "cross_entropy", "epochs": epochs, "batch": batch, "learning_rate": 0.1})
    values = refiners.fit(module, samples, settings, seed, torch.device("cpu"))
    return list(values), module


def labelled(count=3):
    samples = [builders.sample(str(seed), seed, (10, 12)) for seed in range(count)]
    scores = [builders.scores_of(sample.truth, 4, seed=9, stride=2, noise=0.1) for sample in samples]
    grid = Grid("cells", 2)
    return [(s, Unaries(torch.from_numpy(score), "logits", grid)) for s, score in zip(samples, scores, strict=True)]


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
    with pytest.raises(
        DataError,
        match=r"step 1: found a loss of nan; factor is 1 times as large as at first, expected a finite one",
    ):
        fit_scale([(sample, unaries)])
