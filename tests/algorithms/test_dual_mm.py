"""DualMM against brute force, dynamic programming and minimum cuts; its bound, its labels, what must not matter."""

import itertools

import numpy as np
import pytest
import torch
from observe import refusal
from potts import least_energy, problem
from scipy.sparse import coo_array
from scipy.sparse.csgraph import maximum_flow

from pipeline.algorithms import dual_mm
from pipeline.algorithms.dual_mm import AXES, solve
from pipeline.kernels import potts_chains
from pipeline.kernels.potts_chains import Edges


def sandwiched(solution, optimum):
    slack = 1e-6 * abs(optimum)
    assert solution.bound <= optimum + slack
    assert optimum <= solution.energy + slack
    return float(optimum - solution.bound) / abs(optimum), float(solution.energy - optimum) / abs(optimum)


@pytest.mark.parametrize("seed", range(20))
def test_small_grids_against_brute_force(seed):
    """At most twelve pixels: energy and bound are next to the least energy, and on their sides of it."""
    height, width = [(3, 4), (2, 5), (3, 3), (2, 6), (1, 12)][seed % 5]
    unary, edges = problem(2 + seed % 2, height, width, [0.2, 0.5, 1.0, 3.0][seed % 4], seed)
    below, above = sandwiched(solve(unary, edges, 15, 1), least_energy(unary, edges))
    assert below <= 0.02
    assert above <= 0.01


@pytest.mark.parametrize("seed", range(3))
def test_strips_against_dynamic_programming(seed):
    unary, edges = problem(5, 4, 60, 0.5, seed)
    below, above = sandwiched(solve(unary, edges, 15, 1), least_energy(unary, edges))
    assert below <= 0.02
    assert above <= 0.01


@pytest.mark.parametrize(("height", "width"), [(1, 50), (50, 1), (1, 1)])
@pytest.mark.parametrize("classes", [1, 2, 7])
def test_one_row_or_column_is_solved_exactly(height, width, classes):
    unary, edges = problem(classes, height, width, 0.5)
    solution = solve(unary, edges, 1, 1)
    chain, weights = unary.reshape(1, classes, 1, -1), max(edges, key=lambda weight: weight.numel()).reshape(1, 1, -1)
    optimum = least_energy(chain, Edges(weights, torch.zeros(1, 0, chain.shape[3])))
    assert abs(float(solution.bound) - optimum) <= 1e-6 * abs(optimum)
    assert abs(float(solution.energy) - optimum) <= 1e-6 * abs(optimum)


def test_a_comb_is_a_tree_whose_bound_is_reached():
    """All rows hang together by one column."""
    unary, edges = problem(4, 6, 40, 0.5)
    below = torch.zeros_like(edges.below)
    below[:, :, 7] = edges.below[:, :, 7]
    solution = solve(unary, Edges(edges.right, below), 50, 1)
    assert 0 <= float(solution.gap) <= 1e-6


def minimum_cut(unary, edges, scale=2**20):
    """Return the least energy of two classes, by a maximum flow of whole numbers."""
    height, width = unary.shape[2:]
    pixel = np.arange(height * width).reshape(height, width)
    source, sink = pixel.size, pixel.size + 1
    own = [np.rint(scale * one.double().numpy()).astype(np.int64).ravel() for one in unary[0]]
    pairs = [(pixel[:, :-1], pixel[:, 1:], edges.right), (pixel[:-1], pixel[1:], edges.below)]
    starts, ends, weights = [], [], []
    for one, other, weight in pairs:
        whole = np.rint(scale * weight[0].double().numpy()).astype(np.int64).ravel()
        for a, b in ((one, other), (other, one)):
            starts.append(a.ravel()), ends.append(b.ravel()), weights.append(whole)
    # A pixel on the source's side takes class 0 and cuts its edge to the sink.
    starts += [np.full(pixel.size, source), pixel.ravel()]
    ends += [pixel.ravel(), np.full(pixel.size, sink)]
    weights += [own[1], own[0]]
    values = [np.concatenate(parts) for parts in (weights, starts, ends)]
    graph = coo_array((values[0].astype(np.int32), (values[1], values[2])), shape=(sink + 1, sink + 1))
    return maximum_flow(graph.tocsr(), source, sink).flow_value / scale


