"""Normalised Gaussian filters against dense matrices: each way of summing in each normalisation."""

import agreement
import numpy as np
import oracles
import pytest
import torch

from pipeline.algorithms import gaussian_filters
from pipeline.algorithms.gaussian_filters import NORMALISATIONS, scales

HEIGHT, WIDTH = 4, 5
every_mode = pytest.mark.parametrize("mode", NORMALISATIONS)
with_self_or_without = pytest.mark.parametrize("exclude_self", [False, True])
# Sums of 20 numbers up to about 20, normalised by sums that are no smaller than 1 % of the largest.
ROUNDING = 1e-10


def features(spread=0.7):
    generator = torch.Generator().manual_seed(5)
    return spread * torch.randn(1, 3, HEIGHT, WIDTH, generator=generator, dtype=torch.float64)


def positions():
    return torch.from_numpy(oracles.positions(HEIGHT, WIDTH))[None]


def lattice_kernel():
    return oracles.lattice_matrix(features()[0].numpy())


# A filter made of mode and exclude_self, and its kernel's matrix.
FILTERS = {
    "lattice": (lambda mode, exclude_self: gaussian_filters.lattice(features(), mode), lattice_kernel),
    "exact": (
        lambda *how: gaussian_filters.exact(features(), *how, "float32"),
        lambda: oracles.kernel_matrix(features()[0].numpy()),
    ),
    "spatial": (
        lambda *how: gaussian_filters.spatial(torch.tensor(1.5).double(), features(), *how),
        lambda: oracles.kernel_matrix(positions()[0].numpy() / 1.5),
    ),
    "window": (
        lambda *how: gaussian_filters.window(features(), 1, *how),
        lambda: oracles.kernel_matrix(features()[0].numpy(), 1),
    ),
    "a huge window": (
        lambda *how: gaussian_filters.window(features(), 100, *how),
        lambda: oracles.kernel_matrix(features()[0].numpy()),
    ),
}
filters = pytest.mark.parametrize("name", FILTERS)
# A lattice cannot leave the pixel itself out.
filters_with_self_or_without = pytest.mark.parametrize(
    ("name", "exclude_self"),
    [(name, False) for name in FILTERS] + [(name, True) for name in FILTERS if name != "lattice"],
)


def matrix_of(name, mode, exclude_self=False):
    return agreement.matrix_of(FILTERS[name][0](mode, exclude_self), HEIGHT, WIDTH)


@filters_with_self_or_without
@every_mode
def test_agrees_with_the_matrix(name, mode, exclude_self):
    kernel = FILTERS[name][1]()
    total = (kernel - exclude_self * np.eye(len(kernel))).sum(axis=1)
    assert total.min() > 0.01 * total.max()
    expected = oracles.normalised(kernel, mode, exclude_self)
    assert np.abs(matrix_of(name, mode, exclude_self) - expected).max() <= ROUNDING


@filters_with_self_or_without
def test_rows_sum_to_1_after_and_columns_before(name, exclude_self):
    assert np.abs(matrix_of(name, "after", exclude_self).sum(axis=1) - 1).max() <= ROUNDING
    if name != "lattice":
        # The lattice's rows and columns differ; a filter is normalised by its rows.
        assert np.abs(matrix_of(name, "before", exclude_self).sum(axis=0) - 1).max() <= ROUNDING


@pytest.mark.parametrize("name", ["exact", "spatial", "window"])
def test_symmetric_is_symmetric_and_damps(name):
    matrix = matrix_of(name, "symmetric")
    assert np.abs(matrix - matrix.T).max() <= ROUNDING
    # D^−½ K D^−½ is similar to D^−1 K, whose rows sum to 1: its largest eigenvalue is 1.
    assert np.linalg.eigvalsh(matrix).max() == pytest.approx(1)


@filters
def test_modes_differ(name):
    matrices = [matrix_of(name, mode) for mode in NORMALISATIONS]
    assert all(np.abs(a - b).max() > 1e-3 for i, a in enumerate(matrices) for b in matrices[:i])


@pytest.mark.parametrize("name", ["exact", "window", "spatial"])
@every_mode
@with_self_or_without
def test_gradient_to_bandwidths(name, mode, exclude_self):
    q = torch.rand(1, 2, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def message(theta):
        how = mode, exclude_self
        return {
            "exact": lambda: gaussian_filters.exact(features() / theta, *how, "float32"),
            "window": lambda: gaussian_filters.window(features() / theta, 2, *how),
            "spatial": lambda: gaussian_filters.spatial(theta, q, *how),
        }[name]()(q)

    assert torch.autograd.gradcheck(message, torch.tensor(1.3, dtype=torch.float64).requires_grad_())


@every_mode
@pytest.mark.parametrize("name", ["exact", "window"])
def test_a_pixel_that_is_alone_gets_no_message(name, mode):
    """Its neighbours weigh nothing: without itself it is sent nothing, whatever rounding leaves of 1 − 1."""
    apart = 0.1 * features().float()
    apart[0, :, 2, 2] = 9.0
    made = {
        "exact": lambda: gaussian_filters.exact(apart, mode, True, "float32"),
        "window": lambda: gaussian_filters.window(apart, 3, mode, True),
    }[name]()
    message = made(torch.rand(1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(2)))
    assert torch.isfinite(message).all()
    # Below float32's rounding of the pixel's own part, which is up to 1.
    assert message[0, :, 2, 2].abs().max() <= agreement.EPS
    # The others keep each other.
    assert message[0, :, 0, 0].min() > 0.01


@every_mode
def test_gradients_stay_finite_where_a_pixel_is_alone(mode):
    apart = 0.1 * features()
    apart[0, :, 2, 2] = 9.0
    apart.requires_grad_()
    gaussian_filters.exact(apart, mode, True, "float32")(torch.ones(1, 2, HEIGHT, WIDTH).double()).sum().backward()
    assert torch.isfinite(apart.grad).all()


def test_scales_of_the_formulas():
    total = torch.tensor([4.0, 16.0, 0.0, -0.3]).view(1, 1, 1, 4)
    found = {mode: [side.flatten().tolist() for side in scales(total, mode)] for mode in NORMALISATIONS}
    assert found == {
        "none": [[1, 1, 1, 1], [1, 1, 1, 1]],
        "symmetric": [[0.5, 0.25, 0, 0], [0.5, 0.25, 0, 0]],
        "after": [[0.25, 0.0625, 0, 0], [1, 1, 1, 1]],
        "before": [[1, 1, 1, 1], [0.25, 0.0625, 0, 0]],
    }
