"""Mean field on a coarser grid: blur and unblur against matrices, the update between them, gradients, errors."""

from random import Random

import agreement
import calls
import numpy as np
import oracles
import pytest
import torch
from observe import refusal

from pipeline.core.errors import BackendError
from pipeline.kernels.blurred_update import add_unblurred, blur, blurred_update, unblur

UPDATE, SUM = calls.KERNELS["blurred_update"], calls.KERNELS["add_unblurred"]
FACTORS = [1, 2, 3, 4, 5, 8, 50]
SIZES = [(4, 6), (5, 9), (1, 13), (8, 1), (1, 1)]


def both_axes(values, matrix, factor):
    """Apply a matrix made for a size and factor along rows and along columns."""
    rows, cols = (matrix(size, factor) for size in values)
    return lambda array: np.einsum("rh,cw,bkhw->bkrc", rows, cols, array)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("size", SIZES)
def test_blur_averages_cells_and_unblur_interpolates(factor, size):
    averaged, interpolated = (both_axes(size, matrix, factor) for matrix in (oracles.averaging, oracles.interpolating))
    values = calls.normal(Random(0), 2, 3, *size).double()
    coarse = blur(values, factor)
    assert np.abs(coarse.numpy() - averaged(values.numpy())).max() <= agreement.rounding(factor**2, 5)
    assert coarse.shape[2:] == tuple(-(-length // factor) for length in size)
    fine = unblur(coarse, factor, *size)
    # Place of a pixel between two cells: a difference of numbers as large as the grid.
    assert np.abs(fine.numpy() - interpolated(coarse.numpy())).max() <= agreement.rounding(max(4, *size), 5)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("size", SIZES)
def test_is_unblur_softmax_and_blur(factor, size):
    tensors, options = UPDATE.draw(Random(1), (2, 3, *size), factor=factor)
    unary, message = (tensor.double().numpy() for tensor in tensors.values())
    scores = unary + both_axes(size, oracles.interpolating, factor)(message)
    q = np.stack([oracles.softmax(image) for image in scores])
    found = agreement.exact(UPDATE, tensors, options)
    expected = both_axes(size, oracles.averaging, factor)(q)
    assert np.abs(found - expected).max() <= agreement.rounding(factor**2 + max(size), 10)
    assert np.abs(agreement.exact(SUM, tensors, options) - scores).max() <= agreement.rounding(max(4, *size), 10)


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_gradients_of_the_reference(factor):
    agreement.gradcheck(UPDATE, *UPDATE.draw(Random(2), (2, 2, 3, 5), factor=factor))


def test_agrees_with_float64(fast):
    agreement.check(UPDATE, fast, calls.cases("blurred_update", factor=FACTORS))
    agreement.check(SUM, fast, calls.cases("add_unblurred", factor=FACTORS))


def test_the_sum_has_gradients_too(backend):
    """Fused or not: what `add_unblurred` returns to a training is differentiable."""
    tensors, options = SUM.draw(Random(3), (1, 2, 5, 9), factor=4)
    unary, message = (x.to(agreement.device_of(backend)).requires_grad_() for x in tensors.values())
    total = add_unblurred(unary, message, **options, backend=backend).sum()
    to_unary, to_message = torch.autograd.grad(total, (unary, message))
    assert torch.equal(to_unary, torch.ones_like(unary))
    expected = both_axes((5, 9), oracles.interpolating, 4)(np.ones((1, 2, 2, 3))).sum()
    assert float(to_message.double().sum()) == pytest.approx(expected, rel=45 * agreement.EPS)


def test_a_constant_stays(backend):
    device = agreement.device_of(backend)
    constant = torch.tensor([2.0, 0.5, -1.0], device=device).view(1, 3, 1, 1)
    for factor in FACTORS:
        unary = constant.expand(1, 3, 7, 10)
        message = blur(unary, factor)
        found = blurred_update(unary, message, factor, backend=backend)
        expected = (2 * constant).softmax(dim=1).expand_as(found)
        assert (found - expected).abs().max() <= (factor**2 + 8) * agreement.EPS


def test_nan_is_not_hidden(backend):
    unary = torch.zeros(1, 3, 6, 12, device=agreement.device_of(backend))
    unary[0, 1, 1, 4] = float("nan")
    q = blurred_update(unary, blur(torch.zeros_like(unary), 2), 2, backend=backend)
    assert torch.equal(q.isnan().nonzero()[:, 2:].unique(dim=0).cpu(), torch.tensor([[0, 2]]))


UNARY, MESSAGE = torch.zeros(1, 3, 5, 7), torch.zeros(1, 3, 3, 4)
FIRST = "blurred_update: found a message"
BAD = {
    "factor 0": (
        *(0, UNARY, MESSAGE),
        "blurred_update, factor: found 0, expected 1 or more; give the side of a cell in px",
    ),
    "factor": (
        *(3, UNARY, MESSAGE),
        f"{FIRST} (1, 3, 3, 4), torch.float32, expected (1, 3, 2, 3), torch.float32; blur q by the same factor",
    ),
    "swapped": (
        *(2, UNARY, MESSAGE.mT),
        f"{FIRST} (1, 3, 4, 3), torch.float32, expected (1, 3, 3, 4), torch.float32; blur q by the same factor",
    ),
    "batch": (
        *(2, UNARY, MESSAGE.expand(2, 3, 3, 4)),
        f"{FIRST} (2, 3, 3, 4), torch.float32, expected (1, 3, 3, 4), torch.float32; blur q by the same factor",
    ),
    "dtypes": (
        *(2, UNARY, MESSAGE.double()),
        f"{FIRST} (1, 3, 3, 4), torch.float64, expected (1, 3, 3, 4), torch.float32; blur q by the same factor",
    ),
    "integers": (
        *(2, UNARY.int(), MESSAGE),
        "blurred_update, unary: found torch.int32, expected floating numbers; convert with .float()",
    ),
    "empty": (
        *(2, UNARY[..., :0], MESSAGE),
        "blurred_update, unary: found the shape (1, 3, 5, 0), expected (B, C, H, W), none of them 0; "
        "add or fill the axis",
    ),
}


@pytest.mark.parametrize("function", [blurred_update, add_unblurred])
@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_one_line(function, name):
    factor, unary, message, text = BAD[name]
    assert refusal(lambda: function(unary, message, factor)) == text


def test_a_backend_that_cannot_is_refused():
    with pytest.raises(BackendError, match=r"^blurred_update, backend 'cpu': found a tensor of torch\.float64; it"):
        blurred_update(UNARY.double(), MESSAGE.double(), 2, backend="cpu")
