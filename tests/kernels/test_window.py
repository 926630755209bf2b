"""The window's kernels: formula against pixel loops, gradients, all pairs as the limit, errors."""

from random import Random

import agreement
import calls
import numpy as np
import oracles
import pytest
import torch
from observe import refusal

from pipeline.core.errors import BackendError
from pipeline.kernels import window
from pipeline.kernels.all_pairs import all_pairs

DEGREE, WINDOWED = calls.KERNELS["degree"], calls.KERNELS["windowed"]
SIZES = [(4, 6), (5, 3), (1, 7), (6, 1), (1, 1)]


@pytest.mark.parametrize("radius", [0, 1, 2, 9])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_degree_is_the_sum_of_the_window(radius, height, width):
    tensors, options = DEGREE.draw(Random(0), (2, 1, height, width), radius=radius)
    found = agreement.exact(DEGREE, tensors, options)
    for image, total in zip(tensors["features"].double().numpy(), found[:, 0], strict=True):
        expected = oracles.kernel_matrix(image, radius).sum(axis=1).reshape(height, width)
        assert np.abs(total - expected).max() <= agreement.rounding(height * width, 1)


@pytest.mark.parametrize("exclude_self", [False, True])
@pytest.mark.parametrize("radius", [0, 1, 2, 9])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_message_is_the_sum_of_the_window(radius, height, width, exclude_self):
    tensors, options = WINDOWED.draw(Random(1), (1, 3, height, width), radius=radius, exclude_self=exclude_self)
    q, near, around, left, right = (tensor[0].double().numpy() for tensor in tensors.values())
    merged = 0
    for number, features in enumerate((near, around)):
        kernel = oracles.kernel_matrix(features, radius) - exclude_self * np.eye(height * width)
        merged = merged + left[number].reshape(-1, 1) * kernel * right[number].reshape(1, -1)
    found = agreement.exact(WINDOWED, tensors, options)[0]
    assert np.abs(found - oracles.apply(merged, q)).max() <= agreement.rounding(2 * height * width, 1.5**3)


@pytest.mark.parametrize("radius", [0, 1, 4])
def test_gradients_of_the_reference(radius):
    agreement.gradcheck(DEGREE, *DEGREE.draw(Random(2), (2, 1, 3, 4), radius=radius))
    for exclude_self in (False, True):
        drawn = WINDOWED.draw(Random(3), (1, 2, 3, 3), radius=radius, exclude_self=exclude_self)
        agreement.gradcheck(WINDOWED, *drawn)


def test_agrees_with_float64(fast):
    agreement.check(DEGREE, fast, calls.cases("degree", radius=[0, 1, 3, 8, 40]))
    agreement.check(WINDOWED, fast, calls.cases("windowed", radius=[0, 1, 3, 8, 40], exclude_self=[False, True]))


@pytest.mark.parametrize("kernels", [1, 3])
def test_any_number_of_kernels_is_merged(backend, kernels):
    random = Random(4)
    features = [calls.normal(random, 1, 2 + number, 5, 9) for number in range(kernels)]
    left, right = (calls.uniform(random, 1, kernels, 5, 9) for _ in range(2))
    q = calls.uniform(random, 1, 3, 5, 9)

    def sent(backend, numbers, dtype=torch.float32):
        place = {"device": agreement.device_of(backend), "dtype": dtype}
        sides = (side[:, numbers].to(**place) for side in (left, right))
        merged = window.weights([features[m].to(**place) for m in numbers], 2, *sides, backend=backend)
        return window.message(q.to(**place), merged)

    every = list(range(kernels))
    one_by_one = sum(sent("reference", [m], torch.float64) for m in every)
    agreement.house_rule(sent(backend, every), sent("reference", every), one_by_one, "merged")


@pytest.mark.parametrize(("height", "width"), [(4, 6), (9, 5), (1, 12)])
def test_from_the_longer_side_on_it_is_the_sum_over_all_pairs(backend, height, width):
    device = agreement.device_of(backend)
    tensors, _ = calls.KERNELS["all_pairs"].draw(Random(5), (1, 3, height, width))
    values, features = (tensor.to(device) for tensor in tensors.values())
    ones, longer = torch.ones_like(values[:, :1]), max(height, width)

    def sent(radius):
        return window.message(values, window.weights([features], radius, ones, ones, backend=backend))

    assert (sent(longer - 1) - all_pairs(values, features, backend="reference")).abs().max() <= 1e-5
    # A filter of side k = 2 max(H, W) − 1 has this radius; a larger one changes no bit, nor costs more.
    assert torch.equal(sent(longer), sent(longer - 1))
    assert torch.equal(sent(10**6), sent(longer - 1))
    assert not torch.equal(sent(longer - 2), sent(longer - 1))


