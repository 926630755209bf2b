"""Gaussian filters of q, normalised: what a kernel of a dense CRF makes of the neighbours' beliefs.

With K the kernel's matrix over pixels and D = K·1 its row sums, a filter is left · K · right::

    none        K                       as in the formula
    symmetric   D^−½ K D^−½
    after       D^−1 K                  a weighted mean of the neighbours
    before      K D^−1
"""

import torch

from pipeline.kernels import window as windows
from pipeline.kernels.all_pairs import all_pairs
from pipeline.kernels.permutohedral import build, permutohedral
from pipeline.kernels.spatial_gaussian import spatial_gaussian

NORMALISATIONS = ("none", "symmetric", "after", "before")
# A pixel whose neighbours weigh less than this in all has none and gets no message: with `exclude_self` the sum is a
# difference from 1, of which rounding would leave little.
LEAST = 1e-4


def scales(total, mode):
    """Return `left` and `right` (B, 1, H, W) of a kernel with row sums `total` (B, 1, H, W), in one normalisation."""
    ones = torch.ones_like(total)
    if mode == "none":
        return ones, ones
    some = (total > LEAST).to(total)
    inverse = some / total.clamp_min(LEAST)
    if mode == "symmetric":
        root = some * total.clamp_min(LEAST).rsqrt()
        return root, root
    return (inverse, ones) if mode == "after" else (ones, inverse)


def factors(row_sums, like, mode, exclude_self=False):
    """Return `left` and `right` as `scales` does; `row_sums`, a callable, is asked only where the mode needs D.

    `like` (B, M, H, W) gives batch, size, dtype and device where it does not.
    """
    return scales(like if mode == "none" else row_sums() - int(exclude_self), mode)


def normalised(kernel, like, mode, exclude_self):
    """Return a filter of q.

    Parameters
    ----------
    kernel : callable
        Takes values (B, C, H, W), left and right (B, 1, H, W) or None; returns left · K (right · values).
    like : Tensor of shape (B, C, H, W)
        Gives batch, size, dtype and device.
    mode : {"none", "symmetric", "after", "before"}
    exclude_self : bool
        Whether the pixel itself, k(i, i) = 1, is left out of its neighbours.

    Returns
    -------
    callable
        Takes q (B, C, H, W), returns its message, same shape.
    """
    one = like[:, :1]
    left, right = factors(lambda: kernel(torch.ones_like(one), None, None), one, mode, exclude_self)
    if not exclude_self:
        return lambda q: kernel(q, left, right)
    return lambda q: kernel(q, left, right) - left * right * q


def lattice(features, mode):
    """Filter over all pairs of pixels by `features` (B, F, H, W), approximately; no gradient to the features.

    A pixel is always one of its own neighbours: what it has of its own output is not k(i, i) here, and cannot be taken
    out.
    """
    places = build(features)
    return normalised(lambda q, left, right: permutohedral(q, places, left, right), features, mode, False)


def placed(features, mode):
    """Return what `lattice` filters with, for `lattice_mean_field`: the lattice, left and right."""
    places = build(features)
    one = features[:, :1]
    return places, *factors(lambda: permutohedral(torch.ones_like(one), places), one, mode)


def exact(features, mode, exclude_self, precision):
    """Filter over all pairs of pixels by `features` (B, F, H, W), exactly: in time quadratic in the pixels.

    `precision` is that of `all_pairs`.
    """

    def kernel(q, left, right):
        if left is None:
            return all_pairs(q, features, precision=precision)
        return left * all_pairs(right * q, features, precision=precision)

    return normalised(kernel, features, mode, exclude_self)


def spatial(theta, like, mode, exclude_self):
    """Filter over all pairs of pixels by their distance in units of `theta`, a Tensor of shape (), px; exactly.

    The kernel reads `theta` at every call: where it lies on a GPU, that is waited for each time.
    """
    return normalised(lambda q, left, right: spatial_gaussian(q, theta, left, right), like, mode, exclude_self)


def window(features, radius, mode, exclude_self):
    """Filter within a window of side 2 `radius` + 1 by `features` (B, F, H, W), exactly."""
    sides = factors(lambda: windows.degree(features, radius), features[:, :1], mode, exclude_self)
    merged = windows.weights([features], radius, *sides, exclude_self=exclude_self)
    return lambda q: windows.message(q, merged)