def test_two_classes_against_a_minimum_cut():
    unary, edges = problem(2, 60, 80, 0.5)
    optimum = minimum_cut(unary, edges)
    solution = solve(unary, edges, 15, 1)
    _, above = sandwiched(solution, optimum)
    assert above <= 0.003
    further = solve(unary, edges, 485, 1, rows=solution.rows)
    assert (float(further.energy) - optimum) / optimum <= 1e-6
    assert (optimum - float(further.bound)) / optimum <= 1e-6


def test_the_bound_never_falls():
    """Nor does any chain's minimum; the certificate is above the running bound and below every energy."""
    unary, edges = problem(5, 30, 40, 0.4)
    rows, before, running = unary.clone(), {}, -np.inf
    for _ in range(15):
        total = 0
        for axis in AXES:
            minima = potts_chains.hand_over(unary, rows, edges, axis)
            if axis in before:
                assert (minima >= before[axis] - 1e-5 * (1 + minima.abs())).all()
            before[axis], total = minima, total + float(minima.sum())
        assert total >= running - 1e-6 * abs(total)
        running = total
        certificate = sum(float(potts_chains.minimum(unary, rows, edges, axis).sum()) for axis in AXES)
        assert certificate >= running - 1e-6 * abs(running)
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        labels = torch.randint(0, 5, (1, 30, 40), generator=generator, dtype=torch.uint8)
        assert float(dual_mm.energy(unary, edges, labels)) >= certificate


