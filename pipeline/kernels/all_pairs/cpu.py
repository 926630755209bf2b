"""The fast CPU path, in Numba: eight receiving pixels at a time, the kernel never stored."""

import numpy as np
from numba import float32, njit, prange

from pipeline.kernels.dispatch import image_by_image
from pipeline.kernels.simd import WIDTH, kernel, load, read, spread, store, write
from pipeline.kernels.softmax import exp

BATCH = 256  # senders whose kernel values stay in the cache while the classes are summed


@njit(inline="always")
def _kernel(own, features, pixel):
    """Return k(i, j) for eight pixels i, their features (F, 8), and one pixel j."""
    distance = spread(float32(0))
    for feature in range(features.shape[0]):
        difference = load(own, feature * WIDTH) - features[feature, pixel]
        distance += difference * difference
    return exp(float32(-0.5) * distance)


@njit(inline="always")
def _eight(planes, here, size):
    """Copy eight pixels of every plane (·, N) together, (·, 8)."""
    found = np.empty((planes.shape[0], WIDTH), np.float32)
    for plane in range(planes.shape[0]):
        store(found, plane * WIDTH, read(planes, plane * planes.shape[1] + here, size))
    return found


@image_by_image
@kernel(parallel=True)
def _all_pairs(values, features, out):
    """values and out (C, N), features (F, N)."""
    classes, pixels = values.shape
    for tile in prange((pixels + WIDTH - 1) // WIDTH):
        here = tile * WIDTH
        size = min(WIDTH, pixels - here)
        own = _eight(features, here, size)
        sums = np.zeros((classes, WIDTH), np.float32)
        kernel = np.empty((BATCH, WIDTH), np.float32)
        for first in range(0, pixels, BATCH):
            count = min(BATCH, pixels - first)
            for k in range(count):
                store(kernel, k * WIDTH, _kernel(own, features, first + k))
            for label in range(0, classes, 4):
                # Four sums that do not wait for one another; classes beyond the last repeat it. Each batch is summed by
                # itself first: rounding grows with the longest sum.
                second, third, fourth = (
                    min(label + 1, classes - 1),
                    min(label + 2, classes - 1),
                    min(label + 3, classes - 1),
                )
                a, b, c, d = spread(float32(0)), spread(float32(0)), spread(float32(0)), spread(float32(0))
                for k in range(count):
                    near = load(kernel, k * WIDTH)
                    a += values[label, first + k] * near
                    b += values[second, first + k] * near
                    c += values[third, first + k] * near
                    d += values[fourth, first + k] * near
                a += load(sums, label * WIDTH)
                b += load(sums, second * WIDTH)
                c += load(sums, third * WIDTH)
                d += load(sums, fourth * WIDTH)
                store(sums, label * WIDTH, a)
                store(sums, second * WIDTH, b)
                store(sums, third * WIDTH, c)
                store(sums, fourth * WIDTH, d)
        for label in range(classes):
            write(out, label * pixels + here, load(sums, label * WIDTH), size)


def all_pairs(values, features, precision, out):
    """values and out (B, C, N), features (B, F, N); whatever the precision, products are float32's."""
    _all_pairs(values, features, out)


@image_by_image
@kernel(parallel=True)
def to_features(gradient, values, features, out):
    """Return the gradient of `all_pairs` to the features: gradient and values (C, N), features and out (F, N)."""
    classes, pixels = values.shape
    # A sum of sums, so long that what rounds in the one weighs as much as what rounds in the other.
    short = int(np.ceil(pixels ** (2 / 3)))
    for tile in prange((pixels + WIDTH - 1) // WIDTH):
        here = tile * WIDTH
        size = min(WIDTH, pixels - here)
        own = _eight(features, here, size)
        own_gradient, own_values = _eight(gradient, here, size), _eight(values, here, size)
        sums = np.zeros((features.shape[0], WIDTH), np.float32)
        some = np.empty((features.shape[0], WIDTH), np.float32)
        for first in range(0, pixels, short):
            some[:] = 0
            for pixel in range(first, min(first + short, pixels)):
                received, sent = spread(float32(0)), spread(float32(0))
                for label in range(classes):
                    received += values[label, pixel] * load(own_gradient, label * WIDTH)
                    sent += gradient[label, pixel] * load(own_values, label * WIDTH)
                pull = (received + sent) * _kernel(own, features, pixel)
                for feature in range(features.shape[0]):
                    moved = pull * (features[feature, pixel] - load(own, feature * WIDTH))
                    store(some, feature * WIDTH, load(some, feature * WIDTH) + moved)
            for feature in range(features.shape[0]):
                store(sums, feature * WIDTH, load(sums, feature * WIDTH) + load(some, feature * WIDTH))
        for feature in range(features.shape[0]):
            write(out, feature * pixels + here, load(sums, feature * WIDTH), size)
