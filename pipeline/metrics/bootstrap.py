"""How sure a difference between two runs is: a paired bootstrap over the images both were scored on.

Images are drawn with replacement, the same ones for both runs, and the difference of the mean IoU of the pooled
counts is taken anew. Frames of a video resemble their neighbours, so there whole blocks are drawn.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13 (percentile interval).
"""

from dataclasses import dataclass

import numpy as np

from pipeline.metrics.overlap import mean_iou_of

LEVEL = 0.95
DRAWN_AT_ONCE = 2**20  # numbers held in memory per chunk of resamples


@dataclass(frozen=True)
class Difference:
    """A difference of mean IoU, as a share (0.01 is one point), with its 95 % interval."""

    value: float
    low: float
    high: float


def paired_difference(one, other, *, resamples, seed, blocks=None):
    """Return the mean IoU of `one` minus that of `other`, with a bootstrap interval.

    Parameters
    ----------
    one, other : ndarray of shape (N, 3, C), integer
        `overlap.marginals` of each image, the same images in the same order.
    resamples : int
        How many times images are drawn; 2000 settle the interval's ends to about a twentieth of its length.
    seed : int
        Of the draws. The same seed draws the same images for every pair of runs.
    blocks : sequence of str, optional
        Block of each image, drawn as a whole; each image by itself if None.

    Returns
    -------
    Difference
        Its interval is NaN if no resample has a difference (nothing was scored).

    Notes
    -----
    Time grows as resamples · blocks · C; memory stays below some 10 MiB beside the counts.
    """
    both = np.stack([one, other], axis=1).astype(np.float64)
    both = _sum_blocks(both, blocks)
    value = _difference(both.sum(axis=0)[None])[0]
    drawn = np.concatenate([_difference(sums) for sums in _resampled(both, resamples, seed)])
    drawn = drawn[np.isfinite(drawn)]
    if not drawn.size:
        return Difference(float(value), np.nan, np.nan)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Difference(float(value), float(low), float(high))


def _sum_blocks(values, blocks):
    """Sum (N, …) over the images of each block, blocks in order of their names."""
    if blocks is None:
        return values
    names, block = np.unique(np.asarray(blocks), return_inverse=True)
    sums = np.zeros((len(names), *values.shape[1:]))
    np.add.at(sums, block, values)
    return sums


def _resampled(values, resamples, seed):
    """Yield, some resamples at a time, the sums of the units (N, …) drawn with replacement."""
    units, shape = len(values), values.shape[1:]
    flat, rng = values.reshape(units, -1), np.random.default_rng(seed)
    at_once = max(1, DRAWN_AT_ONCE // (units + flat.shape[1]))
    for start in range(0, resamples, at_once):
        count = min(at_once, resamples - start)
        times = rng.multinomial(units, np.full(units, 1 / units), size=count)
        # Whole numbers far below 2**53: exact in float64, whatever the order of summing.
        yield (times.astype(np.float64) @ flat).reshape(count, *shape)


def _difference(sums):
    """Return mean IoU of the first run minus the second: (R, 2, 3, C) → (R,)."""
    means = mean_iou_of(sums)
    return means[:, 0] - means[:, 1]
