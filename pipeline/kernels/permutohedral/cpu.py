"""The fast CPU path, in Numba.

Pixels are cut into bands; each band numbers the vertices it touches by itself, so that its table of values stays in the
processor's cache and bands run in parallel without sharing a cell. A second numbering joins the bands. Bands depend on
the image's size alone: results do not depend on the number of threads.
"""

from typing import NamedTuple

import numpy as np
from numba import float32, njit, prange

from pipeline.core.errors import DataError
from pipeline.kernels.simd import OPTIONS, WIDTH, load, spread, store

# Vertices of one band are numbered in 16 bits.
MOST_IN_BAND = 1 << 16
LEAST_BAND = 1024
MOST_BANDS = 16
TILE = 64  # pixels whose values are turned from one plane per class to one row per pixel at a time
EMPTY = np.int64(-1)
# Odd, from the golden ratio: a multiplication spreads neighbouring keys over the table.
SPREAD = np.int64(-7046029254386353131)


class Lattice(NamedTuple):
    """One image's lattice; N pixels, d features, V vertices, E of them counted once per band."""

    cells: np.ndarray  # (N, d + 1) uint16: the pixel's vertices, numbered within its band
    weights: np.ndarray  # (N, d + 1) float32: its barycentric coordinates, which sum to 1
    band_starts: np.ndarray  # (bands + 1,) int64: first pixel of each band
    first_entries: np.ndarray  # (bands + 1,) int64: first entry of each band
    vertices: np.ndarray  # (E,) int32: the entry's vertex
    starts: np.ndarray  # (V + 1,) int64: where the vertex's entries begin in `entries`
    entries: np.ndarray  # (E,) int32: entries by vertex, then by band
    neighbours: np.ndarray  # (V, d + 1, 2) int32: next and previous vertex along each axis; V where there is none


