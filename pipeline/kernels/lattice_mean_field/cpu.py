"""The fast CPU path, in Numba: Q is never stored.

What passes from one iteration to the next are the values of both lattices' vertices. For a few pixels at a time, both
messages are sliced, the unary added, the softmax taken and its result splatted, all in the cache.

Several settings of the weights lie side by side in a vertex's row, as many as keep the rows of a block in the cache.
At first all have the same Q: it is splatted and blurred once.
"""

import numpy as np
from numba import prange

from pipeline.kernels.dispatch import image_by_image
from pipeline.kernels.permutohedral.cpu import SIDE, blur, gain, side_by_side, slice_row, splat_row, to_planes, to_rows
from pipeline.kernels.simd import WIDTH, kernel, load, read, store, write
from pipeline.kernels.softmax import softmax

TOGETHER = 72  # numbers in a vertex's row, at most, where there are several settings; measured


@image_by_image
def lattice_mean_field(unary, lattices, scales, weights, iterations, out):
    """As the contract; unary (C, H, W), scales ((left, right), (left, right)) of (N,), weights (S, 2, C)."""
    classes, width = len(unary), unary.shape[2]
    if iterations == 0:
        out[:] = unary
        return
    unary, out = unary.reshape(classes, -1), out.reshape(len(out), classes, -1)
    row = -(-classes // WIDTH) * WIDTH
    gains = np.zeros((len(out), 2, row), np.float32)
    gains[:, :, :classes] = weights * np.array([[gain(lattice)] for lattice in lattices])
    own, room = _room(lattices, row)
    _pass(unary, width, False, False, gains[:1], lattices[0].blocks, *_places(lattices, scales, room, own), out)
    first = room = [blur(*each) for each in zip(own, lattices, room, strict=True)]
    together = max(1, TOGETHER // row)
    for start in range(0, len(out), together):
        part = slice(start, start + together)
        if len(out) > 1:  # what comes first is needed again
            own, room = _room(lattices, row * len(out[part]))
        values = first
        for step in range(1, iterations + 1):
            places = _places(lattices, scales, values, own)
            _pass(unary, width, True, step == iterations, gains[part], lattices[0].blocks, *places, out[part])
            if step < iterations:
                values = room = [blur(*each) for each in zip(own, lattices, room, strict=True)]


def _room(lattices, row):
    """Return room for the blocks' sums and, twice, for the vertices' values, of both lattices."""
    own = [np.empty((lattice.entries.size, row), np.float32) for lattice in lattices]
    return own, [np.zeros((2, lattice.starts.size, row), np.float32) for lattice in lattices]


def _places(lattices, scales, vertices, own):
    """Yield what `_pass` takes of each lattice."""
    for lattice, sides, values, sums in zip(lattices, scales, vertices, own, strict=True):
        yield from (lattice.cells, lattice.weights, lattice.first_entries, lattice.vertices, *sides, values[0], sums)


@kernel(parallel=True)
def _pass(
    unary, width, receives, ends, gains, blocks,
    a_cells, a_weights, a_entries, a_vertices, a_left, a_right, a_values, a_sums,
    b_cells, b_weights, b_entries, b_vertices, b_left, b_right, b_values, b_sums,
    out,
):  # fmt: skip
    """Slice (if it `receives`), add the unary, then either write the scores (if it `ends`) or softmax and splat.

    unary (C, N), gains (S, 2, row), out (S, C, N). The values received are one setting's, for all, or those of S.
    """
    (classes, pixels), (settings, _, row_size) = unary.shape, gains.shape
    both = np.empty((2, settings * row_size), np.float32)
    for setting in range(settings):
        both[:, setting * row_size : (setting + 1) * row_size] = gains[setting]
    shared = a_values.shape[1] < both.shape[1]
    for number in prange(blocks.shape[0]):
        start, first_row, last_row, first_col, last_col = blocks[number]
        size, a_base, b_base = last_col - first_col, a_entries[number], b_entries[number]
        a_own = side_by_side(a_values, a_vertices, a_base, a_entries[number + 1])
        b_own = side_by_side(b_values, b_vertices, b_base, b_entries[number + 1])
        a_sums[a_base : a_entries[number + 1]] = 0
        b_sums[b_base : b_entries[number + 1]] = 0
        scores = np.zeros((settings * row_size, SIDE), np.float32)
        rows = np.empty((SIDE, settings * row_size), np.float32)
        one = np.empty((SIDE, row_size), np.float32)
        for row in range(first_row, last_row):
            there, pixel = row * width + first_col, start + (row - first_row) * size
            if receives and shared:
                for setting in range(settings):
                    one[:] = 0
                    slice_row(a_own, a_cells, a_weights, pixel, a_left, there, size, gains[setting, 0], one)
                    slice_row(b_own, b_cells, b_weights, pixel, b_left, there, size, gains[setting, 1], one)
                    to_planes(one, 0, size, scores[setting * row_size : (setting + 1) * row_size])
            elif receives:
                rows[:] = 0
                slice_row(a_own, a_cells, a_weights, pixel, a_left, there, size, both[0], rows)
                slice_row(b_own, b_cells, b_weights, pixel, b_left, there, size, both[1], rows)
                to_planes(rows, 0, size, scores)
            else:
                scores[:] = 0
            for setting in range(settings):
                for label in range(classes):
                    for lane in range(0, size, WIDTH):
                        mine = (setting * row_size + label) * SIDE + lane
                        here = label * pixels + there + lane
                        score = load(scores, mine) + read(unary, here, size - lane)
                        if ends:
                            write(out, setting * classes * pixels + here, score, size - lane)
                        else:
                            store(scores, mine, score)
                if not ends:
                    for lane in range(0, size, WIDTH):
                        softmax(scores[setting * row_size : setting * row_size + classes], lane)
            if not ends:
                to_rows(scores, 0, size, rows)
                splat_row(rows, size, a_right, there, a_sums, a_cells, a_weights, pixel, a_base)
                splat_row(rows, size, b_right, there, b_sums, b_cells, b_weights, pixel, b_base)
