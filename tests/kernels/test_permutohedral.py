"""The lattice: a slow one kept in a dictionary, its transpose, its sums, how near it comes to the Gaussian, errors."""

import re
from random import Random

import agreement
import calls
import numpy as np
import oracles
import pytest
import torch
from observe import refusal

from pipeline.core.errors import BackendError, DataError
from pipeline.kernels.permutohedral import Lattice, build, permutohedral

LATTICE = calls.KERNELS["lattice"]


def features_of(count, shape=(1, 4, 6), spread=1.0, seed=0):
    """Draw features (B, F, H, W), float32, away from the faces of simplices."""
    batch, *size = shape
    random = Random(seed)
    while calls.nearest_face(features := spread * calls.normal(random, batch, count, *size)) < 1e-5:
        pass
    return features


def photograph(height, width, theta_alpha=30.0, theta_beta=20.0):
    """Return the features of a smooth image with two regions, positions first, (1, 5, H, W) float32."""
    rows, cols = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    noise = 6 * calls.normal(Random(1), 3, height, width)
    colours = 120 + 60 * torch.sin(rows / 9 + cols / 14).sign() + noise
    return torch.cat([torch.stack([cols, rows]) / theta_alpha, colours / theta_beta])[None].float()


@pytest.mark.parametrize("spread", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("count", range(1, 9))
def test_agrees_with_the_dictionary(count, spread):
    features = features_of(count, spread=spread).double()
    expected = oracles.lattice_matrix(features[0].numpy())
    places = build(features)
    found = agreement.matrix_of(lambda values: permutohedral(values, places), 4, 6)
    # A chain of sums: the corners, the axes with three terms each, the corners again.
    assert np.abs(found - expected).max() <= agreement.rounding(5 * (count + 1), expected.max())
    assert np.abs(expected).max() > 0.1


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_the_gradient_is_the_transposed_filter(backend, count):
    device = agreement.device_of(backend)
    places = build(features_of(count).to(device), backend=backend)

    def gradient(received):
        values = torch.zeros_like(received, device=device).requires_grad_()
        return torch.autograd.grad(permutohedral(values, places), values, received.to(device))[0]

    forth = agreement.matrix_of(lambda values: permutohedral(values.to(device), places), 4, 6, torch.float32)
    back = agreement.matrix_of(gradient, 4, 6, torch.float32)
    exact = oracles.lattice_matrix(features_of(count).double()[0].numpy())
    error = np.abs(forth - exact).max()
    assert np.abs(back - exact.T).max() <= 2 * error + agreement.EPS * exact.max()
    if count > 1:
        # Blurring axis by axis between vertices that are not all there is not symmetric.
        assert np.abs(exact - exact.T).max() > 10 * error


def test_gradients_of_the_reference():
    for count in (2, 5):
        values, sides = calls.normal(Random(1), 1, 2, 3, 4), calls.uniform(Random(2), 2, 1, 1, 3, 4)
        tensors = {"values": values, "features": features_of(count, (1, 3, 4)), "left": sides[0], "right": sides[1]}
        agreement.gradcheck(LATTICE, tensors, {})


def test_agrees_with_float64(fast):
    for name in ("lattice", "lattice, fixed sides"):  # the second fuses what the first multiplies by itself
        cases = calls.cases(name, shapes=(*calls.SHAPES, calls.MANY_CLASSES) * 4)
        agreement.check(calls.KERNELS[name], fast, cases)


def test_agrees_with_float64_over_several_bands(fast):
    """Bands of pixels are numbered each by itself and then joined; this image has several."""
    features = features_of(3, (1, 40, 70))
    values, side = calls.uniform(Random(3), 1, 5, 40, 70), calls.uniform(Random(4), 1, 1, 40, 70)
    tensors = {"values": values, "features": features, "left": side, "right": 1 / side}
    agreement.check(LATTICE, fast, [(tensors, {}, "contiguous")])


def test_sides_are_1_where_they_are_not_given(backend):
    device = agreement.device_of(backend)
    places = build(features_of(3).to(device), backend=backend)
    values = calls.normal(Random(5), 1, 3, 4, 6).to(device)
    ones = torch.ones_like(values[:, :1])
    assert torch.equal(permutohedral(values, places), permutohedral(values, places, ones, ones))
    assert torch.equal(permutohedral(values, places, left=ones), permutohedral(values, places, right=ones))


def test_a_constant_stays_when_it_is_normalised_after(backend):
    device = agreement.device_of(backend)
    places = build(photograph(20, 30).to(device), backend=backend)
    constant = torch.full((1, 3, 20, 30), 0.7, device=device)
    total = permutohedral(torch.ones_like(constant[:, :1]), places)
    # Numerator and sum are rounded alike but for the factor 0.7 and the division.
    found = permutohedral(constant, places, left=1 / total)
    assert (found - 0.7).abs().max() <= 8 * agreement.EPS


def test_comes_near_the_gaussian():
    """It approximates: over a photograph a weighted mean is off by far less than such means differ among pixels."""
    features = photograph(16, 16)
    values = calls.uniform(Random(6), 1, 3, 16, 16)
    places = build(features)
    near = permutohedral(values, places) / permutohedral(torch.ones_like(values[:, :1]), places)
    matrix = oracles.normalised(oracles.kernel_matrix(features[0].double().numpy()), "after")
    expected = oracles.apply(matrix, values[0].double().numpy())
    spread = np.abs(expected - expected.mean(axis=(1, 2), keepdims=True)).mean()
    assert np.abs(near[0].numpy() - expected).mean() < 0.5 * spread


def test_photographs_on_whole_pixels_agree(fast):
    """Whole positions and colours lie on faces of simplices, where rounding decides: most pixels, not all, are near."""
    features = photograph(60, 80).mul(600).round().div(600)
    values = torch.rand(1, 4, 60, 80, generator=torch.Generator().manual_seed(7)).softmax(dim=1)

    def mean(backend, dtype):
        places = build(features.to(agreement.device_of(backend), dtype), backend=backend)
        laid = values.to(agreement.device_of(backend), dtype)
        return (permutohedral(laid, places) / permutohedral(torch.ones_like(laid[:, :1]), places)).cpu().double()

    difference = (mean(fast, torch.float32) - mean("reference", torch.float64)).abs().amax(dim=1)
    assert difference.quantile(0.99) < 0.05


ONE = torch.zeros(1, 3, 4, 6)
MANY = "1 to 8; use the exact filter, or fewer"


def spoilt(value, place):
    features = torch.zeros(2, 3, 4, 6)
    features[place] = value
    return features


BAD = {
    "NaN": (
        lambda: build(spoilt(float("nan"), (1, 2, 3, 5))),
        "permutohedral, features, image 1, channel 2, row 3, col 5: found nan, expected finite numbers; "
        "look where it comes from",
    ),
    "infinity": (
        lambda: build(spoilt(float("-inf"), (0, 1, 0, 2))),
        "permutohedral, features, image 0, channel 1, row 0, col 2: found -inf, expected finite numbers; "
        "look where it comes from",
    ),
    "far": (
        lambda: build(spoilt(-2e5, (0, 1, 0, 2))),
        "permutohedral, features: found one of size 2.0e+05, expected 1e+05 at most; "
        "divide the features by larger bandwidths",
    ),
    "nine": (lambda: build(torch.zeros(1, 9, 4, 6)), f"permutohedral: found 9 features, expected {MANY}"),
    "gradient": (
        lambda: build(torch.zeros(1, 3, 4, 6).requires_grad_()),
        "permutohedral: found features that need a gradient, expected fixed ones; "
        "use the exact or the window filter to learn bandwidths",
    ),
    "integers": (
        lambda: build(ONE.long()),
        "permutohedral, features: found torch.int64, expected floating numbers; convert with .float()",
    ),
    "empty": (
        lambda: build(ONE[:, :0]),
        "permutohedral, features: found the shape (1, 0, 4, 6), expected (B, C, H, W), none of them 0; "
        "add or fill the axis",
    ),
    "swapped": (
        lambda: permutohedral(ONE.mT, build(ONE)),
        "permutohedral: found values (1, 3, 6, 4), expected B, H, W = 1, 4, 6 as in the lattice; "
        "build the lattice from this image",
    ),
    "batch": (
        lambda: permutohedral(torch.ones(2, 3, 4, 6), build(ONE)),
        "permutohedral: found values (2, 3, 4, 6), expected B, H, W = 1, 4, 6 as in the lattice; "
        "build the lattice from this image",
    ),
    "left": (
        lambda: permutohedral(ONE, build(ONE), left=ONE),
        "permutohedral: found left (1, 3, 4, 6), torch.float32, expected (1, 1, 4, 6), torch.float32; "
        "give one factor for each pixel",
    ),
    "right": (
        lambda: permutohedral(ONE, build(ONE), right=ONE[:, :1].double()),
        "permutohedral: found right (1, 1, 4, 6), torch.float64, expected (1, 1, 4, 6), torch.float32; "
        "give one factor for each pixel",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_one_line(name):
    function, message = BAD[name]
    assert refusal(function) == message


def test_features_that_span_too_much_are_refused():
    features = 1000 * calls.normal(Random(8), 1, 8, 9, 9)
    with pytest.raises(DataError, match=re.compile(r"span \S+ lattice points, feature \d the widest, .*bandwidths$")):
        build(features)


def test_the_lattice_keeps_its_backend():
    places = build(ONE.double())
    assert isinstance(places, Lattice)
    assert places.backend == "reference"
    with pytest.raises(BackendError) as error:
        permutohedral(ONE.double(), build(ONE, backend="cpu"))
    assert str(error.value) == (
        "permutohedral, backend 'cpu': found a tensor of torch.float64; it computes in float32, expected a call it can "
        "run; use backend 'auto'"
    )


def test_equal_pixels_share_their_vertices(backend):
    """All pixels in one place: every output is the same sum."""
    device = agreement.device_of(backend)
    values = calls.uniform(Random(9), 1, 2, 5, 9).to(device)
    places = build(features_of(4, (1, 1, 1)).to(device).expand(1, 4, 5, 9), backend=backend)
    found = permutohedral(values, places)
    assert torch.equal(found, found[..., :1, :1].expand_as(found))
