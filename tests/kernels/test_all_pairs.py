"""All pairs of pixels: formula against pixel loops, gradients, symmetry, errors."""

from random import Random

import agreement
import calls
import numpy as np
import oracles
import pytest
import torch
from observe import refusal

from pipeline.core.errors import BackendError
from pipeline.kernels.all_pairs import all_pairs, reference

ALL_PAIRS = calls.KERNELS["all_pairs"]


@pytest.mark.parametrize(("height", "width"), [(4, 6), (1, 9), (7, 1), (1, 1)])
def test_is_the_sum_over_all_pairs(height, width):
    tensors, options = ALL_PAIRS.draw(Random(0), (2, 3, height, width))
    found = agreement.exact(ALL_PAIRS, tensors, options)
    values, features = (tensor.double().numpy() for tensor in tensors.values())
    for image in range(2):
        expected = oracles.apply(oracles.kernel_matrix(features[image]), values[image])
        assert np.abs(found[image] - expected).max() <= agreement.rounding(height * width, 1.5)


def test_rows_of_the_matrix_at_a_time_are_the_whole(monkeypatch):
    tensors, options = ALL_PAIRS.draw(Random(1), (1, 2, 5, 7))
    whole = agreement.exact(ALL_PAIRS, tensors, options)
    monkeypatch.setattr(reference, "ROWS", 8)
    assert np.abs(agreement.exact(ALL_PAIRS, tensors, options) - whole).max() <= agreement.rounding(35, 1.5)


def test_gradients_of_the_reference():
    agreement.gradcheck(ALL_PAIRS, *ALL_PAIRS.draw(Random(2), (2, 2, 3, 4)))


def test_agrees_with_float64(fast):
    agreement.check(ALL_PAIRS, fast, calls.cases("all_pairs", shapes=(*calls.SHAPES, calls.MANY_CLASSES) * 4))


def test_agrees_with_float64_over_several_batches_of_senders(fast):
    cases = calls.cases("all_pairs", shapes=[(1, 5, 20, 37), (2, 2, 3, 171)])
    agreement.check(ALL_PAIRS, fast, cases)


def test_the_kernel_is_symmetric(backend):
    device = agreement.device_of(backend)
    features = calls.normal(Random(3), 1, 3, 4, 9).to(device)
    matrix = agreement.matrix_of(lambda q: all_pairs(q.to(device), features, backend=backend), 4, 9, torch.float32)
    assert np.abs(matrix - matrix.T).max() <= agreement.EPS  # of numbers up to 1, each rounded once
    assert np.array_equal(np.diag(matrix), np.ones(36))


def test_pixels_far_apart_do_not_meet(backend):
    device = agreement.device_of(backend)
    features = (1000.0 * torch.arange(24)).view(1, 1, 4, 6).to(device)
    values = calls.normal(Random(4), 1, 3, 4, 6).to(device)
    # Nothing below float32's smallest number: sums of 1.2e-38 are lost beside values near 1.
    assert torch.equal(all_pairs(values, features, backend=backend), values)


VALUES = torch.zeros(1, 3, 4, 6)
BAD = {
    "integers": (
        lambda: all_pairs(VALUES.long(), VALUES),
        "all_pairs, values: found torch.int64, expected floating numbers; convert with .float()",
    ),
    "empty": (
        lambda: all_pairs(VALUES, VALUES[:, :0]),
        "all_pairs, features: found the shape (1, 0, 4, 6), expected (B, C, H, W), none of them 0; "
        "add or fill the axis",
    ),
    "no image": (
        lambda: all_pairs(VALUES[:0], VALUES[:0]),
        "all_pairs, values: found the shape (0, 3, 4, 6), expected (B, C, H, W), none of them 0; add or fill the axis",
    ),
    "swapped": (
        lambda: all_pairs(VALUES, VALUES.mT),
        "all_pairs: found values (1, 3, 4, 6) with features (1, 3, 6, 4), expected one batch, height and width; "
        "rows and columns look swapped",
    ),
    "batch": (
        lambda: all_pairs(VALUES, VALUES.expand(2, 3, 4, 6)),
        "all_pairs: found values (1, 3, 4, 6) with features (2, 3, 4, 6), expected one batch, height and width; "
        "pass arrays of one image size",
    ),
    "precision": (
        lambda: all_pairs(VALUES, VALUES, precision="bfloat16"),
        "all_pairs, precision: found 'bfloat16', expected one of float32, tf32; choose one",
    ),
    "dtypes": (
        lambda: all_pairs(VALUES, VALUES.double()),
        "all_pairs: found values torch.float32, features torch.float64, expected one dtype; convert one",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_one_line(name):
    function, message = BAD[name]
    assert refusal(function) == message


def test_a_backend_that_cannot_is_refused():
    with pytest.raises(BackendError, match=r"^all_pairs, backend 'cpu': found a tensor of torch\.float64; it computes"):
        all_pairs(VALUES.double(), VALUES.double(), backend="cpu")
