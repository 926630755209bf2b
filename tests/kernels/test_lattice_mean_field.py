"""All iterations of two lattices in one call: the same as one by one, whatever the shape; refusals."""

from random import Random

import agreement
import calls
import pytest
import torch

from pipeline.core.errors import BackendError, DataError
from pipeline.kernels.lattice_mean_field import lattice_mean_field
from pipeline.kernels.permutohedral import build

SHAPES = ((1, 3, 1, 1), (1, 2, 5, 9), (2, 8, 7, 70), (1, 12, 70, 66), (1, 21, 9, 13), (1, 40, 3, 65))


def case(shape, seed=0):
    """Draw an unary, two sets of features, left and right of each, weights."""
    random = Random(seed)
    batch, classes, height, width = shape
    features = [5 * calls.uniform(random, batch, count, height, width) for count in (5, 2)]
    sides = [[0.2 + calls.uniform(random, batch, 1, height, width) for _ in range(2)] for _ in range(2)]
    return calls.normal(random, *shape), features, sides, calls.uniform(random, 2, classes)


def run(shape, backend, dtype, iterations=3):
    unary, features, sides, weights = case(shape)
    lattices = [build(each.to(dtype), backend=backend) for each in features]
    lefts, rights = ([side.to(dtype) for side in each] for each in sides)
    return lattice_mean_field(unary.to(dtype), lattices, lefts, rights, weights.to(dtype), iterations, backend=backend)


@pytest.mark.parametrize("shape", SHAPES)
def test_agrees_with_float64(shape):
    results = [run(shape, *how) for how in (("cpu", torch.float32), ("reference", torch.float32))]
    agreement.house_rule(*results, run(shape, "reference", torch.float64), f"scores {shape}")


def test_no_iteration_gives_the_unary():
    assert torch.equal(run((1, 3, 5, 70), "cpu", torch.float32, iterations=0), case((1, 3, 5, 70))[0])


def test_iterations_change_the_scores():
    one, other = (run((1, 3, 5, 9), "cpu", torch.float32, iterations) for iterations in (1, 2))
    assert (one - other).abs().max() > 1e-3


def test_threads_change_no_bit():
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(run((1, 12, 130, 140), "cpu", torch.float32))
    assert torch.equal(*found)


def refused(error, **changed):
    unary, features, sides, weights = case((1, 3, 4, 6))
    arguments = {
        "unary": unary,
        "lattices": [build(each) for each in features],
        "lefts": sides[0],
        "rights": sides[1],
        "weights": weights,
        "iterations": 1,
    }
    with pytest.raises(error) as caught:
        lattice_mean_field(**(arguments | changed))
    return str(caught.value)


def test_refusals():
    assert "found 1 lattices of [(1, 4, 6)], an unary (1, 3, 4, 6), expected two" in refused(
        DataError, lattices=[build(torch.rand(1, 2, 4, 6))]
    )
    swapped = [build(torch.rand(1, 2, 6, 4))] * 2
    assert "2 lattices of [(1, 6, 4)]" in refused(DataError, lattices=swapped)
    assert "weights: found (2, 4), expected (2, 3), kernels by classes" in refused(DataError, weights=torch.ones(2, 4))


def test_a_gradient_asked_of_it_is_refused():
    unary = torch.zeros(1, 3, 4, 6, requires_grad=True)
    assert "found a tensor that needs a gradient" in refused(BackendError, unary=unary, backend="cpu")
