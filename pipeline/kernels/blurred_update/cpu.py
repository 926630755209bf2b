"""The fast CPU path, in Numba: one pass over the unary; what is fine-grained never leaves the cache.

A few neighbouring rows of coarse cells are a thread's unit of work. Coarse row r holds the fine rows from
r · factor − top on. A message is interpolated over columns once per coarse row, then over rows for each fine row.
"""

import numpy as np
from numba import float32, njit, prange

from pipeline.kernels.dispatch import image_by_image
from pipeline.kernels.simd import WIDTH, kernel, load, read, spread, store, write
from pipeline.kernels.softmax import softmax

ROWS = 8  # coarse rows a thread takes at a time


@kernel()
def _source(fine, factor, cells):
    """Return the two cells a fine position (from the coarse grid's edge) lies between, and its way to the second."""
    place = max((float32(fine) + float32(0.5)) / float32(factor) - float32(0.5), float32(0))
    first = int(place)
    return first, min(first + 1, cells - 1), place - float32(first)


@kernel()
def _widen(message, row, left, factor, out):
    """Interpolate one row of a message (C, h, w) over the columns of the image: out (C, W)."""
    classes, _, cols = message.shape
    width = out.shape[1]
    for label in range(classes):
        # Up to the middle of the first cell there is nothing to interpolate, nor from that of the last on.
        for col in range(min(width, max(0, factor // 2 - left))):
            out[label, col] = message[label, row, 0]
        for phase in range(factor):
            # A cell's fine column lies behind its middle, between it and the next, or before, between the last and it.
            place = (float32(phase) + float32(0.5)) / float32(factor) - float32(0.5)
            back = 1 if place < 0 else 0
            along = place + float32(back)
            for cell in range(back, cols):
                col = cell * factor + phase - left
                if 0 <= col < width:
                    near = message[label, row, cell - back]
                    far = message[label, row, min(cell - back + 1, cols - 1)]
                    out[label, col] = near + along * (far - near)


@njit(inline="always")
def _score(unary, wide, label, row, col, above, below, down, size):
    """Return eight pixels' unary plus their message, between two widened rows of `wide` (2, C, W)."""
    classes, height, width = unary.shape
    near = read(wide, (above * classes + label) * width + col, size)
    far = read(wide, (below * classes + label) * width + col, size)
    return read(unary, (label * height + row) * width + col, size) + (near + down * (far - near))


@njit(inline="always")
def _softmax(unary, wide, row, col, above, below, down, size, q):
    """Write eight pixels' q (C, 8)."""
    for label in range(unary.shape[0]):
        store(q, label * WIDTH, _score(unary, wide, label, row, col, above, below, down, size))
    softmax(q, 0)


@kernel()
def _between(message, row, top, left, factor, kept, wide):
    """Return the two places in `wide` (2, C, W) a fine row lies between, and its way to the second.

    The rows of the message are widened there if they are not yet; `kept` tells which ones are.
    """
    above, below, down = _source(row + top, factor, message.shape[1])
    for cell_row in (above, below):
        if kept[cell_row % 2] != cell_row:
            _widen(message, cell_row, left, factor, wide[cell_row % 2])
            kept[cell_row % 2] = cell_row
    return above % 2, below % 2, down


@njit(inline="always")
def _fine(cell, factor, offset, size):
    """Return the first and, excluded, the last fine position of a cell that lie within the image."""
    return max(0, cell * factor - offset), min(size, (cell + 1) * factor - offset)


@image_by_image
@kernel(parallel=True)
def add_unblurred(unary, message, factor, top, left, out):
    """unary and out (C, H, W), message (C, h, w)."""
    classes, height, width = unary.shape
    rows = message.shape[1]
    for chunk in prange((rows + ROWS - 1) // ROWS):
        kept, wide = np.full(2, -1), np.empty((2, classes, width), np.float32)
        for row in range(max(0, chunk * ROWS * factor - top), min(height, (chunk + 1) * ROWS * factor - top)):
            above, below, down = _between(message, row, top, left, factor, kept, wide)
            for label in range(classes):
                for col in range(0, width, WIDTH):
                    size = min(WIDTH, width - col)
                    score = _score(unary, wide, label, row, col, above, below, down, size)
                    write(out, (label * height + row) * width + col, score, size)


@image_by_image
@kernel(parallel=True)
def blurred_update(unary, message, factor, top, left, out):
    """unary (C, H, W), message and out (C, h, w)."""
    classes, height, width = unary.shape
    rows, cols = message.shape[1:]
    for chunk in prange((rows + ROWS - 1) // ROWS):
        kept, wide = np.full(2, -1), np.empty((2, classes, width), np.float32)
        q, summed = np.empty((classes, WIDTH), np.float32), np.empty((classes, width), np.float32)
        for cell_row in range(chunk * ROWS, min((chunk + 1) * ROWS, rows)):
            summed[:] = 0
            first, stop = _fine(cell_row, factor, top, height)
            for row in range(first, stop):
                above, below, down = _between(message, row, top, left, factor, kept, wide)
                for col in range(0, width, WIDTH):
                    size = min(WIDTH, width - col)
                    _softmax(unary, wide, row, col, above, below, down, size, q)
                    for label in range(classes):
                        at = label * width + col
                        write(summed, at, read(summed, at, size) + load(q, label * WIDTH), size)
            for label in range(classes):
                for cell in range(cols):
                    low, high = _fine(cell, factor, left, width)
                    total = float32(0)
                    for col in range(low, high):
                        total += summed[label, col]
                    out[label, cell_row, cell] = total / float32((stop - first) * (high - low))


@image_by_image
@kernel(parallel=True)
def backward(gradient, unary, message, factor, top, left, to_unary):
    """Return the gradient of `blurred_update` to the unary, which is that to the unblurred message too.

    gradient and message (C, h, w), unary and to_unary (C, H, W).
    """
    classes, height, width = unary.shape
    rows, cols = message.shape[1:]
    for chunk in prange((rows + ROWS - 1) // ROWS):
        kept, wide = np.full(2, -1), np.empty((2, classes, width), np.float32)
        q, fine = np.empty((classes, WIDTH), np.float32), np.empty((classes, width), np.float32)
        for cell_row in range(chunk * ROWS, min((chunk + 1) * ROWS, rows)):
            first, stop = _fine(cell_row, factor, top, height)
            for label in range(classes):
                for cell in range(cols):
                    low, high = _fine(cell, factor, left, width)
                    fine[label, low:high] = gradient[label, cell_row, cell] / float32((stop - first) * (high - low))
            for row in range(first, stop):
                above, below, down = _between(message, row, top, left, factor, kept, wide)
                for col in range(0, width, WIDTH):
                    size = min(WIDTH, width - col)
                    _softmax(unary, wide, row, col, above, below, down, size, q)
                    mean = spread(float32(0))
                    for label in range(classes):
                        mean += load(q, label * WIDTH) * read(fine, label * width + col, size)
                    for label in range(classes):
                        moved = load(q, label * WIDTH) * (read(fine, label * width + col, size) - mean)
                        write(to_unary, (label * height + row) * width + col, moved, size)


@image_by_image
@kernel(parallel=True)
def unblur_backward(gradient, factor, top, left, out):
    """Return the gradient of `unblur`: gradient (C, H, W), out (C, h, w)."""
    classes, height, width = gradient.shape
    rows, cols = out.shape[1:]
    for cell_row in prange(rows):
        # What the fine rows send to this coarse row, then to its cells.
        summed = np.zeros((classes, width), np.float32)
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
                    for col in range(width):
                        summed[label, col] += weight * gradient[label, row, col]
        out[:, cell_row] = 0
        for col in range(width):
            one, other, along = _source(col + left, factor, cols)
            for label in range(classes):
                out[label, cell_row, one] += (float32(1) - along) * summed[label, col]
                out[label, cell_row, other] += along * summed[label, col]
