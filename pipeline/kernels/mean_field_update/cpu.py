"""The fast CPU path, in Numba: eight neighbouring pixels at a time, one pass over memory."""

import numpy as np
from numba import float32, njit, prange

from pipeline.kernels.simd import OPTIONS, WIDTH, exp, largest, load, read, spread, store, write

TILES = 64  # of eight pixels: what one thread takes at a time


@njit(parallel=True, **OPTIONS)
def mean_field_update(unary, messages, weights, softmax, out):
    """unary and out (C, N), messages a tuple of M such (of one where M is 0), weights (M, C)."""
    classes, pixels = unary.shape
    for chunk in prange((pixels + TILES * WIDTH - 1) // (TILES * WIDTH)):
        scores = np.empty((classes, WIDTH), np.float32)
        for here in range(chunk * TILES * WIDTH, min((chunk + 1) * TILES * WIDTH, pixels), WIDTH):
            size = min(WIDTH, pixels - here)
            most = spread(float32(-3e38))
            for label in range(classes):
                score = read(unary, label * pixels + here, size)
                for m in range(weights.shape[0]):
                    score += weights[m, label] * read(messages[m], label * pixels + here, size)
                most = largest(most, score)
                store(scores, label * WIDTH, score)
                if not softmax:
                    write(out, label * pixels + here, score, size)
            if not softmax:
                continue
            total = spread(float32(0))
            for label in range(classes):
                power = exp(load(scores, label * WIDTH) - most)
                total += power
                store(scores, label * WIDTH, power)
            share = float32(1) / total
            for label in range(classes):
                write(out, label * pixels + here, share * load(scores, label * WIDTH), size)
