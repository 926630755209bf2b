"""Gaussian filtering over all pairs of pixels, approximately and in linear time, on the permutohedral lattice."""

from typing import NamedTuple

import torch

from pipeline.core.errors import DataError
from pipeline.kernels import checks, dispatch
from pipeline.kernels.permutohedral import cpu, cuda, reference

BACKENDS = {"cuda": cuda, "cpu": cpu}  # their functions take a batch's arrays and write into the last
REFUSALS = {"cuda": cuda.refusal, "cpu": dispatch.cpu_refusal}
MOST_FEATURES = 8
FURTHEST = 1e5  # beyond it float32 no longer tells where in its simplex a pixel lies


class Lattice(NamedTuple):
    """Where the pixels of a batch lie on their lattices; made by `build`, used by any number of filterings."""

    images: object  # one lattice per image or one for all, as the backend keeps it
    shape: tuple  # (B, H, W)
    backend: str


def build(features, *, backend="auto"):
    """Place the pixels of every image in a lattice of its own.

    Parameters
    ----------
    features : Tensor of shape (B, F, H, W), float32 or float64, F from 1 to 8
        Position, colour or anything else, each divided by its bandwidth, so without unit. Their order matters a little:
        the lattice is not invariant to it.
    backend : {"auto", "cuda", "cpu", "reference"}
        ``"auto"`` takes the fastest that can run the call.

    Returns
    -------
    Lattice

    Raises
    ------
    DataError
        If a feature is not finite or beyond ±100,000, if there are more than eight, or if they span more lattice points
        than 63 bits can number.
    BackendError
        If the backend asked for cannot run the call; the message says why.

    Notes
    -----
    Time and memory grow as B·H·W·F². There is no gradient to the features; features that need one are refused.
    Source: Adams, Baek and Davis, Fast High-Dimensional Filtering Using the Permutohedral Lattice, Eurographics 2010.
    """
    checks.image("permutohedral, features", features)
    if not 1 <= features.shape[1] <= MOST_FEATURES:
        found = f"{features.shape[1]} features"
        raise DataError("permutohedral", found, f"1 to {MOST_FEATURES}", "use the exact filter, or fewer")
    if features.requires_grad:
        found = "features that need a gradient"
        raise DataError("permutohedral", found, "fixed ones", "use the exact or the window filter to learn bandwidths")
    chosen = dispatch.pick("permutohedral", backend, REFUSALS, features)
    # A NaN among the numbers makes both ends NaN. They are read back once: that waits for a GPU.
    ends = torch.stack([features.amin(dim=(2, 3)), features.amax(dim=(2, 3))]).cpu()
    if not (furthest := float(ends.abs().max())) <= FURTHEST:
        checks.finite("permutohedral, features", features)
        found, expected = f"one of size {furthest:.1e}", f"{FURTHEST:.0e} at most"
        raise DataError("permutohedral, features", found, expected, "divide the features by larger bandwidths")
    if chosen == "reference":
        images = [reference.build(image.T) for image in features.flatten(2)]
    else:
        images = BACKENDS[chosen].build(features.contiguous(), *ends.numpy())
    return Lattice(images, (features.shape[0], *features.shape[2:]), chosen)


def permutohedral(values, lattice, left=None, right=None):
    """Filter with an approximately Gaussian kernel over all pairs of pixels.

    For every class *c* and pixel *i*, nearly::

        out[c, i] = left[i] · Σ_j exp(−½ ‖features[:, i] − features[:, j]‖²) · right[j] · values[c, j]

    up to a factor that varies little with i and that normalisation takes away: in five dimensions the lattice's sums
    are about half of the exact ones.

    Parameters
    ----------
    values : Tensor of shape (B, C, H, W), float32 or float64
    lattice : Lattice
        Of the same B, H, W; its backend is used.
    left, right : Tensor of shape (B, 1, H, W), optional
        1 where not given.

    Returns
    -------
    Tensor of shape (B, C, H, W)
        Differentiable in `values`, `left` and `right`; the gradient to the values is the transposed filter, exactly.

    Raises
    ------
    DataError
        If the lattice is of another batch or size, or `left` or `right` of another shape or dtype.
    BackendError
        If the lattice's backend cannot take the values.

    Notes
    -----
    Splat, blur along F + 1 axes by (½, 1, ½), slice. Time grows as B·C·(H·W·F + V·F), V the number of vertices touched.
    """
    checks.image("permutohedral, values", values)
    batch, _, height, width = values.shape
    if (batch, height, width) != lattice.shape:
        found, expected = (
            f"values {tuple(values.shape)}",
            "B, H, W = {}, {}, {} as in the lattice".format(*lattice.shape),
        )
        raise DataError("permutohedral", found, expected, "build the lattice from this image")
    if lattice.backend != "reference":
        dispatch.pick("permutohedral", lattice.backend, REFUSALS, values)
    left, right = (torch.ones_like(values[:, :1]) if scale is None else scale for scale in (left, right))
    checks.scales("permutohedral", values, left=left, right=right)
    if left.requires_grad or right.requires_grad:
        return left * permutohedral(right * values, lattice)
    return _Filter.apply(values, lattice, left, right)


class _Filter(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, lattice, left, right):
        ctx.lattice, ctx.scales = lattice, (left, right)
        return _filtered(values, lattice, left, right, transposed=False)

    @staticmethod
    def backward(ctx, gradient):
        left, right = ctx.scales
        return _filtered(gradient, ctx.lattice, right, left, transposed=True), None, None, None


def _filtered(values, lattice, left, right, transposed):
    batch, classes = values.shape[:2]
    left, right = (scale.detach().reshape(batch, -1).contiguous() for scale in (left, right))
    if lattice.backend == "reference":
        images = zip(values.reshape(batch, classes, -1).mT, lattice.images, left, right, strict=True)
        return torch.stack([reference.filtered(*image, transposed) for image in images]).mT.reshape(values.shape)
    out = dispatch.room(values)
    BACKENDS[lattice.backend].filtered(values.contiguous(), lattice.images, left, right, transposed, out)
    return out
