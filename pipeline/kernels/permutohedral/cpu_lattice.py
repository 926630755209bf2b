"""Where pixels lie on the lattice: the building part of the fast CPU path, in Numba.

The image is cut into blocks; each numbers the vertices it touches by itself, so that its table of values stays in the
processor's cache and blocks run in parallel without sharing a cell. A second numbering joins the blocks. Blocks depend
on the image's size alone: results do not depend on the number of threads.

What is kept per pixel lies in memory block by block, and within a block row by row.
"""

from typing import NamedTuple

import numpy as np
from numba import float32, njit, prange

from pipeline.kernels.dispatch import compiled
from pipeline.kernels.permutohedral import numbering
from pipeline.kernels.simd import WIDTH, kernel, load, nearest_whole, pick, read, spread, store

# Rows and columns of a block. Its vertices, up to nine a pixel, are numbered in 16 bits. One row of a block is what is
# turned from one plane per class to one row of classes per pixel at a time.
SIDE = 64
EMPTY = np.int64(-1)
# Odd, from the golden ratio: a multiplication spreads neighbouring keys over the table.
SPREAD = np.int64(-7046029254386353131)


class Lattice(NamedTuple):
    """One image's lattice; N pixels, d features, V vertices, E of them counted once per block."""

    cells: np.ndarray  # (N, d + 1) uint16: the pixel's vertices, numbered within its block
    weights: np.ndarray  # (N, d + 1) float32: its barycentric coordinates, which sum to 1
    blocks: np.ndarray  # (blocks, 5) int64: first pixel, first and last row, first and last column, the last excluded
    first_entries: np.ndarray  # (blocks + 1,) int64: first entry of each block
    vertices: np.ndarray  # (E,) int32: the entry's vertex
    starts: np.ndarray  # (V + 1,) int64: where the vertex's entries begin in `entries`
    entries: np.ndarray  # (E,) int32: entries by vertex, then by block
    neighbours: np.ndarray  # (V, d + 1, 2) int32: next and previous vertex along each axis; V where there is none


def build(features):
    """Place the pixels of every image: `features` (B, d, H, W) float32, contiguous; a list of lattices."""
    with compiled():
        return [_build(image.reshape(len(image), -1), image.shape[2]) for image in features.numpy()]


