"""The fast CPU path, in Numba: Q is never stored.

What passes from one iteration to the next are the values of both lattices' vertices. For a few pixels at a time, both
messages are sliced, the unary added, the softmax taken and its result splatted, all in the cache.
"""

import numpy as np
from numba import prange

from pipeline.kernels.dispatch import image_by_image
from pipeline.kernels.permutohedral.cpu import SIDE, blur, gain, side_by_side, slice_row, splat_row, to_planes, to_rows
from pipeline.kernels.simd import WIDTH, kernel, load, read, store, write
from pipeline.kernels.softmax import softmax


@image_by_image
def lattice_mean_field(unary, lattices, scales, weights, iterations, out):
    """unary and out (C, H, W), two Lattices, scales ((left, right), (left, right)) of (N,), weights (2, C)."""
    width = unary.shape[2]
    unary, out = (planes.reshape(len(planes), -1) for planes in (unary, out))
    row = -(-unary.shape[0] // WIDTH) * WIDTH
    gains = np.zeros((2, row), np.float32)
    gains[:, : unary.shape[0]] = weights * np.array([[gain(lattice)] for lattice in lattices])
    own = [np.empty((lattice.entries.size, row), np.float32) for lattice in lattices]
    vertices = [np.zeros((2, lattice.starts.size, row), np.float32) for lattice in lattices]
    for step in range(iterations + 1):
        places = [
            (lattice.cells, lattice.weights, lattice.first_entries, lattice.vertices, *sides, values[0], sums)
            for lattice, sides, values, sums in zip(lattices, scales, vertices, own, strict=True)
        ]
        _pass(unary, width, step > 0, step == iterations, gains, lattices[0].blocks, *places[0], *places[1], out)
        if step < iterations:
            vertices = [blur(*each) for each in zip(own, lattices, vertices, strict=True)]


@kernel(parallel=True)
def _pass(
    unary, width, receives, ends, gains, blocks,
    a_cells, a_weights, a_entries, a_vertices, a_left, a_right, a_values, a_sums,
    b_cells, b_weights, b_entries, b_vertices, b_left, b_right, b_values, b_sums,
    out,
):  # fmt: skip
    """Slice (if it `receives`), add the unary, then either write the scores (if it `ends`) or softmax and splat."""
    row_size = gains.shape[1]
    for number in prange(blocks.shape[0]):
        start, first_row, last_row, first_col, last_col = blocks[number]
        size, a_base, b_base = last_col - first_col, a_entries[number], b_entries[number]
        a_own = side_by_side(a_values, a_vertices, a_base, a_entries[number + 1])
        b_own = side_by_side(b_values, b_vertices, b_base, b_entries[number + 1])
        a_sums[a_base : a_entries[number + 1]] = 0
        b_sums[b_base : b_entries[number + 1]] = 0
        scores = np.empty((unary.shape[0], SIDE), np.float32)
        rows = np.empty((SIDE, row_size), np.float32)
        for row in range(first_row, last_row):
            there, pixel = row * width + first_col, start + (row - first_row) * size
            if receives:
                rows[:] = 0
                slice_row(a_own, a_cells, a_weights, pixel, a_left, there, size, gains[0], rows)
                slice_row(b_own, b_cells, b_weights, pixel, b_left, there, size, gains[1], rows)
                to_planes(rows, 0, size, scores)
            else:
                scores[:] = 0
            for label in range(unary.shape[0]):
                for lane in range(0, size, WIDTH):
                    here = label * unary.shape[1] + there + lane
                    score = load(scores, label * SIDE + lane) + read(unary, here, size - lane)
                    if ends:
                        write(out, here, score, size - lane)
                    else:
                        store(scores, label * SIDE + lane, score)
            if not ends:
                for lane in range(0, size, WIDTH):
                    softmax(scores, lane)
                to_rows(scores, 0, size, rows)
                splat_row(rows, size, a_right, there, a_sums, a_cells, a_weights, pixel, a_base)
                splat_row(rows, size, b_right, there, b_sums, b_cells, b_weights, pixel, b_base)
