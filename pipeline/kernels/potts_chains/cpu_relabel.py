"""The fast CPU path of relabelling: every second chain anew, eight of them at a time, one in each lane."""

import numpy as np
from numba import float32, njit, prange

from pipeline.kernels.dispatch import image_by_image
from pipeline.kernels.simd import WIDTH, kernel, load, pick, smallest, spread, store


@image_by_image
@kernel(parallel=True)
def relabel(unary, weight, across, down, first, labels):
    """See the contract in the package; eight chains of the same parity at a time."""
    classes, height, width = unary.shape
    nodes, chains = (height, width) if down else (width, height)
    size = classes * WIDTH
    members = (chains - first + 1) // 2
    for block in prange((members + WIDTH - 1) // WIDTH):
        start = first + 2 * WIDTH * block
        count = min(WIDTH, members - WIDTH * block)
        cost, edges = np.zeros(nodes * size, np.float32), np.zeros(nodes * WIDTH, np.float32)
        lows, bests = np.empty(nodes * WIDTH, np.float32), np.empty(nodes * WIDTH, np.float32)
        for lane in range(count):
            chain = start + 2 * lane
            _gather_chain(unary, weight, across, down, chain, lane, labels, cost, edges)
        for node in range(nodes):
            _step(cost, edges, node, classes, lows, bests)
        for lane in range(count):
            chain = start + 2 * lane
            label = int(bests[(nodes - 1) * WIDTH + lane])
            for node in range(nodes - 1, -1, -1):
                at = node * WIDTH + lane
                # Of equals the label of the next node, so that borders are not longer than they need be.
                if node + 1 < nodes and not cost[node * size + label * WIDTH + lane] - lows[at] <= edges[at]:
                    label = int(bests[at])
                if down:
                    labels[node, chain] = label
                else:
                    labels[chain, node] = label


@njit
def _gather_chain(unary, weight, across, down, chain, lane, labels, cost, edges):
    """Copy a chain into its lane; the labels of its neighbours get the discount of their edges."""
    classes, height, width = unary.shape
    size = classes * WIDTH
    nodes, chains = (height, width) if down else (width, height)
    for k in range(classes):
        for node in range(nodes):
            cost[node * size + k * WIDTH + lane] = unary[k, node, chain] if down else unary[k, chain, node]
    for node in range(nodes):
        at = node * size + lane
        if chain > 0:
            label = labels[node, chain - 1] if down else labels[chain - 1, node]
            cost[at + label * WIDTH] -= across[node, chain - 1] if down else across[chain - 1, node]
        if chain + 1 < chains:
            label = labels[node, chain + 1] if down else labels[chain + 1, node]
            cost[at + label * WIDTH] -= across[node, chain] if down else across[chain, node]
        if node + 1 < nodes:
            edges[node * WIDTH + lane] = weight[node, chain] if down else weight[chain, node]


@njit
def _step(cost, edges, node, classes, lows, bests):
    """Add to a node's costs what the nodes before it cost; keep their minimum and its label, the lowest of equals."""
    size = classes * WIDTH
    at = node * size
    before, after = spread(float32(0)), spread(float32(0))
    if node > 0:
        before, after = load(lows, (node - 1) * WIDTH), load(edges, (node - 1) * WIDTH)
    low, best = spread(float32(np.inf)), spread(float32(0))
    for k in range(classes):
        value = load(cost, at + k * WIDTH)
        if node > 0:
            value = value + smallest(load(cost, at - size + k * WIDTH) - before, after)
            store(cost, at + k * WIDTH, value)
        best = pick(value, low, spread(float32(k)), best)
        low = smallest(value, low)
    store(lows, node * WIDTH, low)
    store(bests, node * WIDTH, best)
