"""Mean field against its definition, pixel by pixel; its energies against all labelings; when it stops."""

import itertools

import numpy as np
import oracles
import pytest
import torch

from pipeline.algorithms.gaussian_filters import NORMALISATIONS
from pipeline.algorithms.mean_field import centred_relu, iterate, mean_field

HEIGHT, WIDTH, CLASSES = 3, 4, 3
POTTS = 1 - np.eye(CLASSES)
# The definition and the code add the same ≲ 1000 numbers of size ≲ 10 in another order, five times over; what
# rounding makes of it is near 1e-13. 1e-11 leaves room for other machines and is far below any wrong term.
ROUNDING = 1e-11


def case(classes=CLASSES, size=(HEIGHT, WIDTH), kernels=2):
    """Draw an unary (1 C H W) in float64 and kernel matrices (H·W, H·W)."""
    generator = torch.Generator().manual_seed(3)
    unary = torch.randn(1, classes, *size, generator=generator, dtype=torch.float64).log_softmax(dim=1)
    features = torch.randn(kernels, 2, *size, generator=generator, dtype=torch.float64)
    return unary, [oracles.kernel_matrix(x) for x in features.numpy()]


def messages_of(matrices):
    """Return the callable that `mean_field` asks for its messages."""
    return lambda q: [(q.flatten(2) @ torch.from_numpy(matrix).T).view(q.shape) for matrix in matrices]


def run(unary, matrices, weights, **options):
    """Run mean field from softmax(U); weights is one number for each kernel, or (M, C)."""
    weights = torch.as_tensor(weights, dtype=unary.dtype)
    weights = weights if weights.ndim == 2 else weights[:, None].expand(-1, unary.shape[1])
    options = {"iterations": 5, "start": unary.softmax(dim=1)} | options
    return mean_field(unary, messages_of(matrices), weights, **options)


def difference(scores, expected):
    return np.abs(scores.softmax(dim=1)[0].numpy() - expected).max()


@pytest.mark.parametrize("exclude_self", [False, True])
@pytest.mark.parametrize("mode", NORMALISATIONS)
@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_agrees_with_the_definition(mode, iterations, exclude_self):
    unary, matrices = case()
    matrices = [oracles.normalised(matrix, mode, exclude_self) for matrix in matrices]
    expected = oracles.mean_field(unary[0].numpy(), 1.5 * matrices[0] + 0.5 * matrices[1], POTTS, iterations)
    assert difference(run(unary, matrices, [1.5, 0.5], iterations=iterations), expected) <= ROUNDING
    assert np.abs(expected - oracles.softmax(unary[0].numpy())).max() > 1e-2


def test_kernels_may_weigh_differently_in_each_class():
    unary, matrices = case()
    weights = np.array([[1.5, 0.1, 0.7], [0.0, 2.0, 0.3]])
    by_class = np.einsum("mc,mij->cij", weights, matrices)
    scores = run(unary, matrices, weights)
    assert difference(scores, oracles.mean_field(unary[0].numpy(), by_class, POTTS, 5)) <= ROUNDING


@pytest.mark.parametrize("weights", [[[1.0] * 3, [0.5] * 3], [[1.5, 0.1, 0.7], [0.0, 2.0, 0.3]]])
def test_any_compatibility_is_a_penalty(weights):
    """Full and asymmetric: row beside column."""
    unary, matrices = case()
    penalty = np.array([[0.0, 1.0, -0.5], [0.3, 0.2, 2.0], [1.2, 0.0, 0.1]])
    by_class = np.einsum("mc,mij->cij", weights, matrices)
    scores = run(unary, matrices, weights, compatibility=torch.from_numpy(penalty))
    assert difference(scores, oracles.mean_field(unary[0].numpy(), by_class, penalty, 5)) <= ROUNDING
    transposed = run(unary, matrices, weights, compatibility=torch.from_numpy(penalty.T))
    assert difference(transposed, scores.softmax(dim=1)[0].numpy()) > 1e-3


def test_the_forms_of_potts_are_one():
    """None, 1 − I and −I: they differ by what is the same for all classes."""
    unary, matrices = case()
    forms = [None, torch.from_numpy(POTTS), torch.from_numpy(POTTS - 1)]
    scores = [run(unary, matrices, [1.5, 0.5], compatibility=form) for form in forms]
    assert difference(scores[1], scores[0].softmax(dim=1)[0].numpy()) <= ROUNDING
    assert (scores[2] - scores[0]).abs().max() <= ROUNDING
    assert (scores[1] - scores[0]).abs().max() > 0.1


