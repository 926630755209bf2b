"""How lattice points are numbered, whichever backend places the pixels."""

import numpy as np

from pipeline.core.errors import DataError


def numbering(low, high):
    """Return what turns features between `low` and `high` (d,) into vertex numbers.

    A vertex is d + 1 whole numbers that sum to 0; the first d of them, each counted from its lowest value, are the
    digits of its key, `strides` the worth of each digit.

    Returns
    -------
    strides, lowest : ndarray of shape (d + 1,), int64
        The last stride is 0.
    """
    dimensions = low.size
    axes = np.arange(1, dimensions + 1)
    low, high = low * scales(dimensions), high * scales(dimensions)
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
    return np.array([*strides, 0], np.int64), lowest


def scales(dimensions):
    """Return what each feature is multiplied by: blur and slice together then act like a unit Gaussian; float32."""
    axes = np.arange(1, dimensions + 1)
    return (np.sqrt(2 / 3) * (dimensions + 1) / np.sqrt(axes * (axes + 1))).astype(np.float32)


def steps(strides):
    """Return what a key grows by from a vertex to the next one along each axis, (d + 1,) int64."""
    return strides.sum() - strides.size * strides
