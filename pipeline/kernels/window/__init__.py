"""Gaussian filtering cut off at a window, exact inside it: the message passing of ConvCRF.

For pixels *i*, the window W(i) of side ``2 * radius + 1`` around it, cut at the image's edge, and kernels *m*, each
with features of its own::

    k_m(i, j)  = exp(−½ ‖f_m(i) − f_m(j)‖²)                       for j ∈ W(i), i among them
    degree_m   = Σ_j k_m(i, j)
    weights    = Σ_m left_m(i) · k_m(i, j) · right_m(j)           merged once, used in every iteration
    message    = Σ_j weights(i, j) · q(j)

Any normalisation of a kernel and its weight are a choice of `left` and `right`. Source: Teichmann and Cipolla,
arXiv:1805.04777, section 4.1, equations 5 and 6; where they differ in the neighbour's sign the kernel's symmetry makes
them equal. Time grows as B·H·W·(2·radius + 1)²·(C + ΣF), memory as B·H·W·(2·radius + 1)², whatever C.
"""

from typing import NamedTuple

import numpy as np
import torch

from pipeline.core.errors import DataError
from pipeline.kernels import checks, dispatch, source
from pipeline.kernels.window import cpu, cuda, reference

BACKENDS = {"cuda": cuda, "cpu": cpu}  # their functions take a batch's arrays and write into the last
REFUSALS = {"cuda": source.refusal, "cpu": dispatch.cpu_refusal}


def degree(features, radius, *, backend="auto"):
    """Sum the kernel over each pixel's window.

    Parameters
    ----------
    features : Tensor of shape (B, F, H, W), floating
        Position, colour or anything else, each divided by its bandwidth, so without unit.
    radius : int
        Reach of the window in pixels.
    backend : {"auto", "cuda", "cpu", "reference"}
        ``"auto"`` takes the fastest that can run the call.

    Returns
    -------
    Tensor of shape (B, 1, H, W)
        At least 1. Differentiable in `features`.

    Raises
    ------
    DataError
        If a shape, the dtype or the radius is wrong.
    BackendError
        If the backend asked for cannot run the call; the message says why.
    """
    checks.image("window, features", features)
    radius = _within(radius, features)
    chosen = dispatch.pick("window", backend, REFUSALS, features)
    if chosen == "reference":
        return reference.degree(features, radius)
    return _Degree.apply(features, radius, BACKENDS[chosen])


class Weights(NamedTuple):
    """What `weights` makes and `message` reads."""

    values: torch.Tensor  # (B, K, H, W), or by the cpu backend (B, H, K, P)
    radius: int
    shape: tuple  # (B, H, W)
    backend: str


def weights(kernels, radius, left, right, *, exclude_self=False, backend="auto"):
    """Merge kernels over each pixel's window.

    Parameters
    ----------
    kernels : list of M Tensors of shape (B, F, H, W), floating
        The features of each; F may differ.
    radius : int
    left, right : Tensor of shape (B, M, H, W), of the kernels' dtype
        What multiplies where the message arrives and where it comes from.
    exclude_self : bool
        Whether i is left out of W(i).
    backend : {"auto", "cuda", "cpu", "reference"}

    Returns
    -------
    Weights
        Differentiable in `kernels`, `left` and `right`.

    Raises
    ------
    DataError
        If shapes, dtypes or the radius are wrong.
    BackendError
        If the backend asked for cannot run the call; the message says why.
    """
    if not kernels:
        raise DataError("window", "no kernel", "one or more", "give the features of each")
    for number, features in enumerate(kernels):
        checks.image(f"window, kernel {number}", features)
    named = {f"kernel {number}": features for number, features in enumerate(kernels)}
    checks.one_size("window", **named, left=left, right=right)
    if not left.shape[1] == right.shape[1] == len(kernels):
        found = f"{len(kernels)} kernels, left {tuple(left.shape)}, right {tuple(right.shape)}"
        raise DataError("window", found, "one channel of left and right per kernel", "add or drop channels")
    radius = _within(radius, left)
    batch, _, height, width = left.shape
    chosen = dispatch.pick("window", backend, REFUSALS, *kernels, left, right)
    if chosen == "reference":
        values = reference.weights(kernels, radius, left, right, exclude_self)
    else:
        values = _Weights.apply(radius, exclude_self, BACKENDS[chosen], left, right, *kernels)
    return Weights(values, radius, (batch, height, width), chosen)


