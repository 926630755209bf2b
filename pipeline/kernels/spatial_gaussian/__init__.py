"""Gaussian filtering over all pairs of pixels by their distance alone, exactly: rows and columns separate."""

import math

import numpy as np
import torch

from pipeline.core.errors import DataError
from pipeline.kernels import checks, dispatch, source
from pipeline.kernels.spatial_gaussian import cpu, cuda, reference

BACKENDS = {"cuda": cuda, "cpu": cpu}  # their functions take a batch's arrays and write into the last
REFUSALS = {"cuda": source.refusal, "cpu": dispatch.cpu_refusal}
# Neighbours that weigh less than half a unit in the last place of the centre's 1 are left out.
LEAST = 2.0**-25


def spatial_gaussian(values, theta, left=None, right=None, *, backend="auto"):
    """Filter with a Gaussian of position: the smoothness kernel.

    For every class *c* and pixel *i* at p_i::

        out[c, i] = left[i] · Σ_j exp(−‖p_i − p_j‖² / 2 θ²) · right[j] · values[c, j]

    Parameters
    ----------
    values : Tensor of shape (B, C, H, W), floating
    theta : Tensor of shape ()
        θ in px, above 0.
    left, right : Tensor of shape (B, 1, H, W), optional
        1 where not given.
    backend : {"auto", "cuda", "cpu", "reference"}
        ``"auto"`` takes the fastest that can run the call.

    Returns
    -------
    Tensor of shape (B, C, H, W)
        Differentiable in `values`, `theta`, `left` and `right`.

    Raises
    ------
    DataError
        If θ is not positive, `values` no batch of images, or `left` or `right` of another shape or dtype.
    BackendError
        If the backend asked for cannot run the call; the message says why.

    Notes
    -----
    Time grows as B·C·H·W·min(θ, max(H, W)). Source: Krähenbühl and Koltun, arXiv:1210.5644, equation 3, second kernel.
    """
    checks.image("spatial_gaussian, values", values)
    if not 0 < float(theta.detach()) < math.inf:
        found = str(float(theta.detach()))
        raise DataError("spatial_gaussian, theta", found, "a positive number of px", "give a bandwidth above 0")
    chosen = dispatch.pick("spatial_gaussian", backend, REFUSALS, values)
    left, right = (torch.ones_like(values[:, :1]) if scale is None else scale for scale in (left, right))
    checks.scales("spatial_gaussian", values, left=left, right=right)
    if left.requires_grad or right.requires_grad:
        return left * spatial_gaussian(right * values, theta, backend=backend)
    if chosen == "reference":
        return left * reference.spatial_gaussian(right * values, theta.to(values))
    return _SpatialGaussian.apply(values, theta, left, right, BACKENDS[chosen])


class _SpatialGaussian(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, theta, left, right, backend):
        ctx.save_for_backward(values, theta, left, right)
        ctx.backend = backend
        return _run(backend, values, left, right, *_taps(values, theta))

    @staticmethod
    def backward(ctx, gradient):
        values, theta, left, right = ctx.saved_tensors
        to_values = to_theta = None
        if ctx.needs_input_grad[0]:
            to_values = _run(ctx.backend, gradient, right, left, *_taps(values, theta))
        if ctx.needs_input_grad[1]:
            # d/dθ of exp(−(r² + c²) / 2 θ²) is (r² + c²) / θ³ times it: a sum of two separable kernels.
            # The squares make what is far count that does not count in the sum itself.
            rows, cols = _taps(values, theta, torch.finfo(torch.float32).tiny)
            far_rows, far_cols = (taps * np.arange(taps.size, dtype=np.float32) ** 2 for taps in (rows, cols))
            moved = _run(ctx.backend, values, left, right, far_rows, cols)
            moved = moved + _run(ctx.backend, values, left, right, rows, far_cols)
            to_theta = ((gradient * moved).sum(dtype=torch.float64).to(theta.device) / theta.double() ** 3).to(theta)
        return to_values, to_theta, None, None, None


def _taps(values, theta, least=LEAST):
    """Return the weights of distances 0, 1, … in rows and in columns, down to `least`; float32."""
    theta = float(theta)
    reach = math.floor(theta * math.sqrt(-2 * math.log(least)))
    distances = (np.arange(min(size - 1, reach) + 1) for size in values.shape[2:])
    return [np.exp(-0.5 * (distance / theta) ** 2).astype(np.float32) for distance in distances]


def _run(backend, values, left, right, rows, cols):
    out = dispatch.room(values)
    scales = (scale.contiguous().flatten(0, 1) for scale in (right, left))
    backend.spatial_gaussian(values.contiguous(), *scales, rows, cols, out)
    return out
