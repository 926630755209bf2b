"""The structured SVM against its exact value: a bound of the loss, its subgradient, both sides, void."""

import pytest
import torch
from potts import least_energy, problem

from pipeline.algorithms.dual_mm import energy, jumps, solve
from pipeline.algorithms.structured_svm import _completed, surrogate
from pipeline.core.sample import VOID
from pipeline.kernels.potts_chains import Edges

MARGIN = 0.1
HOW = (30, 2)  # iterations and sweeps: these small problems are then solved


def drawn(seed=0, classes=3, height=4, width=30, most=0.3, void=0.0):
    """Draw unaries, edges (float64) and a truth of patches, of which a part is void."""
    unary, edges = problem(classes, height, width, most, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    truth = torch.rand(1, classes, 2, width // 5, generator=generator).argmax(dim=1)
    truth = truth.repeat_interleave(5, dim=2).repeat_interleave(-(-height // 2), dim=1)[:, :height, :width]
    # Unaries that mostly agree with it, as those of a network do.
    unary = 0.5 * unary.scatter_add(1, truth[:, None], torch.full_like(unary[:, :1], -0.5)) - 0.2
    truth = truth.where(torch.rand(truth.shape, generator=generator) >= void, VOID)
    return unary.double(), Edges(*(weight.double() for weight in edges)), truth


def exact(unary, edges, truth):
    """Return S where no pixel is void, from the exact minimum of the augmented energy."""
    wrong = torch.ones_like(unary).scatter_(1, truth[:, None], 0.0)
    unary, edges = unary.detach(), Edges(*(weight.detach() for weight in edges))
    return float(energy(unary, edges, truth)) - least_energy(unary - MARGIN * wrong, edges)


@pytest.mark.parametrize("seed", range(5))
def test_the_bound_from_both_sides(seed):
    unary, edges, truth = drawn(seed)
    found = surrogate(unary, edges, truth, MARGIN, 15, 1)
    whole = exact(unary, edges, truth)
    assert 0 <= float(found.lower) <= whole + 1e-9
    assert whole <= float(found.upper) + 1e-9
    assert found.labelled.tolist() == [truth.numel()]
    labels = solve(unary, edges, *HOW).labels
    assert MARGIN * float((labels != truth).sum()) <= whole + 1e-9


@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_is_that_of_the_exact_bound(seed):
    """To unaries and weights, by central differences of what dynamic programming says."""
    unary, edges, truth = drawn(seed, width=15)
    leaves = [unary.requires_grad_(), *(weight.requires_grad_() for weight in edges)]
    found = surrogate(leaves[0], Edges(*leaves[1:]), truth, MARGIN, *HOW)
    assert abs(float(found.lower.detach()) - exact(unary, edges, truth)) <= 1e-9  # solved, or S has another gradient
    gradients = torch.autograd.grad(found.lower.sum(), leaves)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(5):
        ways = [torch.randn(leaf.shape, generator=generator, dtype=torch.float64) for leaf in leaves]
        step = 1e-6
        ends = []
        for sign in (1, -1):
            moved = [leaf.detach() + sign * step * way for leaf, way in zip(leaves, ways, strict=True)]
            ends.append(exact(moved[0], Edges(*moved[1:]), truth))
        slope = sum(float((g * way).sum()) for g, way in zip(gradients, ways, strict=True))
        assert slope == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5, abs=1e-6)


def test_the_gradient_counts_labels_and_jumps():
    """Equation 10 of the paper: 1 at the truth, −1 at what was found, and the same of jumps."""
    unary, edges, truth = drawn(1)
    leaves = [unary.requires_grad_(), *(weight.requires_grad_() for weight in edges)]
    found = surrogate(leaves[0], Edges(*leaves[1:]), truth, MARGIN, 15, 1)
    to_unary, *to_edges = torch.autograd.grad(found.lower.sum(), leaves)
    assert set(to_unary.unique().tolist()) == {-1.0, 0.0, 1.0}
    assert (to_unary.sum(dim=1) == 0).all()
    wrong = (to_unary != 0).any(dim=1)
    labels = torch.where(wrong, to_unary.argmin(dim=1), truth)
    for gradient, true, other in zip(to_edges, jumps(truth), jumps(labels), strict=True):
        assert torch.equal(gradient, true.double() - other.double())


@pytest.mark.parametrize("seed", range(4))
def test_it_is_a_subgradient_up_to_the_gap_and_the_bound_is_convex(seed):
    one, other = drawn(seed), drawn(seed + 10)
    truth = one[2]
    leaves = [one[0].requires_grad_(), *(weight.requires_grad_() for weight in one[1])]
    found = surrogate(leaves[0], Edges(*leaves[1:]), truth, MARGIN, 2, 0)  # far from solved
    gradients = torch.autograd.grad(found.lower.sum(), leaves)
    there = [other[0], *other[1]]
    slope = sum(float((g * (to - at.detach())).sum()) for g, to, at in zip(gradients, there, leaves, strict=True))
    here, far = (exact(unary, edges, truth) for unary, edges in (one[:2], other[:2]))
    assert far >= float(found.lower.detach()) + slope - 1e-9
    middle = [(a.detach() + b) / 2 for a, b in zip(leaves, there, strict=True)]
    assert exact(middle[0], Edges(*middle[1:]), truth) <= (here + far) / 2 + 1e-9


def test_a_solution_worse_than_the_truth_gives_no_gradient():
    """Without an iteration, labels are those of each pixel alone, here far above the truth's energy."""
    unary, edges, truth = drawn(2)
    edges = Edges(*(5 + weight for weight in edges))
    truth = torch.zeros_like(truth)
    unary = unary.requires_grad_()
    found = surrogate(unary, edges, truth, 1e-6, 0, 0)
    assert float(found.lower.detach()) == 0
    assert not torch.autograd.grad(found.lower.sum(), unary)[0].any()


def test_without_void_both_readings_are_one():
    unary, edges, truth = drawn(3)
    one, other = (surrogate(unary, edges, truth, MARGIN, 15, 1, complete=complete) for complete in (False, True))
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a, b)


def test_void_pixels_have_no_gradient_and_are_not_counted():
    unary, edges, truth = drawn(4, void=0.3)
    unary = unary.requires_grad_()
    found = surrogate(unary, edges, truth, MARGIN, 15, 1)
    gradient = torch.autograd.grad(found.lower.sum(), unary)[0]
    assert found.labelled.item() == int((truth != VOID).sum())
    assert gradient.any()
    assert not gradient.permute(0, 2, 3, 1)[truth == VOID].any()


def test_nothing_labelled_is_nothing_to_learn():
    unary, edges, truth = drawn(0)
    found = surrogate(unary, edges, torch.full_like(truth, VOID), MARGIN, 15, 1)
    assert (float(found.lower), found.labelled.item()) == (0, 0)


def test_bands_of_void_hide_all_jumps_unless_the_truth_is_completed():
    """Larger weights then always look better: what the truth of the labelled pixels cannot say, its completion does."""
    unary, edges, truth = drawn(5, width=40, most=0.1)
    banded = truth.clone()
    for axis in (1, 2):
        size = truth.shape[axis]
        jump = truth.narrow(axis, 1, size - 1) != truth.narrow(axis, 0, size - 1)
        banded.narrow(axis, 1, size - 1)[jump] = VOID
        banded.narrow(axis, 0, size - 1)[jump] = VOID
    known = banded != VOID
    assert known.any() and not known.all()
    leaves = [weight.requires_grad_() for weight in edges]
    found = surrogate(unary, Edges(*leaves), banded, MARGIN, *HOW)
    assert all((gradient <= 0).all() for gradient in torch.autograd.grad(found.lower.sum(), leaves))
    completed = _completed(unary, edges, banded.where(known, 0), known, *HOW)
    assert torch.equal(completed[known], banded[known])
    assert any(jump.any() for jump in jumps(completed))
    whole = surrogate(unary, Edges(*leaves), banded, MARGIN, *HOW, complete=True)
    gradients = torch.autograd.grad(whole.lower.sum(), leaves)
    labels = solve(unary - MARGIN * augmented(completed, known), edges, *HOW).labels
    for gradient, true, other in zip(gradients, jumps(completed), jumps(labels), strict=True):
        assert torch.equal(gradient, true.double() - other.double())


def augmented(truth, known):
    """Return 1 for every label that is wrong at a labelled pixel, (B, C, H, W)."""
    wrong = torch.ones(1, 3, *truth.shape[1:], dtype=torch.float64).scatter_(1, truth[:, None], 0.0)
    return wrong * known[:, None]


def test_labelled_pixels_keep_their_labels_when_void_is_completed():
    """However much the unaries speak against them."""
    unary, edges, truth = drawn(6, void=0.5)
    unary = unary - 3 * torch.nn.functional.one_hot((truth % 3 + 1) % 3, 3).permute(0, 3, 1, 2)
    unary = unary.requires_grad_()
    found = surrogate(unary, edges, truth, MARGIN, *HOW, complete=True)
    gradient = torch.autograd.grad(found.lower.sum(), unary)[0]
    known = truth != VOID
    at_truth = gradient.gather(1, truth.where(known, 0)[:, None])[:, 0]
    assert (at_truth[known] >= 0).all()
    assert at_truth[known].any()


@pytest.mark.parametrize("complete", [False, True])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (9, 1)])
def test_one_row_one_column_and_one_pixel(height, width, complete):
    unary, edges, _ = drawn(7, height=height, width=width)
    truth = torch.arange(height * width).view(1, height, width) % 3
    truth[0, -1, -1] = VOID
    found = surrogate(unary, edges, truth, MARGIN, 15, 1, complete=complete)
    assert 0 <= float(found.lower) <= float(found.upper) + 1e-9
    assert found.labelled.item() == height * width - 1


@pytest.mark.parametrize("complete", [False, True])
def test_a_batch_is_its_images_one_by_one(complete):
    images = [drawn(seed, most=0.1 + seed, void=0.2) for seed in range(3)]
    unary, right, below, truth = (torch.cat(parts) for parts in zip(*((u, *e, t) for u, e, t in images), strict=True))
    whole = surrogate(unary, Edges(right, below), truth, MARGIN, 15, 1, complete=complete)
    for number, (own, edges, labels) in enumerate(images):
        one = surrogate(own, edges, labels, MARGIN, 15, 1, complete=complete)
        for a, b in zip(one, whole, strict=True):
            assert torch.equal(a[0], b[number])
