"""Chains of Potts costs against every labelling: shares, minima, the best labels; backends; errors."""

import itertools
from random import Random

import agreement
import calls
import numpy as np
import pytest
import torch
from observe import refusal

from pipeline.core.errors import BackendError
from pipeline.kernels import potts_chains
from pipeline.kernels.potts_chains import Edges

SHARE = calls.KERNELS["potts_share"]
AXES = ("rows", "columns")


def grid(random, classes, chains, nodes, axis, scale=1.0):
    """Draw unaries, what the rows own of them, and edges, of chains along an axis; one image, float32."""
    height, width = (nodes, chains) if axis == "columns" else (chains, nodes)
    unary, rows = (calls.uniform(random, 1, classes, height, width) for _ in range(2))
    sizes = (1, height, width - 1), (1, height - 1, width)
    return unary, rows, Edges(*(scale * (calls.uniform(random, *size) - 0.5) for size in sizes))


def handed(unary, rows, edges, axis, backend):
    """Return of the chains costs and shares (N, P, C), edges (N, P − 1) and minima, float64; and the labels."""
    device = agreement.device_of(backend)
    rows = rows.to(device).clone()
    before, labels = rows.clone(), torch.zeros(rows[:, 0].shape, dtype=torch.uint8, device=device)
    edges = Edges(*(each.to(device) for each in edges))
    unary = unary.to(device)
    minima = potts_chains.hand_over(unary, rows, edges, axis, labels=labels, backend=backend)
    changed, owned = (rows - before, unary - before) if axis == "columns" else (before - rows, before)
    weight = edges.below.mT if axis == "columns" else edges.right
    turned = [(x.mT if axis == "columns" else x)[0].double().cpu().permute(1, 2, 0).numpy() for x in (owned, changed)]
    labels = (labels.mT if axis == "columns" else labels)[0].cpu().numpy()
    return *turned, weight[0].double().cpu().numpy(), minima[0].cpu().numpy(), labels


def energies(cost, edges):
    """Return the energies of all labellings of one chain, in the order of `itertools.product`: cost (P, C)."""
    nodes, classes = cost.shape
    all_labels = np.array(list(itertools.product(range(classes), repeat=nodes)))
    jumps = all_labels[:, 1:] != all_labels[:, :-1]
    return all_labels, cost[np.arange(nodes), all_labels].sum(axis=1) + jumps @ edges


def min_marginals(all_labels, energy, classes):
    nodes = all_labels.shape[1]
    return np.array([[energy[all_labels[:, i] == k].min() for k in range(classes)] for i in range(nodes)])


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("scale", [0.0, 0.3, 1.0, 1e3])
def test_shares_are_tight_and_maximal(backend, axis, scale):
    """Not negative, nothing of them missing from the chain's minimum, and nothing left that could be given."""
    for seed, (classes, nodes) in enumerate(itertools.product((1, 2, 4), range(1, 8))):
        drawn = grid(Random(seed), classes, 2, nodes, axis, scale)
        cost, share, edges, minima, labels = handed(*drawn, axis, backend)
        for chain in range(2):
            all_labels, energy = energies(cost[chain], edges[chain])
            tolerance = 1e-5
            assert share[chain].min() >= -tolerance
            assert np.abs(share[chain].min(axis=1)).max() <= tolerance
            assert abs(energy.min() - minima[chain]) <= tolerance
            given = share[chain][np.arange(nodes), all_labels].sum(axis=1)
            assert (given + minima[chain]).max() - energy.max() <= tolerance
            assert (given + minima[chain] - energy).max() <= tolerance
            left = min_marginals(all_labels, energy - given, classes)
            assert np.abs(left - minima[chain]).max() <= tolerance
            chosen = share[chain][np.arange(nodes), labels[chain]]
            assert np.abs(chosen).max() <= tolerance


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize(("nodes", "classes"), [(1, 3), (33, 2), (97, 5), (480, 12)])
def test_long_chains_too(backend, axis, nodes, classes):
    """What is left after the share has the minimum that was there, and so has every label of every node."""
    nodes = 97 if backend == "reference" and nodes > 97 else nodes
    drawn = grid(Random(nodes), classes, 11, nodes, axis)
    cost, share, edges, minima, _ = handed(*drawn, axis, backend)
    for chain in range(11):
        marginals = chain_marginals(cost[chain] - share[chain], edges[chain])
        assert np.abs(marginals - minima[chain]).max() <= 1e-5 * (1 + nodes)
        assert abs(chain_marginals(cost[chain], edges[chain]).min() - minima[chain]) <= 1e-6 * (1 + nodes)


