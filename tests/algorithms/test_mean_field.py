"""Mean field against its definition, pixel by pixel, and the four normalisations of a kernel."""

import numpy as np
import oracles
import pytest
import torch

from pipeline.algorithms.mean_field import NORMALISATIONS, mean_field, normalised
from pipeline.kernels.window_message import window_message

HEIGHT, WIDTH, CLASSES, RADIUS = 3, 4, 3, 2
POTTS = 1 - np.eye(CLASSES)
# The definition and the code add the same ≲ 100 numbers of size ≲ 10 in another order, five times over; what
# rounding makes of it is near 1e-14. 1e-11 leaves room for other machines and is far below any wrong term.
ROUNDING = 1e-11


def case():
    """Draw an unary (1 C H W) and features (1 2 H W) in float64."""
    generator = torch.Generator().manual_seed(3)
    unary = torch.randn(1, CLASSES, HEIGHT, WIDTH, generator=generator, dtype=torch.float64).log_softmax(dim=1)
    return unary, torch.randn(1, 2, HEIGHT, WIDTH, generator=generator, dtype=torch.float64)


def kernel_of(features):
    return lambda q: window_message(q, features.expand(q.shape[0], -1, -1, -1), RADIUS)


def add(unary, message):
    return unary + message


def test_no_iteration_gives_the_unary():
    unary, _ = case()
    found = mean_field(unary, None, iterations=0, combine=None, start=unary.softmax(dim=1))
    assert torch.equal(found, unary)


@pytest.mark.parametrize("mode", NORMALISATIONS)
@pytest.mark.parametrize("iterations", [1, 5])
def test_agrees_with_the_definition(mode, iterations):
    unary, features = case()
    kernel = normalised(kernel_of(features), unary, mode)
    compatibility = torch.from_numpy(POTTS)

    def message(q):
        return -torch.einsum("xy,byhw->bxhw", compatibility, kernel(q))

    scores = mean_field(unary, message, iterations=iterations, combine=add, start=unary.softmax(dim=1))
    matrix = oracles.normalised(oracles.kernel_matrix(features[0].numpy(), RADIUS), mode)
    expected = oracles.mean_field(unary[0].numpy(), matrix, POTTS, iterations)
    assert np.abs(scores.softmax(dim=1)[0].numpy() - expected).max() <= ROUNDING


def test_combine_decides_how_scores_and_message_meet():
    unary, features = case()
    kernel = kernel_of(features)
    found = mean_field(
        unary, kernel, iterations=1, combine=lambda unary, message: 0.8 * unary + 0.2 * message, start=unary
    )
    assert torch.equal(found, 0.8 * unary + 0.2 * kernel(unary))


def matrix_of(mode):
    """Return a normalised kernel as a matrix: what it makes of every unit vector."""
    unary, features = case()
    pixels = HEIGHT * WIDTH
    units = torch.eye(pixels, dtype=torch.float64).view(1, pixels, HEIGHT, WIDTH)
    return normalised(kernel_of(features), unary, mode)(units)[0].flatten(1).T.numpy()


def test_rows_sum_to_1_after():
    _, features = case()
    constant = torch.full((1, CLASSES, HEIGHT, WIDTH), 0.25, dtype=torch.float64)
    found = normalised(kernel_of(features), constant, "after")(constant)
    assert (found - 0.25).abs().max() <= ROUNDING
    assert np.abs(matrix_of("after").sum(axis=1) - 1).max() <= ROUNDING


def test_columns_sum_to_1_before():
    assert np.abs(matrix_of("before").sum(axis=0) - 1).max() <= ROUNDING


def test_symmetric_is_symmetric_and_damps():
    matrix = matrix_of("symmetric")
    assert np.abs(matrix - matrix.T).max() <= ROUNDING
    # D^−½ K D^−½ is similar to D^−1 K, whose rows sum to 1: its largest eigenvalue is 1.
    assert np.linalg.eigvalsh(matrix).max() == pytest.approx(1)


def test_none_is_the_kernel_itself():
    unary, features = case()
    kernel = kernel_of(features)
    assert normalised(kernel, unary, "none") is kernel


def test_modes_differ():
    matrices = [matrix_of(mode) for mode in NORMALISATIONS]
    assert all(np.abs(a - b).max() > 1e-3 for i, a in enumerate(matrices) for b in matrices[:i])
