"""The exponential, the softmax and its logarithm of the Numba kernels, eight pixels at a time."""

import math

from numba import float32, njit

from pipeline.kernels.simd import WIDTH, largest, load, nearest_whole, power_of_two, smallest, spread, store


@njit(inline="always")
def exp(lanes):
    """Return e**x within 1.5 units in the last place; x is held to −87.3 ≤ x ≤ 88.3, NaN stays NaN.

    x = n ln 2 + r with |r| ≤ ln 2 / 2; e**r by a polynomial of degree 7, fitted to the least relative error (5e-11
    before rounding); 2**n by writing the exponent.
    """
    x = smallest(spread(float32(88.37626)), largest(spread(float32(-87.33654)), lanes))
    n = nearest_whole(float32(1.44269504) * x)
    # ln 2 in two parts, the first with few digits, so that n times it is exact.
    r = (x - float32(0.693359375) * n) - float32(-2.12194440e-4) * n
    p = float32(1.9790298e-4) * r + float32(1.39447036e-3)
    p = p * r + float32(8.33349734e-3)
    p = p * r + float32(4.16662944e-2)
    p = p * r + float32(1.66666659e-1)
    p = p * r + float32(0.5)
    return (p * (r * r) + r + float32(1)) * power_of_two(n)


@njit(inline="always")
def _largest(scores, lane):
    """Return the largest score of each of eight pixels."""
    high = spread(float32(-3e38))
    for label in range(scores.shape[0]):
        high = largest(high, load(scores, label * scores.shape[1] + lane))
    return high


@njit(inline="always")
def softmax(scores, lane):
    """Turn the scores of eight pixels into their softmax, in place.

    scores (C, columns), float32; the pixels are the columns from `lane` on.
    """
    classes, columns = scores.shape
    high, total = _largest(scores, lane), spread(float32(0))
    for label in range(classes):
        power = exp(load(scores, label * columns + lane) - high)
        total += power
        store(scores, label * columns + lane, power)
    share = float32(1) / total
    for label in range(classes):
        store(scores, label * columns + lane, share * load(scores, label * columns + lane))


@njit(inline="always")
def log_softmax(scores, lane, totals):
    """Turn the scores of eight pixels into the logarithm of their softmax, in place; `totals` (8,) is room for sums."""
    classes, columns = scores.shape
    high, total = _largest(scores, lane), spread(float32(0))
    for label in range(classes):
        lanes = load(scores, label * columns + lane) - high
        total += exp(lanes)
        store(scores, label * columns + lane, lanes)
    store(totals, 0, total)
    for each in range(WIDTH):  # one logarithm for all classes: not worth a vector's
        totals[each] = math.log(totals[each])
    level = load(totals, 0)
    for label in range(classes):
        store(scores, label * columns + lane, load(scores, label * columns + lane) - level)