def test_radius_0_gives_q(backend):
    q = calls.normal(Random(6), 1, 3, 4, 9).to(agreement.device_of(backend))
    ones = torch.ones_like(q[:, :1])
    assert torch.equal(window.message(q, window.weights([q], 0, ones, ones, backend=backend)), q)


def test_the_kernel_is_symmetric(backend):
    device = agreement.device_of(backend)
    features = calls.normal(Random(7), 1, 3, 4, 9).to(device)
    ones = torch.ones_like(features[:, :1])
    merged = window.weights([features], 2, ones, ones, backend=backend)
    matrix = agreement.matrix_of(lambda q: window.message(q.to(device), merged), 4, 9, torch.float32)
    assert np.array_equal(matrix, matrix.T)
    assert np.array_equal(np.diag(matrix), np.ones(36))


ONE = torch.ones(1, 1, 4, 6)
FEATURES = torch.zeros(1, 5, 4, 6)
MERGED = window.weights([FEATURES], 1, ONE, ONE, backend="reference")
BAD = {
    "radius": (
        lambda: window.degree(FEATURES, -1),
        "window, radius: found -1, expected 0 or more; pass half of the filter size",
    ),
    "axes": (
        lambda: window.degree(FEATURES[0], 1),
        "window, features: found the shape (5, 4, 6), expected (B, C, H, W), none of them 0; add or fill the axis",
    ),
    "empty": (
        lambda: window.weights([FEATURES[..., :0]], 1, ONE, ONE),
        "window, kernel 0: found the shape (1, 5, 4, 0), expected (B, C, H, W), none of them 0; add or fill the axis",
    ),
    "integers": (
        lambda: window.degree(FEATURES.int(), 1),
        "window, features: found torch.int32, expected floating numbers; convert with .float()",
    ),
    "swapped": (
        lambda: window.weights([FEATURES.mT], 1, ONE, ONE),
        "window: found kernel 0 (1, 5, 6, 4) with left (1, 1, 4, 6), expected one batch, height and width; "
        "rows and columns look swapped",
    ),
    "sizes": (
        lambda: window.weights([FEATURES, FEATURES[..., :5]], 1, ONE, ONE),
        "window: found kernel 0 (1, 5, 4, 6) with kernel 1 (1, 5, 4, 5), expected one batch, height and width; "
        "pass arrays of one image size",
    ),
    "batch": (
        lambda: window.weights([FEATURES], 1, ONE, torch.ones(2, 1, 4, 6)),
        "window: found kernel 0 (1, 5, 4, 6) with right (2, 1, 4, 6), expected one batch, height and width; "
        "pass arrays of one image size",
    ),
    "dtypes": (
        lambda: window.weights([FEATURES], 1, ONE.double(), ONE),
        "window: found kernel 0 torch.float32, left torch.float64, expected one dtype; convert one",
    ),
    "no kernel": (
        lambda: window.weights([], 1, ONE[:, :0], ONE[:, :0]),
        "window: found no kernel, expected one or more; give the features of each",
    ),
    "channels": (
        lambda: window.weights([FEATURES, FEATURES], 1, ONE, ONE),
        "window: found 2 kernels, left (1, 1, 4, 6), right (1, 1, 4, 6), expected one channel of left and right per "
        "kernel; add or drop channels",
    ),
    "another image": (
        lambda: window.message(torch.ones(1, 3, 6, 4), MERGED),
        "window: found q (1, 3, 6, 4), expected B, H, W = 1, 4, 6 as in the weights; make the weights from this image",
    ),
    "another dtype": (
        lambda: window.message(torch.ones(1, 3, 4, 6).double(), MERGED),
        "window: found q torch.float64, weights torch.float32, expected one dtype; convert one",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_one_line(name):
    function, message = BAD[name]
    assert refusal(function) == message


def test_a_backend_that_cannot_is_refused():
    with pytest.raises(BackendError) as error:
        window.degree(FEATURES.double(), 1, backend="cpu")
    assert str(error.value) == (
        "window, backend 'cpu': found a tensor of torch.float64; it computes in float32, expected a call it can run; "
        "use backend 'auto'"
    )
