"""The windowed Gaussian message: formula against pixel loops, gradient, edges of the contract, errors."""

import numpy as np
import oracles
import pytest
import torch

from pipeline.core.errors import DataError
from pipeline.kernels.window_message import window_message

EPS = torch.finfo(torch.float64).eps


def case(batch=1, classes=3, features=5, height=4, width=6):
    """Draw q and features in float64."""
    generator = torch.Generator().manual_seed(7)
    q = torch.rand(batch, classes, height, width, generator=generator, dtype=torch.float64)
    return q, torch.randn(batch, features, height, width, generator=generator, dtype=torch.float64)


def rounding(q, radius):
    """Bound of the rounding of a sum of non-negative terms: terms × eps × sum, here with weights up to 1.

    The factor 8 is for the few roundings inside each term: the distance, the exponential and the product.
    """
    terms = min((2 * radius + 1) ** 2, q.shape[-2] * q.shape[-1])
    return (terms + 8) * EPS * terms * float(q.abs().max())


@pytest.mark.parametrize("radius", [0, 1, 2, 3, 5, 9])
@pytest.mark.parametrize(("height", "width"), [(4, 6), (5, 3), (1, 7), (1, 1)])
def test_agrees_with_the_pixel_loop(radius, height, width):
    q, features = case(height=height, width=width)
    expected = oracles.window_message(q[0].numpy(), features[0].numpy(), radius)
    found = window_message(q, features, radius)[0].numpy()
    assert np.abs(found - expected).max() <= rounding(q, radius)


def test_from_the_longer_side_on_it_is_the_sum_over_all_pairs():
    q, features = case(height=4, width=6)
    flat = features.flatten(2)
    dense = torch.exp(-0.5 * (flat[..., :, None] - flat[..., None, :]).square().sum(dim=1))
    expected = (dense @ q.flatten(2).mT).mT.reshape(q.shape)
    reached = window_message(q, features, 5)
    assert (reached - expected).abs().max() <= rounding(q, 5)
    # Whatever lies outside the image sends exactly 0, so that a larger window changes no bit.
    assert torch.equal(window_message(q, features, 6), reached)
    assert torch.equal(window_message(q, features, 11), reached)
    assert not torch.equal(window_message(q, features, 4), reached)


def test_radius_0_gives_q():
    q, features = case()
    assert torch.equal(window_message(q, features, 0), q)


@pytest.mark.parametrize("radius", [1, 4])
def test_gradient(radius):
    q, features = case(classes=2, features=2, height=3, width=4)
    inputs = (q.requires_grad_(), features.requires_grad_())
    assert torch.autograd.gradcheck(lambda q, features: window_message(q, features, radius), inputs)


def test_a_batch_is_its_images_one_by_one():
    q, features = case(batch=2)
    both = window_message(q, features, 2)
    for image in range(2):
        part = slice(image, image + 1)
        assert (both[part] - window_message(q[part], features[part], 2)).abs().max() <= rounding(q, 2)


def test_inputs_need_not_be_contiguous():
    q, features = case()
    strided = q.permute(3, 2, 0, 1).contiguous().permute(2, 3, 1, 0), features.mT.contiguous().mT
    assert not strided[0].is_contiguous()
    assert not strided[1].is_contiguous()
    # Not bit for bit: torch takes another loop, whose exponential may round otherwise.
    assert (window_message(*strided, 2) - window_message(q, features, 2)).abs().max() <= rounding(q, 2)


def test_float32_stays_float32():
    q, features = case()
    assert window_message(q.float(), features.float(), 1).dtype == torch.float32


def test_swapped_axes_are_named():
    q, features = case()
    with pytest.raises(DataError, match=r"q \(1, 3, 4, 6\) with features \(1, 5, 6, 4\).*look swapped"):
        window_message(q, features.mT, 1)


@pytest.mark.parametrize("other", [(1, 5, 4, 7), (2, 5, 4, 6), (5, 4, 6)])
def test_sizes_that_differ_are_named(other):
    q, _ = case()
    with pytest.raises(DataError, match="one image size"):
        window_message(q, torch.zeros(other, dtype=torch.float64), 1)


def test_dtypes_must_be_equal():
    q, features = case()
    with pytest.raises(DataError, match=r"q torch\.float64, features torch\.float32.*one dtype"):
        window_message(q, features.float(), 1)


def test_radius_must_not_be_negative():
    q, features = case()
    with pytest.raises(DataError, match=r"radius: found -1, expected 0 or more"):
        window_message(q, features, -1)