def test_a_later_call_goes_on_where_the_first_ended():
    unary, edges = problem(4, 20, 30, 0.5)
    once = solve(unary, edges, 15, 1)
    first = solve(unary, edges, 10, 0)
    again = solve(unary, edges, 5, 1, rows=first.rows)
    for one, other in zip(once, again, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (torch.full((1, 4, 6, 7), torch.nan), "dual_mm, rows, image 0, channel 0, row 0, col 0: found nan"),
        (torch.zeros(1, 4, 7, 6), "rows: found (1, 4, 7, 6), torch.float32, expected (1, 4, 6, 7)"),
        (torch.zeros(1, 4, 6, 7).double(), "rows: found (1, 4, 6, 7), torch.float64, expected (1, 4, 6, 7)"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(rows, said):
    unary, edges = problem(4, 6, 7, 0.5)
    assert said in refusal(lambda: solve(unary, edges, 3, 1, rows=rows))


def test_permuted_classes_give_permuted_labels():
    unary, edges = problem(5, 25, 33, 0.3)
    order = torch.tensor([3, 1, 4, 0, 2])
    plain, turned = solve(unary, edges, 15, 1), solve(unary[:, order], edges, 15, 1)
    assert (order[turned.labels.long()] == plain.labels).float().mean() > 0.999
    assert abs(float(turned.bound - plain.bound)) <= 1e-6 * abs(float(plain.bound))


def test_what_is_added_at_a_pixel_does_not_matter():
    unary, edges = problem(4, 25, 33, 0.3)
    added = torch.randint(-8, 8, unary[:, :1].shape, generator=torch.Generator().manual_seed(2)) / 4
    plain, moved = solve(unary, edges, 15, 1), solve(unary + added, edges, 15, 1)
    assert (moved.labels == plain.labels).float().mean() > 0.999
    assert abs(float(moved.bound - plain.bound - added.double().sum())) <= 1e-4


def test_a_factor_of_8_changes_no_bit():
    unary, edges = problem(4, 25, 33, 0.3)
    plain, larger = solve(unary, edges, 15, 1), solve(8 * unary, Edges(*(8 * weight for weight in edges)), 15, 1)
    assert torch.equal(larger.labels, plain.labels)
    assert torch.equal(larger.bound, 8 * plain.bound)


def test_weights_of_0_and_weights_that_forbid_jumps():
    unary, edges = problem(4, 25, 33, 1.0)
    alone = solve(unary, Edges(*(0 * weight for weight in edges)), 15, 1)
    assert torch.equal(alone.labels.long(), unary.argmin(dim=1))
    assert torch.allclose(alone.bound, unary.min(dim=1).values.double().sum(dim=(1, 2)), rtol=1e-7)
    one = solve(unary, Edges(*(0 * weight + 50 for weight in edges)), 15, 1)
    best = unary.double().sum(dim=(2, 3)).argmin()
    assert (one.labels == best).all()


def test_a_turned_image_has_the_same_solution_but_for_the_gap():
    unary, edges = problem(4, 20, 20, 0.3)
    plain = solve(unary, edges, 50, 1)
    turned = solve(unary.mT.contiguous(), Edges(edges.below.mT.contiguous(), edges.right.mT.contiguous()), 50, 1)
    assert abs(float(plain.bound - turned.bound)) <= float(plain.gap) * abs(float(plain.bound)) + 1e-6


def test_sweeps_never_raise_the_energy():
    unary, edges = problem(6, 40, 50, 0.5)
    found = [float(solve(unary, edges, 3, sweeps).energy) for sweeps in range(5)]
    assert all(after <= before for before, after in itertools.pairwise(found))
    assert found[1] < found[0]


def test_a_batch_is_its_images_one_by_one_and_threads_do_not_matter():
    unary, edges = problem(5, 19, 37, 0.4, batch=3)
    whole, again = solve(unary, edges, 15, 1), solve(unary, edges, 15, 1)
    for image in range(3):
        torch.set_num_threads(1 + image % 2)
        one = solve(unary[image : image + 1], Edges(*(weight[image : image + 1] for weight in edges)), 15, 1)
        for mine, all_of_them, repeated in zip(one, whole, again, strict=True):
            assert torch.equal(mine[0], all_of_them[image])
            assert torch.equal(repeated, all_of_them)


@pytest.mark.parametrize("classes", [5, 12, 21])
def test_random_grids_are_nearly_solved(classes):
    """A minorant that is tight but not maximal leaves 7 to 12 % here."""
    unary, edges = problem(classes, 60, 80, 0.3)
    solution = solve(unary, edges, 15, 1)
    best = float(solve(unary, edges, 185, 0, rows=solution.rows.clone()).bound)
    assert float(solution.bound) <= best
    assert (float(solution.energy) - best) / best <= 0.002
    assert (best - float(solution.bound)) / best <= 0.002


def test_no_iteration_gives_the_best_of_each_pixel():
    unary, edges = problem(4, 9, 11, 0.3)
    solution = solve(unary, edges, 0, 0)
    assert torch.equal(solution.labels.long(), unary.argmin(dim=1))
    assert torch.equal(solution.rows, unary)
    assert float(solution.bound) <= float(solution.energy)


def test_the_unary_is_not_changed():
    unary, edges = problem(4, 9, 11, 0.3)
    before = unary.clone()
    solve(unary, edges, 3, 1)
    assert torch.equal(unary, before)


UNARY, EDGES = torch.zeros(1, 3, 4, 6), Edges(torch.ones(1, 4, 5), torch.ones(1, 3, 6))


def spoilt(tensor, value, *place):
    tensor = tensor.clone()
    tensor[place] = value
    return tensor


BAD = {
    "negative": (
        lambda: solve(UNARY, Edges(spoilt(EDGES.right, -0.5, 0, 2, 3), EDGES.below), 1, 0),
        "dual_mm, edges.right, image 0, row 2, col 3: found -0.5, expected a finite number of 0 or more; "
        "look where the weight comes from",
    ),
    "NaN": (
        lambda: solve(UNARY, Edges(EDGES.right, spoilt(EDGES.below, torch.nan, 0, 1, 5)), 1, 0),
        "dual_mm, edges.below, image 0, row 1, col 5: found nan, expected a finite number of 0 or more; "
        "look where the weight comes from",
    ),
    "infinite": (
        lambda: solve(UNARY, Edges(EDGES.right, spoilt(EDGES.below, torch.inf, 0, 0, 0)), 1, 0),
        "dual_mm, edges.below, image 0, row 0, col 0: found inf, expected a finite number of 0 or more; "
        "look where the weight comes from",
    ),
    "unary": (
        lambda: solve(spoilt(UNARY, torch.inf, 0, 2, 1, 4), EDGES, 1, 0),
        "dual_mm, unary, image 0, channel 2, row 1, col 4: found inf, expected finite numbers; "
        "look where it comes from",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_one_line(name):
    function, message = BAD[name]
    assert refusal(function) == message
