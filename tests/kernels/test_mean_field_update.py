"""One update of mean field: formula against NumPy, gradients, extreme scores, errors."""

from random import Random

import agreement
import calls
import numpy as np
import oracles
import pytest
import torch
from observe import refusal

from pipeline.core.errors import BackendError
from pipeline.kernels.mean_field_update import RESULTS, mean_field_update

UPDATE = calls.KERNELS["mean_field_update"]


def drawn(shape, count, seed=0):
    """Draw an unary, weights and `count` messages by name."""
    random = Random(seed)
    tensors = {"unary": 3 * calls.normal(random, *shape), "weights": calls.normal(random, count, shape[1])}
    return tensors | {f"message_{m}": 3 * calls.normal(random, *shape) for m in range(count)}


@pytest.mark.parametrize("result", RESULTS)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_is_the_softmax_of_the_weighted_sum(count, result):
    tensors = drawn((2, 4, 3, 5), count)
    unary, weights, *messages = (tensor.double().numpy() for tensor in tensors.values())
    scores = unary + sum(weights[m][:, None, None] * message for m, message in enumerate(messages))
    q = np.stack([oracles.softmax(image) for image in scores])
    expected = {"q": q, "log_q": np.log(q), "scores": scores}[result]
    found = agreement.exact(UPDATE, tensors, {"result": result})
    assert np.abs(found - expected).max() <= agreement.rounding(4 * (count + 1), max(1, np.abs(expected).max()))


@pytest.mark.parametrize("result", RESULTS)
@pytest.mark.parametrize("count", [1, 2])
def test_gradients_of_the_reference(count, result):
    agreement.gradcheck(UPDATE, drawn((2, 3, 2, 3), count), {"result": result})


@pytest.mark.parametrize("result", RESULTS)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_agrees_with_float64(fast, count, result):
    shapes, layouts = (*calls.SHAPES, calls.MANY_CLASSES, (1, 3, 9, 120)) * 2, list(agreement.LAYOUTS)
    options = {"result": result}
    cases = [(drawn(shape, count, seed), options, layouts[seed % 4]) for seed, shape in enumerate(shapes)]
    agreement.check(UPDATE, fast, cases)


def test_without_messages_it_is_softmax_or_log_softmax(backend):
    unary = calls.normal(Random(1), 1, 4, 3, 5)
    laid = unary.to(agreement.device_of(backend))
    q = mean_field_update(laid, [], laid.new_empty(0, 4), backend=backend)
    agreement.house_rule(q, unary.softmax(dim=1), unary.double().softmax(dim=1), "softmax")
    log_q = mean_field_update(laid, [], laid.new_empty(0, 4), result="log_q", backend=backend)
    agreement.house_rule(log_q, unary.log_softmax(dim=1), unary.double().log_softmax(dim=1), "log_softmax")
    scores = mean_field_update(laid, [], laid.new_empty(0, 4), result="scores", backend=backend)
    assert torch.equal(scores.cpu(), unary)


@pytest.mark.parametrize(
    ("result", "expected"), [("q", [0.5, 0.0, 0.5, 0.0]), ("log_q", [-0.6931472, -2e4 - 0.6931472, -0.6931472, -3e38])]
)
def test_far_scores_neither_overflow_nor_vanish(backend, result, expected):
    unary = torch.tensor([1e4, -1e4, 1e4, -3e38]).view(1, 4, 1, 1).expand(1, 4, 3, 9)
    unary = unary.to(agreement.device_of(backend))
    weights = torch.ones_like(unary[0, :, :1, 0]).mT
    found = mean_field_update(unary, [torch.zeros_like(unary)], weights, result=result, backend=backend)
    torch.testing.assert_close(found[0, :, 0, 0].cpu(), torch.tensor(expected), rtol=2e-7, atol=1e-6)
    assert torch.equal(found, found[..., :1, :1].expand_as(found))


def test_nan_is_not_hidden(backend):
    unary = calls.normal(Random(2), 1, 3, 2, 9).to(agreement.device_of(backend))
    unary[0, 1, 1, 4] = float("nan")
    q = mean_field_update(unary, [unary], torch.ones_like(unary[0, :, :1, 0]).mT, backend=backend)
    assert torch.equal(q.isnan().nonzero()[:, 2:].unique(dim=0).cpu(), torch.tensor([[1, 4]]))


UNARY, WEIGHTS = torch.zeros(1, 3, 4, 6), torch.zeros(1, 3)
BAD = {
    "integers": (
        lambda: mean_field_update(UNARY.int(), [UNARY], WEIGHTS),
        "mean_field_update, unary: found torch.int32, expected floating numbers; convert with .float()",
    ),
    "empty": (
        lambda: mean_field_update(UNARY[..., :0], [UNARY], WEIGHTS),
        "mean_field_update, unary: found the shape (1, 3, 4, 0), expected (B, C, H, W), none of them 0; "
        "add or fill the axis",
    ),
    "swapped": (
        lambda: mean_field_update(UNARY, [UNARY, UNARY.mT], WEIGHTS),
        "mean_field_update: found unary (1, 3, 4, 6) with message 1 (1, 3, 6, 4), expected one batch, height and "
        "width; rows and columns look swapped",
    ),
    "classes": (
        lambda: mean_field_update(UNARY, [UNARY[:, :2]], WEIGHTS),
        "mean_field_update: found unary (1, 3, 4, 6) with message 0 (1, 2, 4, 6), expected the same classes; "
        "filter q of all classes",
    ),
    "dtypes": (
        lambda: mean_field_update(UNARY, [UNARY.double()], WEIGHTS),
        "mean_field_update: found unary torch.float32, message 0 torch.float64, expected one dtype; convert one",
    ),
    "weights' dtype": (
        lambda: mean_field_update(UNARY, [UNARY], WEIGHTS.double()),
        "mean_field_update: found unary torch.float32, weights torch.float64, expected one dtype; convert one",
    ),
    "weights' shape": (
        lambda: mean_field_update(UNARY, [UNARY], WEIGHTS.mT),
        "mean_field_update, weights: found (3, 1), expected (1, 3), messages by classes; give one weight for each",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_one_line(name):
    function, message = BAD[name]
    assert refusal(function) == message


def test_a_backend_that_cannot_is_refused():
    with pytest.raises(BackendError, match=r"^mean_field_update, backend 'cpu': found a tensor of torch\.float64; it"):
        mean_field_update(UNARY.double(), [], WEIGHTS[:0].double(), backend="cpu")