@pytest.mark.parametrize("penalty", [None, [[0.0, 1.0, -0.5], [0.3, 0.2, 2.0], [1.2, 0.0, 0.1]]])
def test_a_kernel_may_make_other_classes_of_a_message(penalty):
    """Weights (M, C, C): row of the class that gets it, column of the class it comes from."""
    unary, matrices = case()
    weights = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    given = None if penalty is None else torch.tensor(penalty, dtype=torch.float64)
    q = unary.softmax(dim=1)
    sent = [(q.flatten(2) @ torch.from_numpy(matrix).T)[0] for matrix in matrices]
    total = sum(weight @ message for weight, message in zip(weights, sent, strict=True))
    expected = unary.flatten(2)[0] + (total if given is None else -given @ total)
    options = {"iterations": 1, "compatibility": given}
    found = mean_field(unary, messages_of(matrices), weights, **options)
    assert (found.flatten(2)[0] - expected).abs().max() <= ROUNDING


def test_diagonal_matrices_are_weights_by_class():
    unary, matrices = case()
    weights = torch.tensor([[1.5, 0.1, 0.7], [0.0, 2.0, 0.3]], dtype=torch.float64)
    plain = mean_field(unary, messages_of(matrices), weights, iterations=5)
    found = mean_field(unary, messages_of(matrices), weights.diag_embed(), iterations=5)
    assert (found - plain).abs().max() <= ROUNDING


def test_iterations_may_have_their_own_weights_and_compatibility():
    """One after the other, the last again after the end of the list."""
    unary, matrices = case()
    generator = torch.Generator().manual_seed(6)
    weights = [torch.rand(2, 3, generator=generator, dtype=torch.float64) for _ in range(2)]
    penalties = [torch.rand(3, 3, generator=generator, dtype=torch.float64) for _ in range(2)]
    q = None
    for step in (0, 1, 1):
        options = {"iterations": 1, "start": q, "compatibility": penalties[step]}
        scores = mean_field(unary, messages_of(matrices), weights[step], **options)
        q = scores.softmax(dim=1)
    found = mean_field(unary, messages_of(matrices), weights, iterations=3, compatibility=penalties)
    assert (found - scores).abs().max() <= ROUNDING


def test_a_relu_in_the_place_of_the_softmax():
    unary, matrices = case()
    found = run(unary, matrices, [1.5, 0.5], iterations=2, normalise="relu", start=None)
    q = unary[0].flatten(1).numpy()
    for _ in range(2):
        positive = np.maximum(q - q.mean(axis=0), 0)
        q = positive / positive.sum(axis=0)
        q = unary[0].flatten(1).numpy() + q @ (1.5 * matrices[0] + 0.5 * matrices[1]).T
    assert np.abs(found[0].flatten(1).numpy() - q).max() <= ROUNDING
    even = centred_relu(torch.full((1, 4, 1, 1), -3.0))
    assert torch.equal(even, torch.full((1, 4, 1, 1), 0.25))


