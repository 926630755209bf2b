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


@njit(inline="always")
def _widened(message, row, left, factor, out):
    (classes, _, cols), width = message.shape, out.shape[1]
    start = factor // 2 - left  # the first column not before the middle of the first cell
    for label in range(classes):
        for col in range(start):
            out[label, col] = message[label, row, 0]
        for cell in range(cols - 1):
            near, far = message[label, row, cell], message[label, row, cell + 1]
            for phase in range(factor):
                along = (float32(phase + factor // 2) + float32(0.5)) / float32(factor) - float32(0.5)
                out[label, start + cell * factor + phase] = near + along * (far - near)
        for col in range(start + (cols - 1) * factor, width):
            out[label, col] = message[label, row, cols - 1]


@kernel()
def _widen(message, row, left, factor, out):
    """Interpolate one row of a message (C, h, w) over the columns of the image: out (C, W)."""
    if factor == 4:  # as the paper has it: the compiler makes vectors of loops whose length it knows
        _widened(message, row, left, 4, out)
    else:
        _widened(message, row, left, factor, out)


@njit(inline="always")
def _fine(cell, factor, offset, size):
    """Return the first and, excluded, the last fine position of a cell that lie within the image."""
    return max(0, cell * factor - offset), min(size, (cell + 1) * factor - offset)


@njit(inline="always")
def _narrowed(summed, rows, row, left, factor, out):
    cols, width = out.shape[2], summed.shape[1]
    for label in range(summed.shape[0]):
        for cell in range(1, cols - 1):
            total = float32(0)
            for phase in range(factor):
                total += summed[label, cell * factor - left + phase]
            out[label, row, cell] = total / float32(rows * factor)
        for cell in (0, cols - 1):
            low, high = _fine(cell, factor, left, width)
            out[label, row, cell] = summed[label, low:high].sum() / float32(rows * (high - low))


@kernel()
def _narrow(summed, rows, row, left, factor, out):
    """Average over cells what is summed (C, W) over as many rows: one row of out (C, h, w)."""
    if factor == 4:
        _narrowed(summed, rows, row, left, 4, out)
    else:
        _narrowed(summed, rows, row, left, factor, out)


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


@njit(inline="always")
def _add_softmax(unary, wide, row, col, above, below, down, size, q, summed):
    """Add eight pixels' q to summed (C, W); `q` (C, 8) is room to work in."""
    _softmax(unary, wide, row, col, above, below, down, size, q)
    for label in range(summed.shape[0]):
        at = label * summed.shape[1] + col
        write(summed, at, read(summed, at, size) + load(q, label * WIDTH), size)


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
    rows = message.shape[1]
    for chunk in prange((rows + ROWS - 1) // ROWS):
        kept, wide = np.full(2, -1), np.empty((2, classes, width), np.float32)
        q, summed = np.empty((classes, WIDTH), np.float32), np.empty((classes, width), np.float32)
        for cell_row in range(chunk * ROWS, min((chunk + 1) * ROWS, rows)):
            summed[:] = 0
            first, stop = _fine(cell_row, factor, top, height)
            for row in range(first, stop):
                above, below, down = _between(message, row, top, left, factor, kept, wide)
                for col in range(0, width - WIDTH + 1, WIDTH):
                    _add_softmax(unary, wide, row, col, above, below, down, WIDTH, q, summed)
                if width % WIDTH > 0:
                    last = width - width % WIDTH
                    _add_softmax(unary, wide, row, last, above, below, down, width - last, q, summed)
            _narrow(summed, stop - first, cell_row, left, factor, out)


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