def _build(features, width):
    dimensions, pixels = features.shape
    scales = numbering.scales(dimensions)
    strides, lowest = numbering.numbering(*_extremes(features))
    blocks = _blocks(pixels // width, width)
    cells = np.empty((pixels, dimensions + 1), np.uint16)
    weights = np.empty((pixels, dimensions + 1), np.float32)
    keys = np.empty(pixels * (dimensions + 1), np.int64)  # each block fills the start of its part
    counts = _place(features, width, scales, strides, lowest, blocks, cells, weights, keys)
    first_entries = np.concatenate([[0], np.cumsum(counts)])
    vertices, starts, entries, neighbours = _join(keys, blocks, first_entries, strides)
    return Lattice(cells, weights, blocks, first_entries, vertices, starts, entries, neighbours)


def _blocks(height, width):
    found, first = [], 0
    for row in range(0, height, SIDE):
        for col in range(0, width, SIDE):
            last_row, last_col = min(row + SIDE, height), min(col + SIDE, width)
            found.append((first, row, last_row, col, last_col))
            first += (last_row - row) * (last_col - col)
    return np.array(found)


@kernel()
def _extremes(features):
    """Return the least and the largest value of every feature, (2, d)."""
    found = np.empty((2, features.shape[0]), np.float32)
    for axis in range(features.shape[0]):
        low = high = features[axis, 0]
        for pixel in range(features.shape[1]):
            low = min(low, features[axis, pixel])
            high = max(high, features[axis, pixel])
        found[0, axis], found[1, axis] = low, high
    return found


@kernel(parallel=True)
def _place(features, width, scales, strides, lowest, blocks, cells, weights, keys):
    """Find every pixel's simplex; return how many vertices each block touches."""
    counts = np.empty(blocks.shape[0], np.int64)
    for number in prange(blocks.shape[0]):
        counts[number] = _place_block(features, width, scales, strides, lowest, blocks[number], cells, weights, keys)
    return counts


@kernel()
def _place_block(features, width, scales, strides, lowest, block, cells, weights, keys):
    start, first_row, last_row, first_col, last_col = block
    size = last_col - first_col
    dimensions = features.shape[0]
    corners = dimensions + 1
    part = np.empty((corners, SIDE), np.float32)
    axes, nearest = np.empty((corners, SIDE), np.float32), np.empty((corners, SIDE), np.float32)
    offset = np.int64(0)
    for axis in range(dimensions):
        offset += strides[axis] * lowest[axis]
    # From one corner of a simplex to the next all coordinates rise by 1, but for one that falls by d.
    steps = strides.sum() - corners * strides
    table_keys, table_cells = np.full(1 << 10, EMPTY), np.empty(1 << 10, np.uint16)
    first_key = start * corners
    count = 0
    for row in range(first_row, last_row):
        _embed(features, scales, row * width + first_col, size, nearest, part, axes)
        for lane in range(size):
            pixel = start + (row - first_row) * size + lane
            key = -offset
            for axis in range(dimensions):
                key += strides[axis] * np.int64(nearest[axis, lane])
            if 2 * (count + corners) > table_keys.size:
                table_keys, table_cells = _grow(table_keys, table_cells)
            weights[pixel, 0] = part[dimensions, lane] + (float32(1) - part[0, lane])
            for corner in range(1, corners):
                weights[pixel, corner] = part[dimensions - corner, lane] - part[corners - corner, lane]
            for corner in range(corners):
                slot = _slot(table_keys, key)
                if table_keys[slot] == EMPTY:
                    table_keys[slot] = key
                    table_cells[slot] = count
                    keys[first_key + count] = key
                    count += 1
                cells[pixel, corner] = table_cells[slot]
                key += steps[int(axes[dimensions - corner, lane])]
    return count


@kernel()
def _embed(features, scales, first, size, nearest, part, axes):
    """Elevate some pixels onto the plane Σ = 0 and find the simplex of each.

    Writes the nearest remainder-0 point to nearest (d + 1, SIDE); what lies between it and the pixel, in steps of d + 1
    and falling order, to part; and to axes which coordinate each of these is.
    """
    dimensions, pixels = features.shape
    corners = dimensions + 1
    step, share = float32(corners), float32(1) / float32(corners)
    for lane in range(0, size, WIDTH):
        above = spread(float32(0))
        for axis in range(dimensions, -1, -1):
            elevated = above
            if axis > 0:
                feature = read(features, (axis - 1) * pixels + first + lane, size - lane)
                scaled = scales[axis - 1] * feature
                elevated = above - float32(axis) * scaled
                above += scaled
            turns = nearest_whole(share * elevated)
            store(nearest, axis * SIDE + lane, step * turns)
            store(part, axis * SIDE + lane, share * (elevated - step * turns))
            store(axes, axis * SIDE + lane, spread(float32(axis)))
        # Each round the least of what is left goes to its end; equal ones keep their order.
        for last in range(dimensions, 0, -1):
            for place in range(lane, lane + last * SIDE, SIDE):
                one, other = load(part, place), load(part, place + SIDE)
                axis, next_axis = load(axes, place), load(axes, place + SIDE)
                store(part, place, pick(one, other, other, one))
                store(part, place + SIDE, pick(one, other, one, other))
                store(axes, place, pick(one, other, next_axis, axis))
                store(axes, place + SIDE, pick(one, other, axis, next_axis))
        for one_lane in range(lane, min(lane + WIDTH, size)):
            _onto_plane(nearest, part, axes, one_lane)


@njit(inline="always")
def _onto_plane(nearest, part, axes, lane):
    """Where the nearest point lies off the plane, move its coordinates that are furthest the other way by one step.

    In the order the last become first, or the first last.
    """
    dimensions = part.shape[0] - 1
    step = float32(dimensions + 1)
    excess = float32(0)
    for axis in range(dimensions + 1):
        excess += nearest[axis, lane]
    while excess > 0:
        moved, axis = part[dimensions, lane] + float32(1), axes[dimensions, lane]
        for place in range(dimensions, 0, -1):
            part[place, lane], axes[place, lane] = part[place - 1, lane], axes[place - 1, lane]
        part[0, lane], axes[0, lane] = moved, axis
        nearest[int(axis), lane] -= step
        excess -= step
    while excess < 0:
        moved, axis = part[0, lane] - float32(1), axes[0, lane]
        for place in range(dimensions):
            part[place, lane], axes[place, lane] = part[place + 1, lane], axes[place + 1, lane]
        part[dimensions, lane], axes[dimensions, lane] = moved, axis
        nearest[int(axis), lane] += step
        excess += step


@njit(inline="always")
def _slot(table, key):
    """Return where a key stands in an open table, or the empty place where it belongs."""
    mask = table.size - 1
    slot = ((key * SPREAD) >> 20) & mask
    while table[slot] != EMPTY and table[slot] != key:
        slot = (slot + 1) & mask
    return slot


@kernel()
def _grow(keys, cells):
    new_keys, new_cells = np.full(2 * keys.size, EMPTY), np.empty(2 * keys.size, np.uint16)
    for old in range(keys.size):
        if keys[old] != EMPTY:
            slot = _slot(new_keys, keys[old])
            new_keys[slot] = keys[old]
            new_cells[slot] = cells[old]
    return new_keys, new_cells


def _join(keys, blocks, first_entries, strides):
    """Number vertices over all blocks and find each one's neighbours."""
    total = int(first_entries[-1])
    capacity = 1 << max(4, (2 * total - 1).bit_length())
    table_keys, table_vertices = np.full(capacity, EMPTY), np.empty(capacity, np.int32)
    vertices, vertex_keys = np.empty(total, np.int32), np.empty(total, np.int64)
    corners = strides.size
    count = _number(keys, blocks[:, 0] * corners, first_entries, table_keys, table_vertices, vertices, vertex_keys)
    starts = np.concatenate([[0], np.cumsum(np.bincount(vertices, minlength=count))])
    entries = np.argsort(vertices, kind="stable").astype(np.int32)
    neighbours = np.full((count, corners, 2), count, np.int32)
    _meet(vertex_keys[:count], numbering.steps(strides), table_keys, table_vertices, neighbours)
    return vertices, starts, entries, neighbours


@kernel()
def _number(keys, first_keys, first_entries, table_keys, table_vertices, vertices, vertex_keys):
    count = 0
    for block in range(first_entries.size - 1):
        shift = first_keys[block] - first_entries[block]
        for entry in range(first_entries[block], first_entries[block + 1]):
            key = keys[entry + shift]
            slot = _slot(table_keys, key)
            if table_keys[slot] == EMPTY:
                table_keys[slot] = key
                table_vertices[slot] = count
                vertex_keys[count] = key
                count += 1
            vertices[entry] = table_vertices[slot]
    return count


@kernel(parallel=True)
def _meet(keys, steps, table_keys, table_vertices, neighbours):
    """If u is the next vertex of v along an axis, v is the previous one of u: one search finds both."""
    for vertex in prange(keys.size):
        for axis in range(steps.size):
            slot = _slot(table_keys, keys[vertex] + steps[axis])
            if table_keys[slot] != EMPTY:
                other = table_vertices[slot]
                neighbours[vertex, axis, 0] = other
                neighbours[other, axis, 1] = vertex
