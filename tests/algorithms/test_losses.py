"""Cross-entropy over labelled pixels: worked examples, void, sums over devices."""

import pytest
import torch

from pipeline.algorithms.losses import VOID, cross_entropy


def test_worked_example():
    # Scores ln 1, ln 3: probabilities 1/4 and 3/4 at both pixels.
    scores = torch.tensor([1.0, 3.0]).log().view(1, 2, 1, 1).expand(1, 2, 1, 2)
    total, count = cross_entropy(scores, torch.tensor([[[0, 1]]]))
    assert float(total) == pytest.approx(float(torch.tensor([4.0, 4 / 3]).log().sum()))
    assert int(count) == 2


def test_void_counts_for_nothing():
    scores = torch.randn(2, 3, 4, 5)
    truth = torch.randint(0, 3, (2, 4, 5))
    truth[0, :2] = VOID
    total, count = cross_entropy(scores, truth)
    changed = scores.clone()
    changed[0, :, :2] = 100
    assert torch.equal(cross_entropy(changed, truth)[0], total)
    assert int(count) == 2 * 4 * 5 - 2 * 5


def test_void_alone_gives_0_and_no_gradient():
    scores = torch.randn(1, 3, 2, 2, requires_grad=True)
    total, count = cross_entropy(scores, torch.full((1, 2, 2), VOID))
    total.backward()
    assert (total.item(), count.item()) == (0.0, 0)
    assert not scores.grad.any()


def test_parts_add_up():
    scores, truth = torch.randn(4, 3, 5, 5, dtype=torch.float64), torch.randint(0, 3, (4, 5, 5))
    whole, count = cross_entropy(scores, truth)
    first, second = (cross_entropy(scores[part], truth[part]) for part in (slice(0, 1), slice(1, 4)))
    # The sum of 100 terms in another order: pytest's default of 1e-6 is far above float64's rounding of it.
    assert float(first[0] + second[0]) == pytest.approx(float(whole))
    assert int(first[1] + second[1]) == int(count) == 100