@pytest.mark.parametrize("penalty", [None, POTTS + 0.3])
def test_recomputing_changes_neither_scores_nor_gradients(penalty):
    unary, matrices = case()
    found = []
    for recompute in (False, True):
        weights = torch.rand(2, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        given = None if penalty is None else torch.from_numpy(penalty).requires_grad_()
        inputs = [unary.clone().requires_grad_(), weights.requires_grad_(), *([] if given is None else [given])]
        options = {"iterations": 4, "compatibility": given, "recompute": recompute}
        scores = mean_field(inputs[0], messages_of(matrices), inputs[1], **options)
        scores.square().sum().backward()
        found.append([scores.detach(), *(each.grad for each in inputs)])
    assert all(torch.equal(plain, again) for plain, again in zip(*found, strict=True))


def test_recomputing_keeps_less_for_the_backward_pass():
    unary, matrices = case()
    kept = []
    for recompute in (False, True):
        bytes_kept = 0

        def keep(tensor):
            nonlocal bytes_kept
            bytes_kept += tensor.numel() * tensor.element_size()
            return tensor

        inputs = unary.clone().requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            penalty = torch.from_numpy(POTTS)
            options = {"iterations": 5, "compatibility": penalty, "recompute": recompute}
            mean_field(inputs, messages_of(matrices), torch.ones(2, 3).double(), **options)
        kept.append(bytes_kept)
    assert kept[1] < 0.5 * kept[0]


def test_no_iteration_gives_the_unary():
    unary, matrices = case()
    assert torch.equal(run(unary, matrices, [1.0, 1.0], iterations=0), unary)
    assert torch.equal(run(unary, matrices, [1.0, 1.0], iterations=0, compatibility=torch.eye(3).double()), unary)


def test_the_first_message_is_of_the_start():
    unary, matrices = case(kernels=1)
    start = torch.full_like(unary, 2.0)
    expected = unary + messages_of(matrices)(start)[0]
    assert torch.equal(run(unary, matrices, [1.0], iterations=1, start=start), expected)


def test_gradient_of_all_iterations():
    unary, matrices = case(classes=2, size=(2, 2))
    weights, penalty = torch.rand(2, 2).double(), torch.rand(2, 2).double()
    inputs = [x.requires_grad_() for x in (unary.detach(), weights, penalty)]

    def scores(unary, weights, penalty):
        start = unary.softmax(dim=1)
        options = {"iterations": 3, "start": start, "compatibility": penalty}
        return mean_field(unary, messages_of(matrices), weights, **options)

    assert torch.autograd.gradcheck(scores, inputs)


# When it stops


def test_a_tolerance_stops_early_with_the_same_labels():
    unary, matrices = case()
    matrices = [oracles.normalised(matrix, "symmetric") for matrix in matrices]
    calls = []

    def count(q):
        calls.append(q)
        return messages_of(matrices)(q)

    options = {"iterations": 200, "start": unary.softmax(dim=1)}
    weights = torch.ones(2, CLASSES).double()
    whole = mean_field(unary, count, weights, **options)
    assert len(calls) == 200
    calls.clear()
    stopped = mean_field(unary, count, weights, **options, tolerance=1e-6)
    assert 2 < len(calls) < 100
    assert torch.equal(stopped.argmax(dim=1), whole.argmax(dim=1))
    # Its last change was below the tolerance, the one before above it.
    changes = [float((after - before).abs().max()) for before, after in itertools.pairwise(calls)]
    last = float((stopped.softmax(dim=1) - calls[-1]).abs().max())
    assert last <= 1e-6 < min(changes)


def test_iterate_alternates_message_and_update():
    seen = []
    found = iterate(
        torch.tensor(1.0),
        lambda state, step: 10 * state,
        update=lambda sent: sent + 1,
        finish=lambda sent: -sent,
        iterations=3,
        watch=lambda *step: seen.append([float(x) for x in step]),
    )
    assert seen == [[1, 10, 11], [11, 110, 111], [111, 1110, 1111]]
    assert float(found) == -1110


# Energies


def traced(matrix, iterations=6, weight=1.0):
    """Return the unary (C, N) of 3 × 3 pixels and two classes, its Qs, (C, N) each, and the trace."""
    unary, _ = case(classes=2, size=(3, 3))
    trace, states = [], []

    def messages(q):
        states.append(q[0].flatten(1).numpy())
        return messages_of([matrix])(q)

    weights = torch.full((1, 2), weight, dtype=torch.float64)
    start = unary.softmax(dim=1)
    scores = mean_field(unary, messages, weights, iterations=iterations, start=start, trace=trace)
    assert torch.equal(scores, run(unary, [matrix], weights, iterations=iterations))
    return unary[0].flatten(1).numpy(), states, trace


def test_the_trace_agrees_with_all_labelings():
    """Σ_{i<j} K_ij (1 − Σ_x q_i q_j) is what the trace has, but for the constant Σ_{i<j} K_ij."""
    _, matrices = case(classes=2, size=(3, 3))
    matrix = matrices[0] - np.eye(9)
    unary, states, trace = traced(matrix)
    assert [line["iteration"] for line in trace] == [1, 2, 3, 4, 5, 6]
    for line, q in zip(trace, states, strict=True):
        expected, divergence = oracles.energies(q, unary, matrix)
        assert abs(line["expected_energy"] + matrix.sum() / 2 - expected) <= ROUNDING
        assert abs(line["free_energy"] + matrix.sum() / 2 - divergence) <= ROUNDING
    for line, before, after in zip(trace, states, states[1:], strict=False):
        assert line["change"] == pytest.approx(np.abs(after - before).max(), abs=ROUNDING)


@pytest.mark.parametrize("weight", [0.5, 3.0])
@pytest.mark.parametrize("mode", ["none", "symmetric"])
def test_the_free_energy_falls_if_the_kernel_is_positive_definite(mode, weight):
    """Then −½ QᵀKQ is concave, and an update minimises its tangent plus the convex rest: it cannot rise."""
    _, matrices = case(classes=2, size=(3, 3))
    matrix = oracles.normalised(matrices[0], mode)
    assert np.linalg.eigvalsh(matrix).min() > 0
    _, _, trace = traced(matrix, iterations=12, weight=weight)
    free = [line["free_energy"] for line in trace]
    assert all(after <= before + ROUNDING for before, after in itertools.pairwise(free))
    assert free[-1] < free[0] - 1e-3


def test_the_trace_changes_nothing_and_counts_on():
    unary, matrices = case()
    trace = []
    run(unary, matrices, [1.0, 1.0], iterations=2, trace=trace, compatibility=torch.from_numpy(POTTS))
    run(unary, matrices, [1.0, 1.0], iterations=2, trace=trace)
    assert [line["iteration"] for line in trace] == [1, 2, 3, 4]
    assert set(trace[0]) == {"iteration", "change", "expected_energy", "free_energy"}
    assert trace[0]["free_energy"] < trace[0]["expected_energy"]
