"""The fast CPU path, in Numba: each row of pixels is summed over rows, then, still in the cache, over columns."""

import numpy as np
from numba import float32, njit, prange

from pipeline.kernels.dispatch import image_by_image
from pipeline.kernels.simd import WIDTH, kernel, load, read, spread, write

STEP = 4 * WIDTH  # four sums that do not wait for one another


@image_by_image
@kernel(parallel=True)
def spatial_gaussian(values, right, left, row_taps, col_taps, out):
    """Filter values (C, H, W) into out; right and left (H, W) multiply before and after."""
    classes, height, width = values.shape
    row_reach, col_reach = row_taps.size - 1, col_taps.size - 1
    padded = (width + STEP - 1) // STEP * STEP
    for plane_row in prange(classes * height):
        label, row = plane_row // height, plane_row % height
        # The row, summed over its neighbours in rows, between as many zeros as the columns' sum reaches.
        summed = np.zeros(col_reach + padded + col_reach, np.float32)
        first, stop = max(0, row - row_reach), min(height, row + row_reach + 1)
        for col in range(0, width, WIDTH):
            size = min(WIDTH, width - col)
            a, b = spread(float32(0)), spread(float32(0))
            for other in range(first, stop):
                # Two sums, by turns, so that neither waits for the other.
                sent = _sent(values, right, label, other, col, size)
                a, b = b, a + row_taps[abs(other - row)] * sent
            write(summed, col_reach + col, a + b, size)
        for col in range(0, width, STEP):
            a, b, c, d = spread(float32(0)), spread(float32(0)), spread(float32(0)), spread(float32(0))
            for step in range(-col_reach, col_reach + 1):
                tap, there = col_taps[abs(step)], col_reach + col + step
                a += tap * load(summed, there)
                b += tap * load(summed, there + WIDTH)
                c += tap * load(summed, there + 2 * WIDTH)
                d += tap * load(summed, there + 3 * WIDTH)
            _received(left, label, row, col, a, out)
            _received(left, label, row, col + WIDTH, b, out)
            _received(left, label, row, col + 2 * WIDTH, c, out)
            _received(left, label, row, col + 3 * WIDTH, d, out)


@njit(inline="always")
def _sent(values, right, label, row, col, size):
    at = row * values.shape[2] + col
    return read(right, at, size) * read(values, label * right.size + at, size)


@njit(inline="always")
def _received(left, label, row, col, lanes, out):
    size = min(WIDTH, out.shape[2] - col)
    if size > 0:
        at = row * out.shape[2] + col
        write(out, label * left.size + at, read(left, at, size) * lanes, size)
