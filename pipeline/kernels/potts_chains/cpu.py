"""The fast CPU path, in Numba: eight neighbouring chains at a time, one in each lane.

A block of eight chains is copied into scratch, where the lanes of one class at one node lie side by side, then those of
the next class, then those of the next node: (P, C, 8). Messages and handshakes then need nothing but whole registers.
"""

import numpy as np
from numba import float32, float64, njit, prange

from pipeline.kernels.dispatch import image_by_image
from pipeline.kernels.potts_chains.cpu_relabel import relabel
from pipeline.kernels.simd import WIDTH, kernel, largest, load, pick, read, smallest, spread, store, transposed, write

__all__ = ["hand_over", "minimum", "relabel"]

DEPTH = 40  # of the stack of segments: chains are shorter than 2 ** DEPTH


@image_by_image
@kernel(parallel=True)
def hand_over(unary, rows, weight, down, labels, minimum):
    """See the contract in the package: arrays (C, H, W), weight (H, W − 1) or (H − 1, W); labels (H, W) or (0, 0)."""
    classes, height, width = unary.shape
    nodes, chains = (height, width) if down else (width, height)
    for block in prange((chains + WIDTH - 1) // WIDTH):
        first = block * WIDTH
        count = min(WIDTH, chains - first)
        cost = np.empty(nodes * classes * WIDTH, np.float32)
        messages = np.empty((nodes + 1) * classes * WIDTH, np.float32)
        edges = np.zeros(nodes * WIDTH, np.float32)
        _gather(unary, rows, down, first, count, cost)
        _gather_edges(weight, down, first, count, edges)
        found = _share(cost, messages, edges, nodes, classes)
        for lane in range(count):
            minimum[first + lane] = found[lane]
        if labels.size:
            _label(cost, down, first, count, nodes, classes, labels)
        _scatter(cost, down, first, count, rows)


@njit
def _share(cost, messages, edges, nodes, classes):
    """Turn the costs of eight chains into their shares; return their minima."""
    total = np.zeros(WIDTH, np.float64)
    part = np.empty(WIDTH, np.float32)
    size = classes * WIDTH
    if nodes > 1:
        middle = (nodes - 1) // 2
        _clear(messages, 0, size)
        _clear(messages, (nodes - 1) * size, size)
        for node in range(middle):
            store(part, 0, _message(cost, messages, edges, node, node, node + 1, classes))
            _add(total, part)
        for node in range(nodes - 1, middle + 1, -1):
            store(part, 0, _message(cost, messages, edges, node - 1, node, node - 1, classes))
            _add(total, part)
        _cut(cost, messages, edges, nodes, classes, total, part)
    for node in range(nodes):
        low = _least(cost, node * size, classes)
        for k in range(node * size, (node + 1) * size, WIDTH):
            store(cost, k, load(cost, k) - low)
        if nodes == 1:
            store(part, 0, low)
            _add(total, part)
    return total


@njit
def _cut(cost, messages, edges, nodes, classes, total, part):
    """Cut segment after segment in two, from the whole chains on, until every node stands alone."""
    size = classes * WIDTH
    starts, ends = np.empty(DEPTH, np.int64), np.empty(DEPTH, np.int64)
    starts[0], ends[0], depth = 0, nodes, 1
    while depth:
        depth -= 1
        start, end = starts[depth], ends[depth]
        middle = (start + end - 1) // 2
        share = float32((middle + 1 - start) / (end - start))
        left, right = _handshake(cost, messages, edges, middle, share, classes, end - start == 2)
        if end - start == nodes:
            store(part, 0, left)
            _add(total, part)
            store(part, 0, right)
            _add(total, part)
        # Messages from the outer ends are still right; those from the cut begin anew. Both sides take turns, so that
        # the processor always has one to work on while it waits for the other.
        if middle - start > 1:
            _clear(messages, middle * size, size)
        if end - middle > 3:
            _clear(messages, (middle + 1) * size, size)
        back, forth = middle, middle + 1
        last_back, last_forth = (start + middle) // 2 + 1, (middle + end) // 2
        while back > last_back and forth < last_forth:
            _message(cost, messages, edges, back - 1, back, back - 1, classes)
            _message(cost, messages, edges, forth, forth, forth + 1, classes)
            back, forth = back - 1, forth + 1
        if back > last_back:
            _message(cost, messages, edges, back - 1, back, back - 1, classes)
        if forth < last_forth:
            _message(cost, messages, edges, forth, forth, forth + 1, classes)
        if end - middle > 2:
            starts[depth], ends[depth], depth = middle + 1, end, depth + 1
        if middle - start > 0:
            starts[depth], ends[depth], depth = start, middle + 1, depth + 1


@njit(forceinline=True)
def _message(cost, messages, edges, edge, node, to, classes):
    """Send a message over an edge: min(h − min h, w), h what the node's labels cost so far. Return min h."""
    size = classes * WIDTH
    at, there, weight = node * size, to * size, load(edges, edge * WIDTH)
    low = load(cost, at) + load(messages, at)
    other = low
    for k in range(WIDTH, size - WIDTH, 2 * WIDTH):
        low = smallest(low, load(cost, at + k) + load(messages, at + k))
        other = smallest(other, load(cost, at + k + WIDTH) + load(messages, at + k + WIDTH))
    k = at + size - WIDTH
    low = smallest(smallest(low, other), load(cost, k) + load(messages, k))
    for k in range(0, size, WIDTH):
        store(messages, there + k, smallest(load(cost, at + k) + load(messages, at + k) - low, weight))
    return low


@njit(forceinline=True)
def _handshake(cost, messages, edges, node, share, classes, pair):
    """Replace the edge after a node by what each of its ends is to pay: `share` of it stays on the left.

    A pair is two nodes by themselves, which no message has reached. Returns the minimum of what is right of the edge,
    and of the whole seen from it.
    """
    size = classes * WIDTH
    at, right, weight = node * size, (node + 1) * size, load(edges, node * WIDTH)
    low = _so_far(cost, messages, right, pair)
    for k in range(right + WIDTH, right + size, WIDTH):
        low = smallest(low, _so_far(cost, messages, k, pair))
    whole = spread(float32(np.inf))
    rest = whole
    for k in range(0, size, WIDTH):
        mine = _so_far(cost, messages, at + k, pair)
        marginal = mine + smallest(_so_far(cost, messages, right + k, pair) - low, weight)
        whole = smallest(whole, marginal)
        given = mine - share * marginal
        rest = smallest(rest, given)
        store(messages, at + k, given)  # the node's messages are not read again
    most = spread(float32(0))
    for k in range(0, size, WIDTH):
        to_right = smallest(load(messages, at + k) - rest, weight)
        most = largest(most, to_right)
        store(messages, at + k, to_right)
    for k in range(0, size, WIDTH):
        to_right = load(messages, at + k)
        store(cost, right + k, load(cost, right + k) + to_right)
        store(cost, at + k, load(cost, at + k) + (most - to_right))
    return low, whole


@njit(inline="always")
def _so_far(cost, messages, at, pair):
    """Return what labels cost with all that lies beyond their node."""
    if pair:
        return load(cost, at)
    return load(cost, at) + load(messages, at)


@njit
def _least(values, at, classes):
    low = load(values, at)
    for k in range(at + WIDTH, at + classes * WIDTH, WIDTH):
        low = smallest(low, load(values, k))
    return low


@njit
def _clear(values, at, size):
    for k in range(at, at + size, WIDTH):
        store(values, k, spread(float32(0)))


@njit
def _add(total, part):
    for lane in range(WIDTH):
        total[lane] += part[lane]


@njit
def _gather(unary, rows, down, first, count, cost):
    """Copy eight chains: of rows what they own, of columns what the rows do not."""
    classes, height, width = unary.shape
    size = classes * WIDTH
    for k in range(classes):
        plane = k * height * width
        if down:
            for row in range(height):
                at = plane + row * width + first
                store(cost, row * size + k * WIDTH, read(unary, at, count) - read(rows, at, count))
        else:
            for col in range(0, width, WIDTH):
                _put(cost, k, size, col, width, _square(rows, plane, first, count, col, width))


@njit
def _square(values, plane, first, count, col, width):
    """Read eight rows' eight columns and return them column by column; rows there are `count` of."""
    size = min(WIDTH, width - col)
    at = plane + first * width + col
    nothing = spread(float32(0))
    a = read(values, at, size)
    b = read(values, at + width, size) if count > 1 else nothing
    c = read(values, at + 2 * width, size) if count > 2 else nothing
    d = read(values, at + 3 * width, size) if count > 3 else nothing
    e = read(values, at + 4 * width, size) if count > 4 else nothing
    f = read(values, at + 5 * width, size) if count > 5 else nothing
    g = read(values, at + 6 * width, size) if count > 6 else nothing
    h = read(values, at + 7 * width, size) if count > 7 else nothing
    return transposed(a, b, c, d, e, f, g, h)


@njit
def _put(cost, k, size, node, nodes, square):
    for step in range(min(WIDTH, nodes - node)):
        store(cost, (node + step) * size + k * WIDTH, square[step])


@njit
def _gather_edges(weight, down, first, count, edges):
    height, width = weight.shape
    if down:
        for row in range(height):
            store(edges, row * WIDTH, read(weight, row * width + first, count))
    else:
        for lane in range(count):
            for col in range(width):
                edges[col * WIDTH + lane] = weight[first + lane, col]


@njit
def _scatter(cost, down, first, count, rows):
    """Take the shares of rows from what rows own; give them those of columns."""
    classes, height, width = rows.shape
    size = classes * WIDTH
    for k in range(classes):
        plane = k * height * width
        if down:
            for row in range(height):
                at = plane + row * width + first
                write(rows, at, read(rows, at, count) + load(cost, row * size + k * WIDTH), count)
        else:
            for col in range(0, width, WIDTH):
                part = min(WIDTH, width - col)
                square = _taken(cost, k, size, col, width)
                for lane in range(count):
                    at = plane + (first + lane) * width + col
                    write(rows, at, read(rows, at, part) - square[lane], part)


@njit
def _taken(cost, k, size, node, nodes):
    """Read eight nodes' lanes of one class and return them lane by lane."""
    at, last = node * size + k * WIDTH, nodes - node
    nothing = spread(float32(0))
    a = load(cost, at)
    b = load(cost, at + size) if last > 1 else nothing
    c = load(cost, at + 2 * size) if last > 2 else nothing
    d = load(cost, at + 3 * size) if last > 3 else nothing
    e = load(cost, at + 4 * size) if last > 4 else nothing
    f = load(cost, at + 5 * size) if last > 5 else nothing
    g = load(cost, at + 6 * size) if last > 6 else nothing
    h = load(cost, at + 7 * size) if last > 7 else nothing
    return transposed(a, b, c, d, e, f, g, h)


@njit
def _label(shares, down, first, count, nodes, classes, labels):
    """Write the label of the least share of every node, the lowest of equals."""
    size = classes * WIDTH
    found = np.empty(WIDTH, np.float32)
    for node in range(nodes):
        low, best = load(shares, node * size), spread(float32(0))
        for k in range(1, classes):
            value = load(shares, node * size + k * WIDTH)
            best = pick(value, low, spread(float32(k)), best)
            low = smallest(value, low)
        store(found, 0, best)
        for lane in range(count):
            if down:
                labels[node, first + lane] = np.uint8(found[lane])
            else:
                labels[first + lane, node] = np.uint8(found[lane])


@image_by_image
@kernel(parallel=True)
def minimum(unary, rows, weight, down, minima):
    """See the contract in the package; float64 throughout."""
    classes, height, width = unary.shape
    nodes, chains = (height, width) if down else (width, height)
    for block in prange((chains + WIDTH - 1) // WIDTH):
        first = block * WIDTH
        count = min(WIDTH, chains - first)
        cost, message = np.zeros((classes, WIDTH), np.float64), np.zeros((classes, WIDTH), np.float64)
        low, edge, total = np.empty(WIDTH, np.float64), np.zeros(WIDTH, np.float64), np.zeros(WIDTH, np.float64)
        for node in range(nodes):
            if down:
                for k in range(classes):
                    owned, whole = rows[k, node, first : first + count], unary[k, node, first : first + count]
                    for lane in range(count):
                        cost[k, lane] = float64(whole[lane]) - float64(owned[lane])
            else:
                for k in range(classes):
                    for lane in range(count):
                        cost[k, lane] = rows[k, first + lane, node]
            low[:] = np.inf
            for k in range(classes):
                own, before = cost[k], message[k]
                for lane in range(WIDTH):
                    own[lane] += before[lane]
                    low[lane] = min(low[lane], own[lane])
            for lane in range(count):
                total[lane] += low[lane]
            if node + 1 < nodes:
                for lane in range(count):
                    edge[lane] = weight[node, first + lane] if down else weight[first + lane, node]
                for k in range(classes):
                    own, after = cost[k], message[k]
                    for lane in range(WIDTH):
                        after[lane] = min(own[lane] - low[lane], edge[lane])
        for lane in range(count):
            minima[first + lane] = total[lane]