def message(q, weights):
    """Sum each pixel's neighbours, weighted.

    Parameters
    ----------
    q : Tensor of shape (B, C, H, W), floating
        What is passed on, usually class probabilities; any finite values will do.
    weights : Weights
        Of the same B, H, W and dtype.

    Returns
    -------
    Tensor of shape (B, C, H, W)
        Differentiable in `q` and in all that the weights rest on.

    Raises
    ------
    DataError
        If the weights are of another batch, size or dtype.
    BackendError
        If the weights' backend cannot take `q`.
    """
    checks.image("window, q", q)
    if (q.shape[0], *q.shape[2:]) != weights.shape:
        expected = "B, H, W = {}, {}, {} as in the weights".format(*weights.shape)
        raise DataError("window", f"q {tuple(q.shape)}", expected, "make the weights from this image")
    if q.dtype != weights.values.dtype:
        raise DataError("window", f"q {q.dtype}, weights {weights.values.dtype}", "one dtype", "convert one")
    if weights.backend == "reference":
        return reference.message(q, weights.values, weights.radius)
    dispatch.pick("window", weights.backend, REFUSALS, q)
    return _Message.apply(q, weights.values, weights.radius, BACKENDS[weights.backend])


def _within(radius, image):
    """Return the radius, cut to what reaches all of the image: beyond it there is nothing to weigh or to store."""
    if radius < 0:
        raise DataError("window, radius", str(radius), "0 or more", "pass half of the filter size")
    return min(radius, max(image.shape[2:]) - 1)


def _planes(tensor):
    """Return a tensor (B, C, H, W) as (B, C, H·W), contiguous."""
    return tensor.contiguous().flatten(2)


class _Degree(torch.autograd.Function):
    @staticmethod
    def forward(ctx, features, radius, backend):
        ctx.save_for_backward(features)
        ctx.size, ctx.backend = (*features.shape[2:], radius), backend
        out = dispatch.room(features, len(features), 1, *features.shape[2:])
        backend.degree(_planes(features), *ctx.size, out.flatten(1))
        return out

    @staticmethod
    def backward(ctx, gradient):
        (features,) = ctx.saved_tensors
        out = dispatch.room(features)
        ctx.backend.degree_backward(gradient.contiguous().flatten(1), _planes(features), *ctx.size, out.flatten(2))
        return out, None, None


class _Weights(torch.autograd.Function):
    @staticmethod
    def forward(ctx, radius, exclude_self, backend, left, right, *kernels):
        ctx.counts, ctx.backend = [features.shape[1] for features in kernels], backend
        size = (*left.shape[2:], radius)
        ctx.settings = (np.cumsum([0, *ctx.counts]), *size, exclude_self)
        features = torch.cat(kernels, dim=1)
        ctx.save_for_backward(left, right, features)
        out = dispatch.room(left, len(left), *backend.table(*size))
        backend.weights(*map(_planes, (features, left, right)), *ctx.settings, out)
        return out

    @staticmethod
    def backward(ctx, gradient):
        left, right, features = ctx.saved_tensors
        outs = [dispatch.room(x) for x in (features, left, right)]
        given = (gradient.contiguous(), *map(_planes, (features, left, right)))
        ctx.backend.weights_backward(*given, *ctx.settings, *(out.flatten(2) for out in outs))
        return None, None, None, outs[1], outs[2], *outs[0].split(ctx.counts, dim=1)


class _Message(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, weights, radius, backend):
        ctx.save_for_backward(q, weights)
        ctx.size, ctx.backend = (*q.shape[2:], radius), backend
        out = dispatch.room(q)
        backend.message(_planes(q), weights, *ctx.size, out.flatten(2))
        return out

    @staticmethod
    def backward(ctx, gradient):
        q, weights = ctx.saved_tensors
        gradient = _planes(gradient)
        to_q = to_weights = None
        if ctx.needs_input_grad[0]:
            to_q = dispatch.room(q)
            ctx.backend.message_backward_q(gradient, weights, *ctx.size, to_q.flatten(2))
        if ctx.needs_input_grad[1]:
            to_weights = dispatch.room(weights)
            ctx.backend.message_backward_weights(gradient, _planes(q), *ctx.size, to_weights)
        return to_q, to_weights, None, None
