"""The fast CPU path, in Numba: Q is never stored.

What passes from one iteration to the next are the values of both lattices' vertices. For a few pixels at a time, both
messages are sliced, the unary added, the softmax taken and its result splatted, all in the cache.
"""

import numpy as np
from numba import float32, njit, prange

from pipeline.kernels.dispatch import image_by_image
from pipeline.kernels.permutohedral.cpu import SIDE, blur, gain, side_by_side, sliced, splat, to_planes, to_rows
from pipeline.kernels.simd import WIDTH, at, exp, kernel, largest, load, most, spread, store, total

NOTHING = -1e30  # score of the places that fill up a row of classes: their share is 0


@image_by_image
def lattice_mean_field(unary, lattices, scales, weights, iterations, out):
    """unary and out (C, H, W), two Lattices, scales ((left, right), (left, right)) of (N,), weights (2, C)."""
    width = unary.shape[2]
    unary, out = (planes.reshape(len(planes), -1) for planes in (unary, out))
    row = -(-unary.shape[0] // WIDTH) * WIDTH
    rows = np.zeros((2, row), np.float32)
    rows[:, : unary.shape[0]] = weights * np.array([[gain(lattice)] for lattice in lattices])
    own = [np.empty((lattice.entries.size, row), np.float32) for lattice in lattices]
    vertices = [np.zeros((2, lattice.starts.size, row), np.float32) for lattice in lattices]
    for step in range(iterations + 1):
        places = [
            (lattice.cells, lattice.weights, lattice.first_entries, lattice.vertices, *sides, values[0], sums)
            for lattice, sides, values, sums in zip(lattices, scales, vertices, own, strict=True)
        ]
        _pass(unary, width, step > 0, step == iterations, rows, lattices[0].blocks, *places[0], *places[1], out)
        if step < iterations:
            vertices = [blur(*each) for each in zip(own, lattices, vertices, strict=True)]


@njit(inline="always")
def _softmax(scores, lane, q):
    """Write the softmax of a row of scores to the same row of q."""
    row = q.shape[1]
    high = load(scores, lane * row)
    for block in range(WIDTH, row, WIDTH):
        high = largest(high, load(scores, lane * row + block))
    high = spread(most(high))
    sums = spread(float32(0))
    for block in range(0, row, WIDTH):
        power = exp(load(scores, lane * row + block) - high)
        sums += power
        store(q, lane * row + block, power)
    share = float32(1) / total(sums)
    for block in range(0, row, WIDTH):
        store(q, lane * row + block, share * load(q, lane * row + block))


@kernel(parallel=True)
def _pass(
    unary, width, receives, ends, rows, blocks,
    a_cells, a_weights, a_entries, a_vertices, a_left, a_right, a_values, a_sums,
    b_cells, b_weights, b_entries, b_vertices, b_left, b_right, b_values, b_sums,
    out,
):  # fmt: skip
    """Slice (if it `receives`), add the unary, then either write the scores (if it `ends`) or softmax and splat."""
    row_size = rows.shape[1]
    for number in prange(blocks.shape[0]):
        start, first_row, last_row, first_col, last_col = blocks[number]
        size, a_base, b_base = last_col - first_col, a_entries[number], b_entries[number]
        a_own = side_by_side(a_values, a_vertices, a_base, a_entries[number + 1])
        b_own = side_by_side(b_values, b_vertices, b_base, b_entries[number + 1])
        a_sums[a_base : a_entries[number + 1]] = 0
        b_sums[b_base : b_entries[number + 1]] = 0
        scores, q = np.empty((SIDE, row_size), np.float32), np.empty((SIDE, row_size), np.float32)
        for row in range(first_row, last_row):
            there, pixel = row * width + first_col, start + (row - first_row) * size
            to_rows(unary, there, size, scores, NOTHING)
            if receives:
                for lane in range(size):
                    for block in range(0, row_size, WIDTH):
                        a = load(rows, block) * sliced(a_own, a_cells, a_weights, pixel + lane, block)
                        b = load(rows, row_size + block) * sliced(b_own, b_cells, b_weights, pixel + lane, block)
                        both = at(a_left, there + lane) * a + at(b_left, there + lane) * b
                        store(scores, lane * row_size + block, load(scores, lane * row_size + block) + both)
            if ends:
                to_planes(scores, there, size, out)
            else:
                for lane in range(size):
                    _softmax(scores, lane, q)
                for lane in range(size):
                    splat(q, lane, at(a_right, there + lane), a_sums, a_cells, a_weights, pixel + lane, a_base)
                for lane in range(size):
                    splat(q, lane, at(b_right, there + lane), b_sums, b_cells, b_weights, pixel + lane, b_base)
