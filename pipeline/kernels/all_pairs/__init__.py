"""Gaussian filtering over all pairs of pixels, exactly: quadratic in time, linear in memory."""

import torch

from pipeline.core.errors import DataError
from pipeline.kernels import checks, dispatch, source
from pipeline.kernels.all_pairs import cpu, cuda, reference

BACKENDS = {"cuda": cuda, "cpu": cpu}  # their functions take a batch's arrays and write into the last
REFUSALS = {"cuda": source.refusal, "cpu": dispatch.cpu_refusal}
PRECISIONS = ("float32", "tf32")


def all_pairs(values, features, *, precision="float32", backend="auto"):
    """Filter with a Gaussian kernel over all pairs of pixels.

    For every class *c* and pixel *i*::

        out[c, i] = Σ_j exp(−½ ‖features[:, i] − features[:, j]‖²) · values[c, j]

    Parameters
    ----------
    values : Tensor of shape (B, C, H, W), floating
    features : Tensor of shape (B, F, H, W), of the dtype of `values`
        Position, colour or anything else, each divided by its bandwidth, so without unit.
    precision : {"float32", "tf32"}
        With ``"tf32"`` kernel and values may be rounded to ten bits of mantissa before they are multiplied, where that
        is faster: on CUDA from compute capability 8.0 on, with up to 16 features. An output is off by a thousandth
        (2⁻¹⁰) of the same sum of |values| at most. The gradient to the features is float32's always.
    backend : {"auto", "cuda", "cpu", "reference"}
        ``"auto"`` takes the fastest that can run the call.

    Returns
    -------
    Tensor of shape (B, C, H, W)
        Differentiable in `values` and `features`.

    Raises
    ------
    DataError
        If `values` and `features` disagree in B, H, W or dtype, or there is no such precision.
    BackendError
        If the backend asked for cannot run the call; the message says why.

    Notes
    -----
    Time grows as B·(H·W)²·(C + F): on a CPU this is for small images and for checking the others. The kernel matrix is
    never stored. Source: Krähenbühl and Koltun, arXiv:1210.5644, equation 3 with both Gaussians.
    """
    checks.image("all_pairs, values", values)
    checks.image("all_pairs, features", features)
    checks.one_size("all_pairs", values=values, features=features)
    if precision not in PRECISIONS:
        raise DataError("all_pairs, precision", f"'{precision}'", f"one of {', '.join(PRECISIONS)}", "choose one")
    chosen = dispatch.pick("all_pairs", backend, REFUSALS, values, features)
    if chosen == "reference":
        return reference.all_pairs(values, features)
    return _AllPairs.apply(values, features, precision, BACKENDS[chosen])


class _AllPairs(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, features, precision, backend):
        ctx.save_for_backward(values, features)
        ctx.precision, ctx.backend = precision, backend
        return _run(backend.all_pairs, values, values, features, precision)

    @staticmethod
    def backward(ctx, gradient):
        values, features = ctx.saved_tensors
        to_values = to_features = None
        if ctx.needs_input_grad[0]:
            # The kernel is symmetric.
            to_values = _run(ctx.backend.all_pairs, values, gradient, features, ctx.precision)
        if ctx.needs_input_grad[1]:
            to_features = _run(ctx.backend.to_features, features, gradient, values, features)
        return to_values, to_features, None, None


def _run(function, like, *arguments):
    """Call a backend's function; return its output, of the shape of `like`."""
    out = dispatch.room(like)
    planes = (each.contiguous().flatten(2) if isinstance(each, torch.Tensor) else each for each in arguments)
    function(*planes, out.flatten(2))
    return out
