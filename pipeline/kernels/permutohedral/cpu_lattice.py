"""Where pixels lie on the lattice: the building part of the fast CPU path, in Numba.

The image is cut into blocks; each numbers the vertices it touches by itself, so that its table of values stays in the
processor's cache and blocks run in parallel without sharing a cell. A second numbering joins the blocks. Blocks depend
on the image's size alone: results do not depend on the number of threads.

What is kept per pixel lies in memory block by block, and within a block row by row.
"""

import mmap
from typing import NamedTuple

import numpy as np
from numba import float32, njit, prange

from pipeline.kernels.dispatch import compiled
from pipeline.kernels.permutohedral import numbering
from pipeline.kernels.simd import WIDTH, at, kernel, load, nearest_whole, pick, read, spread, store

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


def build(features, low, high):
    """Place the pixels of every image: `features` (B, d, H, W) float32, contiguous, their ends (B, d); a list."""
    with compiled():
        images = zip(features.numpy(), low, high, strict=True)
        return [_build(image.reshape(len(image), -1), image.shape[2], *ends) for image, *ends in images]


def _build(features, width, low, high):
    dimensions, pixels = features.shape
    scales = numbering.scales(dimensions)
    strides, lowest = numbering.numbering(low, high)
    blocks = _blocks(pixels // width, width)
    cells = np.empty((pixels, dimensions + 1), np.uint16)
    weights = np.empty((pixels, dimensions + 1), np.float32)
    # Each block fills the start of its part; the rest, most of it, takes no memory, as nobody writes there.
    keys = np.frombuffer(mmap.mmap(-1, 8 * pixels * (dimensions + 1)), np.int64)
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
    corners = features.shape[0] + 1
    turns, part = np.empty((corners, SIDE), np.float32), np.empty((corners, SIDE), np.float32)
    axes, excess = np.empty((corners, SIDE), np.float32), np.empty(SIDE, np.float32)
    # What a key grows by when one coordinate goes a turn, d + 1, further; from one corner of a simplex to the next all
    # coordinates rise by 1, but for one that falls by d.
    turn = corners * strides
    steps = strides.sum() - turn
    offset = np.int64(0)
    for axis in range(corners):
        offset += strides[axis] * lowest[axis]
    table_keys, table_cells = np.full(1 << 10, EMPTY), np.empty(1 << 10, np.uint16)
    first_key = start * corners
    count = 0
    for row in range(first_row, last_row):
        _embed(features, scales, row * width + first_col, size, turns, part, axes, excess)
        for lane in range(size):
            if 2 * (count + corners) > table_keys.size:
                table_keys, table_cells = _grow(table_keys, table_cells)
            key, place, shift = _onto_plane(turns, axes, excess, turn, lane)
            key -= offset
            pixel = start + (row - first_row) * size + lane
            least = previous = at(part, place * SIDE + lane) + shift
            for corner in range(corners):
                slot = _slot(table_keys, key)
                if at(table_keys, slot) == EMPTY:
                    table_keys[slot] = key
                    table_cells[slot] = count
                    keys[first_key + count] = key
                    count += 1
                cells[pixel, corner] = at(table_cells, slot)
                key += at(steps, np.int64(at(axes, place * SIDE + lane)))
                place -= 1
                if place < 0:
                    place = corners - 1
                    shift += float32(1)
                here = at(part, place * SIDE + lane) + shift
                if corner + 1 < corners:
                    weights[pixel, corner + 1] = here - previous
                    previous = here
            weights[pixel, 0] = least + (float32(1) - previous)
    return count


@kernel()
def _embed(features, scales, first, size, turns, part, axes, excess):
    """Elevate some pixels onto the plane Σ = 0 and find the nearest point with whole multiples of d + 1.

    Writes these multiples to turns (d + 1, SIDE) and their sum to excess (SIDE,); what lies between point and pixel, in
    steps of d + 1 and falling order, to part; and to axes which coordinate each of these is.
    """
    dimensions, pixels = features.shape
    corners = dimensions + 1
    step, share = float32(corners), float32(1) / float32(corners)
    for lane in range(0, size, WIDTH):
        above, sum_of_turns = spread(float32(0)), spread(float32(0))
        for axis in range(dimensions, -1, -1):
            elevated = above
            if axis > 0:
                feature = read(features, (axis - 1) * pixels + first + lane, size - lane)
                scaled = scales[axis - 1] * feature
                elevated = above - float32(axis) * scaled
                above += scaled
            whole = nearest_whole(share * elevated)
            sum_of_turns += whole
            store(turns, axis * SIDE + lane, whole)
            store(part, axis * SIDE + lane, share * (elevated - step * whole))
            store(axes, axis * SIDE + lane, spread(float32(axis)))
        store(excess, lane, sum_of_turns)
        # Each round the least of what is left goes to its end; equal ones keep their order.
        for last in range(dimensions, 0, -1):
            for place in range(lane, lane + last * SIDE, SIDE):
                one, other = load(part, place), load(part, place + SIDE)
                axis, next_axis = load(axes, place), load(axes, place + SIDE)
                store(part, place, pick(one, other, other, one))
                store(part, place + SIDE, pick(one, other, one, other))
                store(axes, place, pick(one, other, next_axis, axis))
                store(axes, place + SIDE, pick(one, other, axis, next_axis))


@njit(inline="always")
def _onto_plane(turns, axes, excess, turn, lane):
    """Return the key of one pixel's nearest point on the plane, and which of its parts is the least now.

    Where the point found lies off the plane by so many turns, as many of its coordinates go one turn back: those
    furthest the other way. In the order by parts the last become first, or the first last, with 1 added or taken away.
    """
    corners = axes.shape[0]
    key = np.int64(0)
    for axis in range(corners):
        key += turn[axis] * np.int64(at(turns, axis * SIDE + lane))
    off = np.int64(at(excess, lane))
    for place in range(corners - off, corners):
        key -= at(turn, np.int64(at(axes, place * SIDE + lane)))
    for place in range(-off):
        key += at(turn, np.int64(at(axes, place * SIDE + lane)))
    least, shift = corners - 1 - off, float32(0)
    if least < 0:
        least, shift = least + corners, float32(1)
    elif least >= corners:
        least, shift = least - corners, float32(-1)
    return key, least, shift


@njit(inline="always")
def _slot(table, key):
    """Return where a key stands in an open table, or the empty place where it belongs."""
    mask = table.size - 1
    slot = ((key * SPREAD) >> 20) & mask
    while at(table, slot) != EMPTY and at(table, slot) != key:
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
