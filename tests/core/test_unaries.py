"""Scores of a network: three kinds that say the same, and what is refused."""

import pytest
import torch

from pipeline.core.errors import DataError
from pipeline.core.grids import Grid
from pipeline.core.unaries import KINDS, SMALLEST, Unaries, check


def logits():
    return torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(2))


def as_kind(scores, kind):
    log_p = scores.log_softmax(dim=0)
    return {"logits": scores, "probability": log_p.exp(), "neg_log_probability": -log_p}[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_says_the_same_at_its_own_size(kind):
    found = Unaries(as_kind(logits(), kind), kind, Grid("cells", 4)).log_probability(4, 5)
    # One more exponential and logarithm in float32: a few eps of numbers up to 5.
    assert (found - logits().log_softmax(dim=0)).abs().max() < 5e-6


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_sum_to_1_at_image_size(kind):
    found = Unaries(as_kind(logits(), kind), kind, Grid("cells", 4)).log_probability(13, 17)
    assert found.shape == (3, 13, 17)
    assert (found.exp().sum(dim=0) - 1).abs().max() < 1e-6  # a few float32 roundings of 1


def test_probabilities_of_0_stay_finite():
    scores = torch.tensor([1.0, 0.0]).view(2, 1, 1)
    found = Unaries(scores, "probability", Grid("cells", 1)).log_probability(1, 1)
    assert found[1].item() == pytest.approx(torch.tensor(SMALLEST).log().item())


@pytest.mark.parametrize("kind", KINDS)
def test_scores_of_their_kind_pass(kind):
    check(as_kind(logits(), kind), kind, "here")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_score_that_is_not_finite_is_named_with_its_place(value):
    scores = logits()
    scores[2, 1, 3] = value
    with pytest.raises(DataError, match=rf"here, class 2, row 1, col 3: found the score {value}, expected finite"):
        check(scores, "logits", "here")


def test_probabilities_given_as_logits_are_refused():
    with pytest.raises(DataError, match=r"sum to 1 at every pixel, marked as logits.*state the kind 'probability'"):
        check(logits().softmax(dim=0), "logits", "here")


@pytest.mark.parametrize("kind", ["probability", "neg_log_probability"])
def test_logits_given_as_another_kind_are_refused(kind):
    with pytest.raises(DataError, match="here: found"):
        check(logits(), kind, "here")


def test_one_class_alone_is_no_probability():
    check(torch.ones(1, 2, 2), "logits", "here")
