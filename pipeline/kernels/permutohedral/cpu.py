"""The fast CPU path, in Numba: splat, blur and slice, block by block; `cpu_lattice` says what a block is."""

import numpy as np
from numba import float32, njit, prange

from pipeline.kernels.dispatch import image_by_image
from pipeline.kernels.permutohedral.cpu_lattice import SIDE
from pipeline.kernels.permutohedral.cpu_lattice import build as build
from pipeline.kernels.simd import WIDTH, at, kernel, load, read, spread, store, transposed, write


@image_by_image
def filtered(values, lattice, left, right, transposed, out):
    """Splat, blur and slice `values` (C, H, W) into `out` (C, H, W), both float32 and contiguous.

    `right` and `left` (N,) float32 multiply what is splatted and what is sliced.
    """
    width = values.shape[2]
    values, out = (planes.reshape(len(planes), -1) for planes in (values, out))
    # Vertices hold their classes side by side, filled up to whole registers.
    row = -(-values.shape[0] // WIDTH) * WIDTH
    own = np.empty((lattice.entries.size, row), np.float32)
    vertices = np.zeros((2, lattice.starts.size, row), np.float32)
    cells, weights, blocks, first_entries = lattice[:4]
    _splat(values, width, right, cells, weights, blocks, first_entries, own)
    blurred = blur(own, lattice, vertices, transposed)[0]
    left = left * gain(lattice)
    _slice(blurred, width, left, cells, weights, blocks, first_entries, lattice.vertices, out)


def gain(lattice):
    """Return what scales the sums so that they are nearly those of a unit Gaussian."""
    return np.float32(1 / (1 + 2.0 ** (1 - lattice.cells.shape[1])))


def blur(own, lattice, vertices, transposed=False):
    """Join the blocks' sums (E, row) and blur them along every axis.

    `vertices` (2, V + 1, row) is room to work in, whose last row, the neighbour that is not there, holds 0; it is
    returned with the result first.
    """
    now, then = vertices
    _gather(own, lattice.starts, lattice.entries, now)
    axes = range(lattice.cells.shape[1])
    for axis in reversed(axes) if transposed else axes:
        _blur(now, lattice.neighbours, axis, then)
        now, then = then, now
    return now, then


@njit(inline="always")
def _plane(values, label, there, size):
    """Read eight pixels of one class; of a class that is not there, 0."""
    classes, pixels = values.shape
    if label < classes:
        return read(values, label * pixels + there, size)
    return spread(float32(0))


@njit(inline="always")
def to_rows(values, there, size, rows):
    """Write some neighbouring pixels of values (C, N), from `there` on, to rows (SIDE, ·): a row of classes a pixel.

    What fills up the rows is 0.
    """
    row = rows.shape[1]
    for lane in range(0, size, WIDTH):
        for label in range(0, row, WIDTH):
            a = _plane(values, label, there + lane, size - lane)
            b = _plane(values, label + 1, there + lane, size - lane)
            c = _plane(values, label + 2, there + lane, size - lane)
            d = _plane(values, label + 3, there + lane, size - lane)
            e = _plane(values, label + 4, there + lane, size - lane)
            f = _plane(values, label + 5, there + lane, size - lane)
            g = _plane(values, label + 6, there + lane, size - lane)
            h = _plane(values, label + 7, there + lane, size - lane)
            turned = transposed(a, b, c, d, e, f, g, h)
            for k in range(WIDTH):
                store(rows, (lane + k) * row + label, turned[k])


@njit(inline="always")
def to_planes(rows, there, size, out):
    """Write rows (SIDE, ·) to some neighbouring pixels of out (C, N), from `there` on."""
    (classes, pixels), row = out.shape, rows.shape[1]
    for lane in range(0, size, WIDTH):
        for label in range(0, classes, WIDTH):
            here = lane * row + label
            turned = transposed(
                load(rows, here), load(rows, here + row), load(rows, here + 2 * row), load(rows, here + 3 * row),
                load(rows, here + 4 * row), load(rows, here + 5 * row), load(rows, here + 6 * row),
                load(rows, here + 7 * row),
            )  # fmt: skip
            for k in range(min(WIDTH, classes - label)):
                write(out, (label + k) * pixels + there + lane, turned[k], size - lane)


@njit(inline="always")
def splat(sent, lane, share, own, cells, weights, pixel, base):
    """Add `share` of row `lane` of `sent` to the vertices around a pixel, those of its block from `base` on."""
    row, corners = own.shape[1], cells.shape[1]
    for corner in range(pixel * corners, pixel * corners + corners):
        weight = share * at(weights, corner)
        there = (base + np.int64(at(cells, corner))) * row
        for block in range(0, row, WIDTH):
            store(own, there + block, load(own, there + block) + weight * load(sent, lane * row + block))


@njit(inline="always")
def sliced(own, cells, weights, pixel, block):
    """Return eight classes of what the vertices around a pixel hold, those of its block side by side in `own`."""
    row, corners = own.shape[1], cells.shape[1]
    total = spread(float32(0))
    for corner in range(pixel * corners, pixel * corners + corners):
        total += at(weights, corner) * load(own, np.int64(at(cells, corner)) * row + block)
    return total


@njit(inline="always")
def side_by_side(values, vertices, first, stop):
    """Return the rows of a block's vertices, copied together."""
    own = np.empty((stop - first, values.shape[1]), np.float32)
    for entry in range(stop - first):
        own[entry] = values[vertices[first + entry]]
    return own


@kernel(parallel=True)
def _splat(values, width, right, cells, weights, blocks, first_entries, own):
    for number in prange(blocks.shape[0]):
        start, first_row, last_row, first_col, last_col = blocks[number]
        size, base = last_col - first_col, first_entries[number]
        own[base : first_entries[number + 1]] = 0
        sent = np.zeros((SIDE, own.shape[1]), np.float32)
        for row in range(first_row, last_row):
            there, pixel = row * width + first_col, start + (row - first_row) * size
            to_rows(values, there, size, sent)
            for lane in range(size):
                splat(sent, lane, at(right, there + lane), own, cells, weights, pixel + lane, base)


@kernel(parallel=True)
def _gather(own, starts, entries, values):
    """Sum each vertex's entries over the blocks."""
    width = own.shape[1]
    for vertex in prange(starts.size - 1):
        for block in range(0, width, WIDTH):
            total = spread(float32(0))
            for k in range(starts[vertex], starts[vertex + 1]):
                total += load(own, entries[k] * width + block)
            store(values, vertex * width + block, total)


@kernel(parallel=True)
def _blur(values, neighbours, axis, out):
    """Filter along one axis by (½, 1, ½)."""
    width = values.shape[1]
    for vertex in prange(neighbours.shape[0]):
        here = vertex * width
        after, before = np.int64(neighbours[vertex, axis, 0]) * width, np.int64(neighbours[vertex, axis, 1]) * width
        for block in range(0, width, WIDTH):
            both = load(values, after + block) + load(values, before + block)
            store(out, here + block, float32(0.5) * both + load(values, here + block))


@kernel(parallel=True)
def _slice(values, width, left, cells, weights, blocks, first_entries, vertices, out):
    row_size = values.shape[1]
    for number in prange(blocks.shape[0]):
        start, first_row, last_row, first_col, last_col = blocks[number]
        size = last_col - first_col
        own = side_by_side(values, vertices, first_entries[number], first_entries[number + 1])
        got = np.empty((SIDE, row_size), np.float32)
        for row in range(first_row, last_row):
            there, pixel = row * width + first_col, start + (row - first_row) * size
            for lane in range(size):
                for block in range(0, row_size, WIDTH):
                    total = sliced(own, cells, weights, pixel + lane, block)
                    store(got, lane * row_size + block, at(left, there + lane) * total)
            to_planes(got, there, size, out)