def chain_marginals(cost, edges):
    """Return the min-marginals of one chain (P, C) by dynamic programming, in quadratic time in C."""
    nodes, classes = cost.shape
    unlike = 1 - np.eye(classes)
    before, after = np.zeros_like(cost), np.zeros_like(cost)
    for i in range(1, nodes):
        before[i] = (before[i - 1] + cost[i - 1] + edges[i - 1] * unlike).min(axis=1)
    for i in range(nodes - 2, -1, -1):
        after[i] = (after[i + 1] + cost[i + 1] + edges[i] * unlike).min(axis=1)
    return before + cost + after


@pytest.mark.parametrize("axis", AXES)
def test_relabelled_chains_are_the_best(backend, axis):
    """Of every labelling of the chains that move, given the others; equals go to the label before, else the lowest."""
    device = agreement.device_of(backend)
    for seed, (classes, nodes) in enumerate(itertools.product((1, 2, 3), (1, 2, 5))):
        random = Random(seed)
        unary, _, edges = grid(random, classes, 4, nodes, axis)
        down = axis == "columns"
        labels = (calls.uniform(random, *unary[:, 0].shape) * classes).long() % classes
        for first in (0, 1):
            found = labels.byte().to(device)
            arguments = unary.to(device), Edges(*(each.to(device) for each in edges)), found
            potts_chains.relabel(*arguments, axis, first, backend=backend)
            found = found[0].cpu().long().numpy()
            known, cost = labels[0].numpy(), unary[0].double().permute(1, 2, 0).numpy()
            along, across = (edges.below[0].T, edges.right[0].T) if down else (edges.right[0], edges.below[0])
            along, across = along.double().numpy(), across.double().numpy()
            if down:
                found, known, cost = found.T, known.T, cost.transpose(1, 0, 2)
            for chain in range(4):
                if chain % 2 != first:
                    assert (found[chain] == known[chain]).all()
                    continue
                own = cost[chain].copy()
                for other, edge in ((chain - 1, chain - 1), (chain + 1, chain)):
                    if 0 <= other < 4:
                        own += across[edge][:, None] * (np.arange(classes) != known[other][:, None])
                all_labels, energy = energies(own, along[chain])
                assert tuple(all_labels[energy.argmin()]) == tuple(found[chain])


def test_equals_are_settled_the_same_way(backend):
    device = agreement.device_of(backend)
    unary, labels = torch.zeros(1, 3, 2, 6, device=device), torch.zeros(1, 2, 6, dtype=torch.uint8, device=device)
    edges = Edges(torch.zeros(1, 2, 5, device=device), torch.zeros(1, 1, 6, device=device))
    unary[0, 2, :, 5] = -1  # a last node that wants class 2, and nothing that speaks against it before
    potts_chains.relabel(unary, edges, labels, "rows", 0, backend=backend)
    assert labels.tolist() == [[[2, 2, 2, 2, 2, 2], [0, 0, 0, 0, 0, 0]]]
    shared = torch.ones(1, 2, 6, dtype=torch.uint8, device=device)
    potts_chains.hand_over(unary * 0, unary * 0, edges, "columns", labels=shared, backend=backend)
    assert not shared.any()


@pytest.mark.parametrize("axis", AXES)
def test_minima_are_those_of_float64(backend, axis):
    device = agreement.device_of(backend)
    for shape in ((2, 3, 5, 9), (1, 21, 40, 30), (1, 1, 1, 1)):
        random = Random(1)
        unary, rows = (calls.uniform(random, *shape) for _ in range(2))
        edges = Edges(*(calls.uniform(random, *size) for size in sizes(shape)))
        given = unary.to(device), rows.to(device), Edges(*(each.to(device) for each in edges))
        found = potts_chains.minimum(*given, axis, backend=backend).cpu()
        owned = unary.double() - rows.double() if axis == "columns" else rows.double()
        owned, weight = (owned.mT, edges.below.mT) if axis == "columns" else (owned, edges.right)
        for image, chain in itertools.product(range(shape[0]), range(owned.shape[2])):
            cost = owned[image, :, chain].T.numpy()
            marginals = chain_marginals(cost, weight[image, chain].double().numpy())
            assert abs(marginals[0].min() - found[image, chain]) <= 1e-12 * owned[image, :, chain].abs().sum()


