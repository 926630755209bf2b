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
from pipeline.kernels import checks, dispatch
from pipeline.kernels.window import cpu, reference

REFUSALS = {"cpu": dispatch.cpu_refusal}


def degree(features, radius, *, backend="auto"):
    """Sum the kernel over each pixel's window.

    Parameters
    ----------
    features : Tensor of shape (B, F, H, W), floating
        Position, colour or anything else, each divided by its bandwidth, so without unit.
    radius : int
        Reach of the window in pixels.
    backend : {"auto", "cpu", "reference"}
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
    if dispatch.pick("window", backend, REFUSALS, features) == "cpu":
        return _Degree.apply(features, radius)
    return reference.degree(features, radius)


class Weights(NamedTuple):
    """What `weights` makes and `message` reads."""

    values: torch.Tensor  # (B, K, H, W), or on the CPU (B, H, K, P): see the backend
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
    backend : {"auto", "cpu", "reference"}

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
    if chosen == "cpu":
        values = _Weights.apply(radius, exclude_self, left, right, *kernels)
    else:
        values = reference.weights(kernels, radius, left, right, exclude_self)
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
    if weights.backend == "cpu":
        dispatch.pick("window", "cpu", REFUSALS, q)
        return _Message.apply(q, weights.values, weights.radius)
    return reference.message(q, weights.values, weights.radius)


def _within(radius, image):
    """Return the radius, cut to what reaches all of the image: beyond it there is nothing to weigh or to store."""
    if radius < 0:
        raise DataError("window, radius", str(radius), "0 or more", "pass half of the filter size")
    return min(radius, max(image.shape[2:]) - 1)


def _planes(tensor):
    """Return a tensor (B, C, H, W) as an array (B, C, H·W)."""
    return tensor.detach().contiguous().flatten(2).numpy()


class _Degree(torch.autograd.Function):
    @staticmethod
    def forward(ctx, features, radius):
        ctx.save_for_backward(features)
        ctx.radius = radius
        out = dispatch.room(features[:, :1].shape)
        size = features.shape[2:]
        with dispatch.compiled():
            for image, total in zip(_planes(features), _planes(out), strict=True):
                cpu.degree(image, *size, radius, total[0])
        return out

    @staticmethod
    def backward(ctx, gradient):
        (features,) = ctx.saved_tensors
        out = dispatch.room(features.shape)
        with dispatch.compiled():
            for arrays in zip(_planes(gradient), _planes(features), _planes(out), strict=True):
                cpu.degree_backward(arrays[0][0], arrays[1], *features.shape[2:], ctx.radius, arrays[2])
        return out, None


class _Weights(torch.autograd.Function):
    @staticmethod
    def forward(ctx, radius, exclude_self, left, right, *kernels):
        ctx.radius, ctx.exclude_self, ctx.counts = radius, exclude_self, [features.shape[1] for features in kernels]
        features = torch.cat(kernels, dim=1)
        ctx.save_for_backward(left, right, features)
        batch, _, height, width = left.shape
        out = dispatch.room((batch, height, (2 * radius + 1) ** 2, cpu.pitch(width)))
        splits = np.cumsum([0, *ctx.counts])
        with dispatch.compiled():
            for image, *scales, table in zip(*map(_planes, (features, left, right)), out.numpy(), strict=True):
                cpu.weights(image, splits, *scales, height, width, radius, exclude_self, table)
        return out

    @staticmethod
    def backward(ctx, gradient):
        left, right, features = ctx.saved_tensors
        height, width = left.shape[2:]
        splits = np.cumsum([0, *ctx.counts])
        outs = [dispatch.room(x.shape) for x in (features, left, right)]
        arrays = [gradient.contiguous().numpy(), *map(_planes, (features, left, right)), *map(_planes, outs)]
        with dispatch.compiled():
            for table, image, *scales, to_features, to_left, to_right in zip(*arrays, strict=True):
                cpu.weights_backward(
                    *(table, image, splits, *scales, height, width, ctx.radius, ctx.exclude_self),
                    *(to_features, to_left, to_right),
                )
        return None, None, outs[1], outs[2], *outs[0].split(ctx.counts, dim=1)


class _Message(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, weights, radius):
        ctx.save_for_backward(q, weights)
        ctx.radius = radius
        out = dispatch.room(q.shape)
        with dispatch.compiled():
            for arrays in zip(_planes(q), weights.detach().numpy(), _planes(out), strict=True):
                cpu.message(*arrays[:2], *q.shape[2:], radius, arrays[2])
        return out

    @staticmethod
    def backward(ctx, gradient):
        q, weights = ctx.saved_tensors
        size = (*q.shape[2:], ctx.radius)
        to_q = to_weights = None
        with dispatch.compiled():
            if ctx.needs_input_grad[0]:
                to_q = dispatch.room(q.shape)
                for arrays in zip(_planes(gradient), weights.numpy(), _planes(to_q), strict=True):
                    cpu.message_backward_q(*arrays[:2], *size, arrays[2])
            if ctx.needs_input_grad[1]:
                to_weights = dispatch.room(weights.shape)
                for arrays in zip(_planes(gradient), _planes(q), to_weights.numpy(), strict=True):
                    cpu.message_backward_weights(*arrays[:2], *size, arrays[2])
        return to_q, to_weights, None
