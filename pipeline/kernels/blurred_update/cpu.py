"""The fast CPU path, in Numba: one pass over the unary; what is fine-grained never leaves the cache.

One row of coarse cells is a thread's unit of work. Coarse row r holds the fine rows from r · factor − top on.
"""

import numpy as np
from numba import float32, njit, prange

from pipeline.kernels.simd import OPTIONS, WIDTH, exp, largest, load, load_part, spread, store, store_part


@njit(inline="always")
def _read(array, index, size):
    if size < WIDTH:
        return load_part(array, index, 0, size)
    return load(array, index)


@njit(inline="always")
def _write(array, index, lanes, size):
    if size < WIDTH:
        store_part(array, index, lanes, 0, size)
    else:
        store(array, index, lanes)


@njit(**OPTIONS)
def _source(fine, factor, cells):
    """Return the two cells a fine position (from the coarse grid's edge) lies between, and its way to the second."""
    place = max((fine + float32(0.5)) / float32(factor) - float32(0.5), float32(0))
    first = int(place)
    return first, min(first + 1, cells - 1), place - float32(first)


@njit(**OPTIONS)
def _scores(unary, message, row, top, left, factor, between, scores):
    """Write unary + unblurred message of one fine row to scores (C, W); `between` (cols + 1,) is room to work in."""
    classes, _, width = unary.shape
    rows, cols = message.shape[1:]
    above, below, down = _source(row + top, factor, rows)
    for label in range(classes):
        for col in range(cols):
            upper = message[label, above, col]
            between[col] = upper + down * (message[label, below, col] - upper)
        between[cols] = between[cols - 1]
        # Where a fine column lies between two cells repeats from cell to cell, but for the first half of the first.
        for col in range(min(width, max(0, factor // 2 - left))):
            scores[label, col] = unary[label, row, col] + between[0]
        for phase in range(factor):
            shifted = float32(phase) + float32(0.5) - float32(0.5) * float32(factor)
            back = 1 if shifted < 0 else 0
            along = shifted / float32(factor) + float32(back)
            for cell in range(back, cols):
                col = cell * factor + phase - left
                if 0 <= col < width:
                    near = between[cell - back]
                    smooth = near + along * (between[cell - back + 1] - near)
                    scores[label, col] = unary[label, row, col] + smooth


@njit(inline="always")
def _softmax(scores, width):
    """Turn scores (C, W) into their softmax over C, in place."""
    classes = scores.shape[0]
    for col in range(0, width, WIDTH):
        size = min(WIDTH, width - col)
        most = _read(scores, col, size)
        for label in range(1, classes):
            most = largest(most, _read(scores, label * scores.shape[1] + col, size))
        total = spread(float32(0))
        for label in range(classes):
            power = exp(_read(scores, label * scores.shape[1] + col, size) - most)
            total += power
            _write(scores, label * scores.shape[1] + col, power, size)
        share = float32(1) / total
        for label in range(classes):
            at = label * scores.shape[1] + col
            _write(scores, at, share * _read(scores, at, size), size)


@njit(parallel=True, **OPTIONS)
def add_unblurred(unary, message, factor, top, left, out):
    """unary and out (C, H, W), message (C, h, w)."""
    classes, height, width = unary.shape
    for row in prange(height):
        between = np.empty(message.shape[2] + 1, np.float32)
        scores = np.empty((classes, width), np.float32)
        _scores(unary, message, row, top, left, factor, between, scores)
        out[:, row] = scores


@njit(parallel=True, **OPTIONS)
def blurred_update(unary, message, factor, top, left, out):
    """unary (C, H, W), message and out (C, h, w)."""
    classes, height, width = unary.shape
    rows, cols = message.shape[1:]
    for cell_row in prange(rows):
        between = np.empty(cols + 1, np.float32)
        q = np.empty((classes, width), np.float32)
        summed = np.zeros((classes, width), np.float32)
        first, stop = max(0, cell_row * factor - top), min(height, (cell_row + 1) * factor - top)
        for row in range(first, stop):
            _scores(unary, message, row, top, left, factor, between, q)
            _softmax(q, width)
            for label in range(classes):
                for col in range(width):
                    summed[label, col] += q[label, col]
        for label in range(classes):
            for cell in range(cols):
                low, high = max(0, cell * factor - left), min(width, (cell + 1) * factor - left)
                total = float32(0)
                for col in range(low, high):
                    total += summed[label, col]
                out[label, cell_row, cell] = total / float32((stop - first) * (high - low))


@njit(parallel=True, **OPTIONS)
def backward_rows(gradient, unary, message, factor, top, left, to_unary, to_rows):
    """Return the gradient of `blurred_update` to the unary, and that to the message not yet summed over rows.

    gradient and message (C, h, w), unary and to_unary (C, H, W), to_rows (H, C, w).
    """
    classes, height, width = unary.shape
    rows, cols = message.shape[1:]
    for cell_row in prange(rows):
        between = np.empty(cols + 1, np.float32)
        q = np.empty((classes, width), np.float32)
        fine = np.empty((classes, width), np.float32)
        first, stop = max(0, cell_row * factor - top), min(height, (cell_row + 1) * factor - top)
        for label in range(classes):
            for cell in range(cols):
                low, high = max(0, cell * factor - left), min(width, (cell + 1) * factor - left)
                fine[label, low:high] = gradient[label, cell_row, cell] / float32((stop - first) * (high - low))
        mean = np.empty(width, np.float32)
        for row in range(first, stop):
            _scores(unary, message, row, top, left, factor, between, q)
            _softmax(q, width)
            mean[:] = 0
            for label in range(classes):
                for col in range(width):
                    mean[col] += q[label, col] * fine[label, col]
            to_rows[row] = 0
            for label in range(classes):
                for col in range(width):
                    to_unary[label, row, col] = q[label, col] * (fine[label, col] - mean[col])
                for col in range(width):
                    one, other, along = _source(col + left, factor, cols)
                    moved = to_unary[label, row, col]
                    to_rows[row, label, one] += (float32(1) - along) * moved
                    to_rows[row, label, other] += along * moved


@njit(parallel=True, **OPTIONS)
def backward_message(to_rows, factor, top, out):
    """Sum what the fine rows send back, to_rows (H, C, w), into out (C, h, w)."""
    height, classes, cols = to_rows.shape
    rows = out.shape[1]
    for cell_row in prange(rows):
        out[:, cell_row] = 0
        first, stop = (cell_row - 1) * factor - top, (cell_row + 2) * factor - top
        for row in range(max(0, first), min(height, stop)):
            above, below, down = _source(row + top, factor, rows)
            weight = float32(0)
            if above == cell_row:
                weight += float32(1) - down
            if below == cell_row:
                weight += down
            if weight > 0:
                for label in range(classes):
                    for col in range(cols):
                        out[label, cell_row, col] += weight * to_rows[row, label, col]