def sizes(shape):
    batch, _, height, width = shape
    return (batch, height, width - 1), (batch, height - 1, width)


def test_agrees_with_float64(fast):
    shapes = (*calls.SHAPES, calls.MANY_CLASSES, (1, 12, 33, 70), (1, 2, 3, 100), (1, 5, 100, 17))
    agreement.check(SHARE, fast, calls.cases("potts_share", shapes, axis=AXES))


UNARY = torch.zeros(1, 3, 4, 6)
EDGES = Edges(torch.zeros(1, 4, 5), torch.zeros(1, 3, 6))
LABELS = torch.zeros(1, 4, 6, dtype=torch.uint8)
BAD = {
    "edges": (
        lambda: potts_chains.hand_over(UNARY, UNARY.clone(), Edges(EDGES.below, EDGES.below), "rows"),
        "potts_chains.hand_over, edges.right: found (1, 3, 6), torch.float32, expected (1, 4, 5), torch.float32; "
        "give one for each edge",
    ),
    "dtype": (
        lambda: potts_chains.minimum(UNARY, UNARY, Edges(EDGES.right, EDGES.below.double()), "rows"),
        "potts_chains.minimum, edges.below: found (1, 3, 6), torch.float64, expected (1, 3, 6), torch.float32; "
        "give one for each edge",
    ),
    "rows": (
        lambda: potts_chains.hand_over(UNARY, UNARY[:, :2].clone(), EDGES, "rows"),
        "potts_chains.hand_over, rows: found (1, 2, 4, 6), torch.float32, expected (1, 3, 4, 6), torch.float32, "
        "contiguous; copy the unary",
    ),
    "strided rows": (
        lambda: potts_chains.hand_over(UNARY, UNARY.mT.contiguous().mT, EDGES, "rows"),
        "potts_chains.hand_over, rows: found (1, 3, 4, 6), torch.float32, strided, expected (1, 3, 4, 6), "
        "torch.float32, contiguous; copy the unary",
    ),
    "labels": (
        lambda: potts_chains.relabel(UNARY, EDGES, LABELS.long(), "rows", 0),
        "potts_chains.relabel, labels: found (1, 4, 6), torch.int64, expected (1, 4, 6), torch.uint8, contiguous; "
        "give one label for each pixel",
    ),
    "classes": (
        lambda: potts_chains.minimum(torch.zeros(1, 257, 1, 1), UNARY, EDGES, "rows"),
        "potts_chains.minimum, unary: found 257 classes, expected 256 at most; merge classes",
    ),
    "empty": (
        lambda: potts_chains.minimum(UNARY[:, :, :0], UNARY, EDGES, "rows"),
        "potts_chains.minimum, unary: found the shape (1, 3, 0, 6), expected (B, C, H, W), none of them 0; "
        "add or fill the axis",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_one_line(name):
    function, message = BAD[name]
    assert refusal(function) == message


def test_a_gradient_is_refused():
    with pytest.raises(BackendError, match="a tensor that needs a gradient"):
        potts_chains.hand_over(UNARY.clone().requires_grad_(), UNARY.clone(), EDGES, "rows")


def test_256_classes(backend):
    device = agreement.device_of(backend)
    shape = (1, 256, 5, 7)
    random = Random(0)
    unary = calls.uniform(random, *shape).to(device)
    edges = Edges(*(torch.zeros(size, device=device) for size in sizes(shape)))
    labels = torch.zeros(1, 5, 7, dtype=torch.uint8, device=device)
    potts_chains.hand_over(unary, unary * 0, edges, "columns", labels=labels, backend=backend)
    assert torch.equal(labels.long(), unary.argmin(dim=1))
