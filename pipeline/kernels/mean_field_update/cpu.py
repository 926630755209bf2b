"""The fast CPU path, in Numba: one pass over memory, a stretch of neighbouring pixels at a time."""

import numpy as np
from numba import prange

from pipeline.kernels.dispatch import image_by_image
from pipeline.kernels.simd import WIDTH, kernel, load, read, store, write
from pipeline.kernels.softmax import log_softmax, softmax

STRETCH = 16 * WIDTH  # pixels: long enough to read memory in order, short enough for the cache


@image_by_image
@kernel(parallel=True)
def mean_field_update(unary, messages, weights, result, out):
    """unary and out (C, N), messages a tuple of M such (of one where M is 0), weights (M, C)."""
    classes, pixels = unary.shape
    for stretch in prange((pixels + STRETCH - 1) // STRETCH):
        scores, totals = np.empty((classes, STRETCH), np.float32), np.empty(WIDTH, np.float32)
        first = stretch * STRETCH
        stop = min(first + STRETCH, pixels)
        for label in range(classes):
            for here in range(first, stop, WIDTH):
                size = min(WIDTH, pixels - here)
                score = read(unary, label * pixels + here, size)
                for m in range(weights.shape[0]):
                    score += weights[m, label] * read(messages[m], label * pixels + here, size)
                store(scores, label * STRETCH + here - first, score)
        for lane in range(0, stop - first, WIDTH):
            if result == 0:
                softmax(scores, lane)
            elif result == 1:
                log_softmax(scores, lane, totals)
        for label in range(classes):
            for here in range(first, stop, WIDTH):
                score = load(scores, label * STRETCH + here - first)
                write(out, label * pixels + here, score, min(WIDTH, pixels - here))
