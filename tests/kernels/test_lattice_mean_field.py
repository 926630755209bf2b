"""All iterations over two lattices in one call: the definition with slow lattices, refusals, errors."""

from functools import partial
from random import Random

import agreement
import calls
import numpy as np
import oracles
import pytest
import torch

from pipeline.core.errors import BackendError, DataError
from pipeline.kernels.lattice_mean_field import lattice_mean_field
from pipeline.kernels.permutohedral import build

IN_ONE_CALL = calls.KERNELS["lattice_mean_field"]


@pytest.mark.parametrize("iterations", [0, 1, 4])
def test_is_mean_field_by_its_definition(iterations):
    tensors, options = IN_ONE_CALL.draw(Random(0), (1, 3, 4, 5), iterations=iterations)
    unary, near, around, lefts, rights, weights = (
        (x[0] if x.ndim == 4 else x).double().numpy() for x in tensors.values()
    )
    matrices = [oracles.lattice_matrix(features) for features in (near, around)]
    matrices = [lefts[m].reshape(-1, 1) * matrices[m] * rights[m].reshape(1, -1) for m in range(2)]
    by_class = np.einsum("mc,mij->cij", weights, matrices)
    expected = oracles.mean_field(unary, by_class, 1 - np.eye(3), iterations)
    scores = agreement.exact(IN_ONE_CALL, tensors, options)[0]
    # Iterations add up what each rounds: sums over 20 pixels, twice.
    assert np.abs(oracles.softmax(scores) - expected).max() <= (iterations + 1) * agreement.rounding(2 * 20, 10)
    if iterations == 0:
        assert np.array_equal(scores, unary)


def test_agrees_with_float64(fast):
    cases = calls.cases("lattice_mean_field", iterations=[0, 1, 2, 5])
    agreement.check(IN_ONE_CALL, fast, cases)


def test_agrees_with_float64_over_several_blocks(fast):
    agreement.check(IN_ONE_CALL, fast, calls.cases("lattice_mean_field", shapes=[(1, 5, 70, 90)], iterations=[3]))


def test_nan_is_not_hidden(backend):
    tensors, _ = IN_ONE_CALL.draw(Random(1), (1, 3, 4, 9))
    tensors["unary"][0, 1, 2, 3] = float("nan")
    laid = {name: x.to(agreement.device_of(backend)) for name, x in tensors.items()}
    scores = IN_ONE_CALL.call(backend, **laid, iterations=2)
    assert scores[0, :, 2, 3].isnan().all()


@pytest.mark.parametrize("iterations", [0, 3])
def test_overwritten_or_not_the_result_is_the_same(backend, iterations):
    tensors, _ = IN_ONE_CALL.draw(Random(2), (2, 5, 70, 90))
    device = agreement.device_of(backend)
    near, around = (build(tensors[name].to(device), backend=backend) for name in ("near", "around"))
    sides = [tensors[name].to(device).split(1, dim=1) for name in ("lefts", "rights")]
    unary, weights = tensors["unary"].to(device), tensors["weights"].to(device)
    given = unary.clone()
    call = partial(lattice_mean_field, weights=weights, iterations=iterations, backend=backend)
    expected = call(unary, [near, around], *sides)
    assert torch.equal(unary, given)
    assert torch.equal(call(unary, [near, around], *sides, overwrite=True), expected)


@pytest.mark.parametrize("iterations", [0, 1, 2, 5])
@pytest.mark.parametrize(("classes", "settings"), [(3, 1), (5, 4), (21, 7), (80, 2)])
def test_several_settings_at_once_are_each_what_it_is_alone(backend, classes, settings, iterations):
    tensors, _ = IN_ONE_CALL.draw(Random(3), (2, classes, 12, 70))
    device = agreement.device_of(backend)
    lattices = [build(tensors[name].to(device), backend=backend) for name in ("near", "around")]
    sides = [tensors[name].to(device).split(1, dim=1) for name in ("lefts", "rights")]
    unary = tensors["unary"].to(device)
    weights = torch.rand(settings, 2, classes, generator=torch.Generator().manual_seed(4)).to(device)
    call = partial(lattice_mean_field, unary, lattices, *sides, iterations=iterations, backend=backend)
    given = unary.clone()
    found = call(weights=weights, overwrite=True)
    assert torch.equal(unary, given)
    assert found.shape == (2, settings, classes, 12, 70)
    assert torch.equal(found, torch.stack([call(weights=each) for each in weights], dim=1))


