"""The Gaussian of position: formula against pixel loops, gradients, what is cut off, errors."""

from random import Random

import agreement
import calls
import numpy as np
import oracles
import pytest
import torch
from observe import refusal

from pipeline.core.errors import BackendError
from pipeline.kernels.spatial_gaussian import spatial_gaussian

SPATIAL = calls.KERNELS["spatial_gaussian"]
THETAS = [1e-3, 0.3, 1.0, 3.0, 100.0]


def drawn(theta, shape, seed=0):
    tensors, options = SPATIAL.draw(Random(seed), shape)
    return tensors | {"theta": torch.tensor(theta)}, options


@pytest.mark.parametrize("theta", THETAS)
@pytest.mark.parametrize(("height", "width"), [(4, 6), (1, 9), (7, 1), (1, 1)])
def test_is_the_sum_over_all_pairs(theta, height, width):
    tensors, options = drawn(theta, (2, 3, height, width))
    found = agreement.exact(SPATIAL, tensors, options)
    values, own, left, right = (tensor.double().numpy() for tensor in tensors.values())
    matrix = oracles.kernel_matrix(oracles.positions(height, width) / own)
    for image in range(2):
        expected = left[image] * oracles.apply(matrix, right[image] * values[image])
        assert np.abs(found[image] - expected).max() <= agreement.rounding(height * width, 1.5**3)


def test_gradients_of_the_reference():
    for theta in (0.7, 2.0):
        agreement.gradcheck(SPATIAL, *drawn(theta, (2, 2, 3, 4)))


@pytest.mark.parametrize("theta", [0.3, 0.34, 0.6, 1.0, 3.0, 30.0, 1000.0])
def test_agrees_with_float64(fast, theta):
    shapes = (*calls.SHAPES, calls.MANY_CLASSES, (1, 2, 3, 33), (1, 2, 3, 70), (1, 1, 70, 3))
    layouts = list(agreement.LAYOUTS)
    cases = [(*drawn(theta, shape, seed), layouts[seed % 4]) for seed, shape in enumerate(shapes)]
    agreement.check(SPATIAL, fast, cases)
    agreement.check(calls.KERNELS["spatial_gaussian, fixed sides"], fast, cases)


def test_sides_are_1_where_they_are_not_given(backend):
    device = agreement.device_of(backend)
    values, theta = calls.normal(Random(1), 1, 3, 4, 9).to(device), torch.tensor(1.5, device=device)
    ones = torch.ones_like(values[:, :1])
    whole = spatial_gaussian(values, theta, ones, ones, backend=backend)
    assert torch.equal(spatial_gaussian(values, theta, backend=backend), whole)
    assert torch.equal(spatial_gaussian(values, theta, right=ones, backend=backend), whole)


def test_the_kernel_is_symmetric(backend):
    device = agreement.device_of(backend)
    theta = torch.tensor(2.0, device=device)
    matrix = agreement.matrix_of(lambda q: spatial_gaussian(q.to(device), theta, backend=backend), 4, 9, torch.float32)
    assert np.abs(matrix - matrix.T).max() <= agreement.EPS
    assert np.array_equal(np.diag(matrix), np.ones(36))


VALUES, THETA = torch.zeros(1, 3, 4, 6), torch.tensor(2.0)
BAD = {
    "theta 0": (
        lambda: spatial_gaussian(VALUES, torch.tensor(0.0)),
        "spatial_gaussian, theta: found 0.0, expected a positive number of px; give a bandwidth above 0",
    ),
    "theta negative": (
        lambda: spatial_gaussian(VALUES, torch.tensor(-1.0)),
        "spatial_gaussian, theta: found -1.0, expected a positive number of px; give a bandwidth above 0",
    ),
    "theta infinite": (
        lambda: spatial_gaussian(VALUES, torch.tensor(float("inf"))),
        "spatial_gaussian, theta: found inf, expected a positive number of px; give a bandwidth above 0",
    ),
    "theta NaN": (
        lambda: spatial_gaussian(VALUES, torch.tensor(float("nan"))),
        "spatial_gaussian, theta: found nan, expected a positive number of px; give a bandwidth above 0",
    ),
    "integers": (
        lambda: spatial_gaussian(VALUES.int(), THETA),
        "spatial_gaussian, values: found torch.int32, expected floating numbers; convert with .float()",
    ),
    "empty": (
        lambda: spatial_gaussian(VALUES[:, :, :0], THETA),
        "spatial_gaussian, values: found the shape (1, 3, 0, 6), expected (B, C, H, W), none of them 0; "
        "add or fill the axis",
    ),
    "left": (
        lambda: spatial_gaussian(VALUES, THETA, left=VALUES[:, :1].mT),
        "spatial_gaussian: found left (1, 1, 6, 4), torch.float32, expected (1, 1, 4, 6), torch.float32; "
        "give one factor for each pixel",
    ),
    "right": (
        lambda: spatial_gaussian(VALUES, THETA, right=VALUES[:, :1].double()),
        "spatial_gaussian: found right (1, 1, 4, 6), torch.float64, expected (1, 1, 4, 6), torch.float32; "
        "give one factor for each pixel",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_one_line(name):
    function, message = BAD[name]
    assert refusal(function) == message


def test_a_backend_that_cannot_is_refused():
    with pytest.raises(BackendError, match=r"^spatial_gaussian, backend 'cpu': found a tensor of torch\.float64; it"):
        spatial_gaussian(VALUES.double(), THETA, backend="cpu")
