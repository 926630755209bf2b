"""The fast CPU path, in Numba: one pass over memory, a stretch of neighbouring pixels at a time."""

import numpy as np
from numba import float32, njit, prange

from pipeline.kernels.dispatch import image_by_image
from pipeline.kernels.simd import WIDTH, exp, kernel, largest, load, read, store, write

STRETCH = 16 * WIDTH  # pixels: long enough to read memory in order, short enough for the cache


@image_by_image
@kernel(parallel=True)
def mean_field_update(unary, messages, weights, softmax, out):
    """unary and out (C, N), messages a tuple of M such (of one where M is 0), weights (M, C)."""
    classes, pixels = unary.shape
    for stretch in prange((pixels + STRETCH - 1) // STRETCH):
        scores = np.empty((classes, STRETCH), np.float32)
        most = np.full(STRETCH, -3e38, np.float32)
        first = stretch * STRETCH
        stop = min(first + STRETCH, pixels)
        for label in range(classes):
            for here in range(first, stop, WIDTH):
                size, lane = min(WIDTH, pixels - here), here - first
                score = read(unary, label * pixels + here, size)
                for m in range(weights.shape[0]):
                    score += weights[m, label] * read(messages[m], label * pixels + here, size)
                if softmax:
                    store(most, lane, largest(load(most, lane), score))
                    store(scores, label * STRETCH + lane, score)
                else:
                    write(out, label * pixels + here, score, size)
        if softmax:
            _normalise(scores, most, first, out)


@njit(inline="always")
def _normalise(scores, most, first, out):
    """Write the softmax of scores (C, STRETCH) to the pixels of `out` (C, N) from `first` on."""
    classes, pixels = out.shape
    total = np.zeros(STRETCH, np.float32)
    for label in range(classes):
        for lane in range(0, STRETCH, WIDTH):
            power = exp(load(scores, label * STRETCH + lane) - load(most, lane))
            store(scores, label * STRETCH + lane, power)
            store(total, lane, load(total, lane) + power)
    for lane in range(0, STRETCH, WIDTH):
        store(total, lane, float32(1) / load(total, lane))
    for label in range(classes):
        for here in range(first, min(first + STRETCH, pixels), WIDTH):
            lane = here - first
            share = load(total, lane) * load(scores, label * STRETCH + lane)
            write(out, label * pixels + here, share, min(WIDTH, pixels - here))