def given(**changed):
    """Return arguments of a call on 4 × 6 pixels and 3 classes."""
    features, side = torch.zeros(1, 2, 4, 6), torch.ones(1, 1, 4, 6)
    arguments = {"unary": torch.zeros(1, 3, 4, 6), "lattices": [build(features)] * 2, "lefts": [side] * 2}
    return arguments | {"rights": [side] * 2, "weights": torch.ones(2, 3), "iterations": 1} | changed


def test_a_gradient_is_left_to_the_reference(fast):
    if fast == "cuda":
        pytest.skip("lattices of the CPU")
    needing = torch.zeros(1, 3, 4, 6).requires_grad_()
    with pytest.raises(BackendError) as error:
        lattice_mean_field(**given(unary=needing), backend="cpu")
    assert str(error.value) == (
        "lattice_mean_field, backend 'cpu': found a tensor that needs a gradient; compose permutohedral and "
        "mean_field_update, expected a call it can run; use backend 'auto'"
    )
    lattice_mean_field(**given(unary=needing)).sum().backward()
    assert needing.grad is not None
    with torch.no_grad():
        learnt = torch.nn.Parameter(torch.ones(2, 3))
        assert lattice_mean_field(**given(unary=needing, weights=learnt), backend="cpu").shape == needing.shape


@pytest.mark.parametrize("places", ["reference", "cpu"])
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_auto_follows_the_lattices(places, backend):
    lattices = [build(torch.rand(1, 2, 4, 6), backend=places)] * 2
    found = lattice_mean_field(**given(lattices=lattices), backend=backend)
    assert found.shape == (1, 3, 4, 6)


def test_lattices_of_another_backend_are_refused():
    lattices = [build(torch.rand(1, 2, 4, 6), backend=name) for name in ("cpu", "reference")]
    with pytest.raises(
        BackendError, match=r"backend 'cpu': found a lattice of backend 'reference', expected a call it"
    ):
        lattice_mean_field(**given(lattices=lattices), backend="cpu")


SIDE = torch.ones(1, 1, 4, 6)
BAD = {
    "one lattice": (
        lambda: {"lattices": given()["lattices"][:1]},
        "lattice_mean_field: found 1 lattices of [(1, 4, 6)], an unary (1, 3, 4, 6), expected two, of its B, H, W; "
        "build both from this image",
    ),
    "swapped": (
        lambda: {"unary": torch.zeros(1, 3, 6, 4)},
        "lattice_mean_field: found 2 lattices of [(1, 4, 6)], an unary (1, 3, 6, 4), expected two, of its B, H, W; "
        "build both from this image",
    ),
    "weights": (
        lambda: {"weights": torch.ones(3, 2)},
        "lattice_mean_field, weights: found (3, 2), expected (2, 3), kernels by classes; give one weight for each",
    ),
    "left": (
        lambda: {"lefts": [SIDE, SIDE.mT]},
        "lattice_mean_field: found left (1, 1, 6, 4), torch.float32, expected (1, 1, 4, 6), torch.float32; "
        "give one factor for each pixel",
    ),
    "right": (
        lambda: {"rights": [SIDE.double(), SIDE]},
        "lattice_mean_field: found right (1, 1, 4, 6), torch.float64, expected (1, 1, 4, 6), torch.float32; "
        "give one factor for each pixel",
    ),
    "dtypes": (
        lambda: {"weights": torch.ones(2, 3).double()},
        "lattice_mean_field: found unary torch.float32, weights torch.float64, expected one dtype; convert one",
    ),
    "integers": (
        lambda: {"unary": torch.zeros(1, 3, 4, 6).int()},
        "lattice_mean_field, unary: found torch.int32, expected floating numbers; convert with .float()",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_one_line(name):
    changed, message = BAD[name]
    with pytest.raises(DataError) as error:
        lattice_mean_field(**given(**changed()))
    assert str(error.value) == message
