"""The random walk: formula against position loops, gradients, rows of P, one position, equal features, extremes."""

from random import Random

import agreement
import calls
import numpy as np
import oracles
import pytest
import torch
from observe import refusal

from pipeline.core.errors import BackendError, SettingsError
from pipeline.kernels.all_pairs import all_pairs
from pipeline.kernels.random_walk import AFFINITIES, random_walk, transition

WALK = calls.KERNELS["random_walk"]
PEAKED = (2.0, 3.0, 10.0)  # factors on features that draw a row of P towards one position


def drawn(seed, shape=(2, 5, 6, 8), scale=1.0):
    tensors, _ = WALK.draw(Random(seed), shape)
    return tensors | {"features": scale * tensors["features"]}


@pytest.mark.parametrize("affinity", AFFINITIES)
@pytest.mark.parametrize(("height", "width"), [(4, 6), (1, 9), (7, 1), (1, 1)])
def test_is_the_sum_over_all_positions(height, width, affinity):
    tensors = drawn(0, (2, 3, height, width))
    found = agreement.exact(WALK, tensors, {"affinity": affinity})
    features, values = (tensor.double().numpy() for tensor in tensors.values())
    for image in range(2):
        expected = oracles.apply(oracles.transition_matrix(features[image], affinity), values[image])
        assert np.abs(found[image] - expected).max() <= agreement.rounding(height * width, 1.5)


@pytest.mark.parametrize("affinity", AFFINITIES)
def test_gradients_of_the_reference(affinity):
    for shape in ((2, 2, 3, 4), (1, 3, 1, 1)):
        agreement.gradcheck(WALK, drawn(1, shape), {"affinity": affinity})


@pytest.mark.parametrize("affinity", AFFINITIES)
def test_agrees_with_float64(fast, affinity):
    shapes = (*calls.SHAPES, calls.MANY_CLASSES, (1, 21, 33, 41))
    agreement.check(WALK, fast, calls.cases("random_walk", shapes, affinity=[affinity]))


@pytest.mark.parametrize("affinity", AFFINITIES)
@pytest.mark.parametrize("scale", PEAKED)
def test_rows_that_are_nearly_one_position(fast, scale, affinity):
    """There the gradient to the features is what rounding leaves of large terms: it is judged by those."""
    for seed in range(10):
        tensors = drawn(seed, scale=scale)
        found, plain, exact = (
            agreement.run(WALK, name, tensors, {"affinity": affinity}, dtype=dtype)
            for name, dtype in ((fast, torch.float32), ("reference", torch.float32), ("reference", torch.float64))
        )
        agreement.house_rule(found["output"], plain["output"], exact["output"], f"output, seed {seed}")
        # Sums of P times whole numbers up to 9, and P times the 5 classes' sums times ψ. Rounding of W, of the size of
        # the largest, moves exponents; the fused exponential is good to 20 units.
        largest = tensors["features"].square().sum(dim=1).max()
        unit = (20 + 8 * float(largest)) * agreement.EPS
        away = {part: (found[part].cpu().double() - exact[part]).abs().max() for part in exact}
        assert away["gradient to values"] <= unit * exact["gradient to values"].abs().max()
        assert away["gradient to features"] <= unit * 2 * 5 * 9 * 1.5 * tensors["features"].abs().max()


@pytest.mark.parametrize("affinity", AFFINITIES)
def test_rows_sum_to_1_and_nothing_leaves_the_range(backend, affinity):
    tensors = {name: x.to(agreement.device_of(backend)) for name, x in drawn(2).items()}
    ones = random_walk(tensors["features"], torch.ones_like(tensors["values"]), affinity=affinity, backend=backend)
    assert (ones - 1).abs().max() <= 32 * agreement.EPS
    moved = random_walk(**tensors, affinity=affinity, backend=backend)
    low, high = (limit(tensors["values"], dim=(2, 3), keepdim=True) for limit in (torch.amin, torch.amax))
    assert (moved >= low - 1e-5).all()
    assert (moved <= high + 1e-5).all()


@pytest.mark.parametrize("affinity", AFFINITIES)
def test_one_position_keeps_its_value(backend, affinity):
    tensors = {name: x.to(agreement.device_of(backend)) for name, x in drawn(3, (2, 5, 1, 1)).items()}
    assert (
        random_walk(**tensors, affinity=affinity, backend=backend) - tensors["values"]
    ).abs().max() <= 2 * agreement.EPS


