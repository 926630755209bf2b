"""Cross-entropy and soft Jaccard over labelled pixels: worked examples, void, sums over devices."""

import pytest
import torch

from pipeline.algorithms.losses import VOID, cross_entropy, soft_jaccard


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


def sure(labels, classes=3):
    """Scores whose softmax is, to float32's rounding, one-hot."""
    return 100 * torch.nn.functional.one_hot(labels, classes).permute(0, 3, 1, 2).float()


def test_soft_jaccard_of_sure_answers_is_1_minus_the_iou():
    truth = torch.tensor([[[0, 0, 0, 1], [1, 1, VOID, VOID]]])
    answer = torch.tensor([[[0, 0, 1, 1], [1, 1, 2, 0]]])
    total, count = soft_jaccard(sure(answer), truth)
    # IoU of class 0: 2 of 3; of class 1: 3 of 4; class 2 is absent from the truth and counts for nothing.
    assert total.item() == pytest.approx((1 / 3 + 1 / 4) / 2)
    assert count.item() == 1


def test_soft_jaccard_of_a_batch_is_the_sum_of_its_images():
    scores, truth = torch.randn(3, 4, 5, 6), torch.randint(0, 4, (3, 5, 6))
    alone = [soft_jaccard(scores[i : i + 1], truth[i : i + 1])[0] for i in range(3)]
    total, count = soft_jaccard(scores, truth)
    assert total.item() == pytest.approx(sum(alone).item()) and count.item() == 3


def test_soft_jaccard_of_the_truth_is_0():
    truth = torch.randint(0, 3, (2, 4, 5))
    assert soft_jaccard(sure(truth), truth)[0].item() == pytest.approx(0, abs=1e-6)  # float32's rounding of 1


def test_soft_jaccard_worked_example():
    # Two pixels, both of class 0, p = 3/4 there: index = 1.5 / (1.5 + 2 - 1.5).
    scores = torch.tensor([3.0, 1.0]).log().view(1, 2, 1, 1).expand(1, 2, 1, 2)
    total, count = soft_jaccard(scores, torch.zeros(1, 1, 2, dtype=torch.long))
    assert (total.item(), count.item()) == (pytest.approx(0.25), 1)


def test_soft_jaccard_has_the_gradient_of_its_value():
    scores = torch.randn(1, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    truth = torch.tensor([[[0, 1, VOID], [1, 1, 0]]])
    assert torch.autograd.gradcheck(lambda scores: soft_jaccard(scores, truth)[0], scores)


def test_soft_jaccard_of_void_alone_is_0_and_its_gradient_finite():
    scores = torch.randn(1, 3, 2, 2, requires_grad=True)
    total, count = soft_jaccard(scores, torch.full((1, 2, 2), VOID))
    total.backward()
    assert (total.item(), count.item()) == (0.0, 0)
    assert not scores.grad.any()