def build(features):
    """Place the pixels of one image: `features` (d, N) float32, contiguous."""
    dimensions, pixels = features.shape
    scales, strides, lowest = _numbering(features)
    size = min(MOST_IN_BAND // (dimensions + 1), max(LEAST_BAND, -(-pixels // MOST_BANDS)))
    band_starts = np.append(np.arange(0, pixels, size), pixels)
    cells = np.empty((pixels, dimensions + 1), np.uint16)
    weights = np.empty((pixels, dimensions + 1), np.float32)
    keys = np.empty(pixels * (dimensions + 1), np.int64)  # each band fills the start of its part
    counts = _place(features, scales, strides, lowest, band_starts, cells, weights, keys)
    first_entries = np.concatenate([[0], np.cumsum(counts)])
    vertices, starts, entries, neighbours = _join(keys, band_starts, first_entries, strides)
    return Lattice(cells, weights, band_starts, first_entries, vertices, starts, entries, neighbours)


def _numbering(features):
    """Return what turns features into vertex numbers.

    A vertex is d + 1 whole numbers that sum to 0; the first d of them, each counted from its lowest value, are the
    digits of its key, `strides` the worth of each digit.
    """
    dimensions = features.shape[0]
    # Unit spacing of the lattice is scaled so that blur and slice together act like a unit Gaussian.
    axes = np.arange(1, dimensions + 1)
    scales = (np.sqrt(2 / 3) * (dimensions + 1) / np.sqrt(axes * (axes + 1))).astype(np.float32)
    low, high = _extremes(features) * scales
    # elevated[j] = Σ_{i > j} scaled[i - 1] − j scaled[j - 1]; rounding, simplex and blur reach 2 (d + 1) further.
    above_low, above_high = (np.append(np.cumsum(edge[::-1])[::-1], 0.0) for edge in (low, high))
    own_low, own_high = (np.append(0.0, axes * edge) for edge in (low, high))
    lowest = np.floor(above_low - own_high).astype(np.int64) - 2 * (dimensions + 1)
    highest = np.ceil(above_high - own_low).astype(np.int64) + 2 * (dimensions + 1)
    spans = [int(span) for span in (highest - lowest + 1)[:dimensions]]
    strides, worth = [], 1
    for span in spans:
        strides.append(worth)
        worth *= span
    if worth >= 2**63:
        widest = int(np.argmax(high - low))
        found = f"features that span {worth:.1e} lattice points, feature {widest} the widest"
        raise DataError("permutohedral", found, "fewer than 9e18", "divide the features by larger bandwidths")
    return scales, np.array([*strides, 0], np.int64), lowest


@njit(**OPTIONS)
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


@njit(parallel=True, **OPTIONS)
def _place(features, scales, strides, lowest, band_starts, cells, weights, keys):
    """Find every pixel's simplex; return how many vertices each band touches."""
    bands = band_starts.size - 1
    counts = np.empty(bands, np.int64)
    for band in prange(bands):
        counts[band] = _place_band(
            features, scales, strides, lowest, band_starts[band], band_starts[band + 1], cells, weights, keys
        )
    return counts


@njit(**OPTIONS)
def _place_band(features, scales, strides, lowest, start, stop, cells, weights, keys):
    dimensions = features.shape[0]
    corners = dimensions + 1
    elevated = np.empty((corners, TILE), np.float32)
    nearest = np.empty((corners, TILE), np.float32)
    rank = np.empty((corners, TILE), np.int32)
    sorted_part = np.empty(corners, np.float32)
    sorted_stride = np.empty(corners, np.int64)
    last_key = np.full(corners, EMPTY)
    last_cell = np.zeros(corners, np.uint16)
    all_strides = np.int64(0)
    offset = np.int64(0)
    for axis in range(dimensions):
        all_strides += strides[axis]
        offset += strides[axis] * lowest[axis]
    capacity = 1 << 12
    table_keys = np.full(capacity, EMPTY)
    table_cells = np.empty(capacity, np.uint16)
    first_key = start * corners
    count = 0
    for first in range(start, stop, TILE):
        size = min(TILE, stop - first)
        _embed(features, scales, first, size, elevated, nearest, rank)
        for lane in range(size):
            pixel = first + lane
            key = -offset
            for axis in range(corners):
                place = rank[axis, lane]
                sorted_part[place] = (elevated[axis, lane] - nearest[axis, lane]) / float32(corners)
                sorted_stride[place] = strides[axis]
                key += strides[axis] * np.int64(nearest[axis, lane])
            for corner in range(corners):
                if corner == 0:
                    weights[pixel, 0] = sorted_part[dimensions] + (float32(1) - sorted_part[0])
                else:
                    weights[pixel, corner] = sorted_part[dimensions - corner] - sorted_part[corners - corner]
                # Neighbouring pixels mostly lie in one simplex.
                if key != last_key[corner]:
                    if 2 * count >= capacity:
                        capacity *= 2
                        table_keys, table_cells = _grow(table_keys, table_cells, capacity)
                    slot = _slot(table_keys, key)
                    if table_keys[slot] == EMPTY:
                        table_keys[slot] = key
                        table_cells[slot] = count
                        keys[first_key + count] = key
                        count += 1
                    last_key[corner] = key
                    last_cell[corner] = table_cells[slot]
                cells[pixel, corner] = last_cell[corner]
                key += all_strides - corners * sorted_stride[dimensions - corner]
    return count


@njit(**OPTIONS)
def _embed(features, scales, first, size, elevated, nearest, rank):
    """Elevate a tile of pixels onto the plane Σ = 0; find the nearest remainder-0 point and rank what is left."""
    dimensions = features.shape[0]
    corners = dimensions + 1
    elevated[0, :size] = 0
    for axis in range(dimensions, 0, -1):
        for lane in range(size):
            scaled = features[axis - 1, first + lane] * scales[axis - 1]
            elevated[axis, lane] = elevated[0, lane] - float32(axis) * scaled
            elevated[0, lane] += scaled
    step = float32(corners)
    for axis in range(corners):
        for lane in range(size):
            below = np.floor(elevated[axis, lane] / step) * step
            up = np.ceil(elevated[axis, lane] / step) * step
            nearest[axis, lane] = up if up - elevated[axis, lane] < elevated[axis, lane] - below else below
            rank[axis, lane] = 0
    for axis in range(corners):
        for other in range(axis + 1, corners):
            for lane in range(size):
                less = elevated[axis, lane] - nearest[axis, lane] < elevated[other, lane] - nearest[other, lane]
                rank[axis, lane] += np.int32(less)
                rank[other, lane] += np.int32(not less)
    # Where the nearest point lies off the plane, the coordinates furthest in that direction move by one step.
    for lane in range(size):
        excess = float32(0)
        for axis in range(corners):
            excess += nearest[axis, lane]
        excess = np.int32(np.rint(excess / step))
        if excess != 0:
            for axis in range(corners):
                place = rank[axis, lane] + excess
                if place < 0:
                    place += corners
                    nearest[axis, lane] += step
                elif place > dimensions:
                    place -= corners
                    nearest[axis, lane] -= step
                rank[axis, lane] = place


@njit(inline="always")
def _slot(table, key):
    """Return where a key stands in an open table, or the empty place where it belongs."""
    mask = table.size - 1
    slot = ((key * SPREAD) >> 20) & mask
    while table[slot] != EMPTY and table[slot] != key:
        slot = (slot + 1) & mask
    return slot


@njit(**OPTIONS)
def _grow(keys, cells, capacity):
    new_keys = np.full(capacity, EMPTY)
    new_cells = np.empty(capacity, np.uint16)
    for old in range(keys.size):
        if keys[old] != EMPTY:
            slot = _slot(new_keys, keys[old])
            new_keys[slot] = keys[old]
            new_cells[slot] = cells[old]
    return new_keys, new_cells


def _join(keys, band_starts, first_entries, strides):
    """Number vertices over all bands and find each one's neighbours."""
    total = int(first_entries[-1])
    capacity = 1 << max(4, (2 * total - 1).bit_length())
    table_keys, table_vertices = np.full(capacity, EMPTY), np.empty(capacity, np.int32)
    vertices, vertex_keys = np.empty(total, np.int32), np.empty(total, np.int64)
    corners = strides.size
    count = _number(keys, band_starts * corners, first_entries, table_keys, table_vertices, vertices, vertex_keys)
    starts = np.concatenate([[0], np.cumsum(np.bincount(vertices, minlength=count))])
    entries = np.argsort(vertices, kind="stable").astype(np.int32)
    neighbours = np.full((count, corners, 2), count, np.int32)
    steps = strides.sum() - corners * strides
    _meet(vertex_keys[:count], steps, table_keys, table_vertices, neighbours)
    return vertices, starts, entries, neighbours


@njit(**OPTIONS)
def _number(keys, first_keys, first_entries, table_keys, table_vertices, vertices, vertex_keys):
    count = 0
    for band in range(first_entries.size - 1):
        shift = first_keys[band] - first_entries[band]
        for entry in range(first_entries[band], first_entries[band + 1]):
            key = keys[entry + shift]
            slot = _slot(table_keys, key)
            if table_keys[slot] == EMPTY:
                table_keys[slot] = key
                table_vertices[slot] = count
                vertex_keys[count] = key
                count += 1
            vertices[entry] = table_vertices[slot]
    return count


@njit(parallel=True, **OPTIONS)
def _meet(keys, steps, table_keys, table_vertices, neighbours):
    """If u is the next vertex of v along an axis, v is the previous one of u: one search finds both."""
    for vertex in prange(keys.size):
        for axis in range(steps.size):
            slot = _slot(table_keys, keys[vertex] + steps[axis])
            if table_keys[slot] != EMPTY:
                other = table_vertices[slot]
                neighbours[vertex, axis, 0] = other
                neighbours[other, axis, 1] = vertex


def filtered(values, lattice, left, right, transposed, out):
    """Splat, blur and slice `values` (C, N) into `out` (C, N), both float32 and contiguous.

    `right` and `left` (N,) float32 multiply what is splatted and what is sliced.
    """
    # Vertices hold their classes side by side, filled up to whole registers.
    width = -(-values.shape[0] // WIDTH) * WIDTH
    vertices = lattice.starts.size - 1
    own = np.empty((lattice.entries.size, width), np.float32)
    now = np.zeros((vertices + 1, width), np.float32)  # the last row is the neighbour that is not there
    then = np.zeros_like(now)
    _splat(values, right, lattice.cells, lattice.weights, lattice.band_starts, lattice.first_entries, own)
    _gather(own, lattice.starts, lattice.entries, now)
    corners = lattice.cells.shape[1]
    for axis in reversed(range(corners)) if transposed else range(corners):
        _blur(now, lattice.neighbours, axis, then)
        now, then = then, now
    left = left * np.float32(1 / (1 + 2.0 ** (1 - corners)))
    _slice(now, left, lattice.cells, lattice.weights, lattice.band_starts, lattice.first_entries, lattice.vertices, out)


@njit(parallel=True, **OPTIONS)
def _splat(values, right, cells, weights, band_starts, first_entries, own):
    classes, corners, width = values.shape[0], cells.shape[1], own.shape[1]
    for band in prange(band_starts.size - 1):
        base = first_entries[band]
        own[base : first_entries[band + 1]] = 0
        sent = np.zeros((TILE, width), np.float32)
        for first in range(band_starts[band], band_starts[band + 1], TILE):
            size = min(TILE, band_starts[band + 1] - first)
            for label in range(classes):
                for lane in range(size):
                    sent[lane, label] = right[first + lane] * values[label, first + lane]
            for lane in range(size):
                for corner in range(corners):
                    weight = weights[first + lane, corner]
                    at = (base + cells[first + lane, corner]) * width
                    for block in range(0, width, WIDTH):
                        more = weight * load(sent, lane * width + block)
                        store(own, at + block, load(own, at + block) + more)


@njit(parallel=True, **OPTIONS)
def _gather(own, starts, entries, values):
    """Sum each vertex's entries over the bands."""
    width = own.shape[1]
    for vertex in prange(starts.size - 1):
        for block in range(0, width, WIDTH):
            total = spread(float32(0))
            for k in range(starts[vertex], starts[vertex + 1]):
                total += load(own, entries[k] * width + block)
            store(values, vertex * width + block, total)


@njit(parallel=True, **OPTIONS)
def _blur(values, neighbours, axis, out):
    """Filter along one axis by (½, 1, ½)."""
    width = values.shape[1]
    for vertex in prange(neighbours.shape[0]):
        here = vertex * width
        after, before = np.int64(neighbours[vertex, axis, 0]) * width, np.int64(neighbours[vertex, axis, 1]) * width
        for block in range(0, width, WIDTH):
            both = load(values, after + block) + load(values, before + block)
            store(out, here + block, float32(0.5) * both + load(values, here + block))


@njit(parallel=True, **OPTIONS)
def _slice(values, left, cells, weights, band_starts, first_entries, vertices, out):
    classes, corners, width = out.shape[0], cells.shape[1], values.shape[1]
    for band in prange(band_starts.size - 1):
        base = first_entries[band]
        # The band's vertices, side by side.
        own = np.empty((first_entries[band + 1] - base, width), np.float32)
        for entry in range(own.shape[0]):
            own[entry] = values[vertices[base + entry]]
        got = np.empty((TILE, width), np.float32)
        for first in range(band_starts[band], band_starts[band + 1], TILE):
            size = min(TILE, band_starts[band + 1] - first)
            for lane in range(size):
                for block in range(0, width, WIDTH):
                    total = spread(float32(0))
                    for corner in range(corners):
                        at = np.int64(cells[first + lane, corner]) * width
                        total += weights[first + lane, corner] * load(own, at + block)
                    store(got, lane * width + block, left[first + lane] * total)
            for label in range(classes):
                for lane in range(size):
                    out[label, first + lane] = got[lane, label]