@pytest.mark.parametrize("affinity", AFFINITIES)
def test_equal_features_give_everyone_the_mean(backend, affinity):
    values = drawn(4)["values"].to(agreement.device_of(backend))
    features = torch.full((2, 8, 6, 8), 3.0, device=values.device)
    mean = values.mean(dim=(2, 3), keepdim=True).expand_as(values)
    assert (random_walk(features, values, affinity=affinity, backend=backend) - mean).abs().max() <= 32 * agreement.EPS


@pytest.mark.parametrize("affinity", AFFINITIES)
def test_products_far_beyond_the_exponential_range(backend, affinity):
    """W of 10⁸: each position keeps to those most like it, and no number overflows, there or in the gradients."""
    device = agreement.device_of(backend)
    features = torch.zeros(1, 2, 2, 2, device=device)
    features[0, 0, 0], features[0, 1, 1] = 1e4, 1e4  # the upper two alike, the lower two alike
    features.requires_grad_()
    values = torch.tensor([1.0, 3.0, 10.0, 20.0], device=device).view(1, 1, 2, 2)
    out = random_walk(features, values, affinity=affinity, backend=backend)
    assert out.flatten().tolist() == [2.0, 2.0, 15.0, 15.0]
    (gradient,) = torch.autograd.grad(out.square().sum(), features)
    assert torch.isfinite(gradient).all()


def test_by_distance_it_is_the_gaussian_kernel_normalised_by_rows(backend):
    tensors = {name: x.to(agreement.device_of(backend)) for name, x in drawn(6).items()}
    found = random_walk(**tensors, affinity="distance", backend=backend)
    both = torch.cat([tensors["values"], torch.ones_like(tensors["values"][:, :1])], dim=1)
    summed = all_pairs(both, tensors["features"], backend=backend)
    assert (found - summed[:, :-1] / summed[:, -1:]).abs().max() <= 32 * agreement.EPS


@pytest.mark.parametrize("affinity", AFFINITIES)
def test_rows_of_the_transition_matrix(affinity):
    features = drawn(5)["features"].double()
    rows = torch.tensor([0, 17, 47])
    found = transition(features, rows, affinity)
    assert found.shape == (2, 3, 6, 8)
    for image in range(2):
        expected = oracles.transition_matrix(features[image].numpy(), affinity)[rows]
        assert np.abs(found[image].flatten(1).numpy() - expected).max() <= agreement.rounding(48, 1.0)


FEATURES, VALUES = torch.zeros(1, 8, 4, 6), torch.zeros(1, 3, 4, 6)
BAD = {
    "another stride": (
        lambda: random_walk(FEATURES, VALUES[:, :, ::2, ::2]),
        "random_walk: found features (1, 8, 4, 6) with values (1, 3, 2, 3), expected one batch, height and width; "
        "pass arrays of one image size",
    ),
    "swapped axes": (
        lambda: random_walk(FEATURES, VALUES.mT),
        "random_walk: found features (1, 8, 4, 6) with values (1, 3, 6, 4), expected one batch, height and width; "
        "rows and columns look swapped",
    ),
    "another dtype": (
        lambda: random_walk(FEATURES, VALUES.double()),
        "random_walk: found features torch.float32, values torch.float64, expected one dtype; convert one",
    ),
    "whole numbers": (
        lambda: random_walk(FEATURES, VALUES.int()),
        "random_walk, values: found torch.int32, expected floating numbers; convert with .float()",
    ),
    "no features": (
        lambda: random_walk(FEATURES[:, :0], VALUES),
        "random_walk, features: found the shape (1, 0, 4, 6), expected (B, C, H, W), none of them 0; "
        "add or fill the axis",
    ),
    "a row outside": (
        lambda: transition(FEATURES, torch.tensor([3, 24])),
        "transition, rows: found position 24, expected 0 to 23; number positions as row · W + col",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_one_line(name):
    function, message = BAD[name]
    assert refusal(function) == message


def test_an_unknown_affinity_is_refused():
    message = r"^affinity: found 'distances', expected product or distance; did you mean 'distance'\?$"
    with pytest.raises(SettingsError, match=message):
        random_walk(FEATURES, VALUES, affinity="distances")


def test_a_backend_that_cannot_is_refused():
    with pytest.raises(BackendError, match=r"^random_walk, backend 'cpu': found a tensor of torch\.float64; it"):
        random_walk(FEATURES.double(), VALUES.double(), backend="cpu")
