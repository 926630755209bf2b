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
    gains = np.full(row, gain(lattice))
    _slice(blurred, width, left, gains, cells, weights, blocks, first_entries, lattice.vertices, out)


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
def _splat_row(sent, size, right, there, own, cells, weights, pixel, corners, base):
    row = own.shape[1]
    # Two registers share what they read of a corner.
    for first in range(0, row - WIDTH, 2 * WIDTH):
        for lane in range(size):
            share = at(right, there + lane)
            one = share * load(sent, lane * row + first)
            two = share * load(sent, lane * row + first + WIDTH)
            for corner in range((pixel + lane) * corners, (pixel + lane + 1) * corners):
                weight, here = at(weights, corner), (base + np.int64(at(cells, corner))) * row + first
                store(own, here, load(own, here) + weight * one)
                store(own, here + WIDTH, load(own, here + WIDTH) + weight * two)
    if row % (2 * WIDTH) > 0:
        last = row - WIDTH
        for lane in range(size):
            one = at(right, there + lane) * load(sent, lane * row + last)
            for corner in range((pixel + lane) * corners, (pixel + lane + 1) * corners):
                weight, here = at(weights, corner), (base + np.int64(at(cells, corner))) * row + last
                store(own, here, load(own, here) + weight * one)


@kernel()
def splat_row(sent, size, right, there, own, cells, weights, pixel, base):
    """Add some neighbouring pixels' rows of `sent` (SIDE, ·), times `right`, to the vertices around them.

    `there` is the first one's place in the image, `pixel` that in `cells` and `weights`; the vertices of their block
    stand in `own` from `base` on.
    """
    # Colour with place, and place alone: the compiler unrolls loops whose length it knows.
    if cells.shape[1] == 6:
        _splat_row(sent, size, right, there, own, cells, weights, pixel, 6, base)
    elif cells.shape[1] == 3:
        _splat_row(sent, size, right, there, own, cells, weights, pixel, 3, base)
    else:
        _splat_row(sent, size, right, there, own, cells, weights, pixel, cells.shape[1], base)


@njit(inline="always")
def _slice_row(own, cells, weights, pixel, corners, left, there, size, gains, out):
    row = own.shape[1]
    for first in range(0, row - WIDTH, 2 * WIDTH):
        for lane in range(size):
            one, two = spread(float32(0)), spread(float32(0))
            for corner in range((pixel + lane) * corners, (pixel + lane + 1) * corners):
                weight, here = at(weights, corner), np.int64(at(cells, corner)) * row + first
                one += weight * load(own, here)
                two += weight * load(own, here + WIDTH)
            share, here = at(left, there + lane), lane * row + first
            store(out, here, load(out, here) + load(gains, first) * (share * one))
            here += WIDTH
            store(out, here, load(out, here) + load(gains, first + WIDTH) * (share * two))
    if row % (2 * WIDTH) > 0:
        last = row - WIDTH
        for lane in range(size):
            one = spread(float32(0))
            for corner in range((pixel + lane) * corners, (pixel + lane + 1) * corners):
                one += at(weights, corner) * load(own, np.int64(at(cells, corner)) * row + last)
            here = lane * row + last
            store(out, here, load(out, here) + load(gains, last) * (at(left, there + lane) * one))


@kernel()
def slice_row(own, cells, weights, pixel, left, there, size, gains, out):
    """Read some neighbouring pixels' rows from the vertices around them, those of their block side by side in `own`.

    Times `left` and, class by class, `gains`, they are added to out (SIDE, ·).
    """
    if cells.shape[1] == 6:
        _slice_row(own, cells, weights, pixel, 6, left, there, size, gains, out)
    elif cells.shape[1] == 3:
        _slice_row(own, cells, weights, pixel, 3, left, there, size, gains, out)
    else:
        _slice_row(own, cells, weights, pixel, cells.shape[1], left, there, size, gains, out)


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
            splat_row(sent, size, right, there, own, cells, weights, pixel, base)


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
def _slice(values, width, left, gains, cells, weights, blocks, first_entries, vertices, out):
    for number in prange(blocks.shape[0]):
        start, first_row, last_row, first_col, last_col = blocks[number]
        size = last_col - first_col
        own = side_by_side(values, vertices, first_entries[number], first_entries[number + 1])
        got = np.empty((SIDE, gains.size), np.float32)
        for row in range(first_row, last_row):
            there, pixel = row * width + first_col, start + (row - first_row) * size
            got[:] = 0
            slice_row(own, cells, weights, pixel, left, there, size, gains, got)
            to_planes(got, there, size, out)
