"""Mean field on a coarser grid than the image's: blur, unblur, and the update of Q between the two in one pass.

Cells are squares of ``factor`` × ``factor`` pixels; their grid is centred over the image and reaches over it by less
than one cell. Source: Teichmann and Cipolla, arXiv:1805.04777, section 4.2, "Gaussian blur" (there a factor of 4), and
the padding of the authors' code.
"""

import torch

from pipeline.core.errors import DataError
from pipeline.kernels import checks, dispatch, source
from pipeline.kernels.blurred_update import cpu, cuda, reference

BACKENDS = {"cuda": cuda, "cpu": cpu}  # their functions take a batch's arrays and write into the last
REFUSALS = {"cuda": source.refusal, "cpu": dispatch.cpu_refusal}


def blur(values, factor):
    """Average each cell: (B, C, H, W) to (B, C, ⌈H / factor⌉, ⌈W / factor⌉); pixels outside the image do not count."""
    return reference.blur(values, factor)


def unblur(values, factor, height, width):
    """Undo `blur` bilinearly: (B, C, h, w) to (B, C, height, width)."""
    return reference.unblur(values, factor, height, width)


def blurred_update(unary, message, factor, *, backend="auto"):
    """Return the next Q, blurred::

        blur(softmax(unary + unblur(message)))

    Parameters
    ----------
    unary : Tensor of shape (B, C, H, W), floating
        U = −ψ_u.
    message : Tensor of shape (B, C, ⌈H / factor⌉, ⌈W / factor⌉), of the dtype of `unary`
        The weighted messages of the blurred Q.
    factor : int
        Side of a cell, px.
    backend : {"auto", "cuda", "cpu", "reference"}
        ``"auto"`` takes the fastest that can run the call.

    Returns
    -------
    Tensor of the shape of `message`
        Differentiable in both.

    Raises
    ------
    DataError
        If shapes or dtypes disagree.
    BackendError
        If the backend asked for cannot run the call; the message says why.
    """
    chosen = _pick(unary, message, factor, backend)
    if chosen == "reference":
        return reference.blurred_update(unary, message, factor)
    return _Update.apply(unary, message, factor, BACKENDS[chosen])


def add_unblurred(unary, message, factor, *, backend="auto"):
    """Return unary + unblur(message), the scores (B, C, H, W); see `blurred_update`."""
    chosen = _pick(unary, message, factor, backend)
    if chosen == "reference":
        return unary + reference.unblur(message, factor, *unary.shape[2:])
    return _AddUnblurred.apply(unary, message, factor, BACKENDS[chosen])


def _pick(unary, message, factor, backend):
    checks.image("blurred_update, unary", unary)
    checks.image("blurred_update, message", message)
    if factor < 1:
        raise DataError("blurred_update, factor", str(factor), "1 or more", "give the side of a cell in px")
    expected = (*unary.shape[:2], *(-(-size // factor) for size in unary.shape[2:]))
    if tuple(message.shape) != expected or message.dtype != unary.dtype:
        found = f"a message {tuple(message.shape)}, {message.dtype}"
        raise DataError("blurred_update", found, f"{expected}, {unary.dtype}", "blur q by the same factor")
    return dispatch.pick("blurred_update", backend, REFUSALS, unary, message)


def _grid(unary, factor):
    """Return the side of a cell, and how far the coarse grid reaches over the image at the top and at the left."""
    return factor, *(reference.margin(size, factor) for size in unary.shape[2:])


class _Update(torch.autograd.Function):
    @staticmethod
    def forward(ctx, unary, message, factor, backend):
        ctx.save_for_backward(unary, message)
        ctx.grid, ctx.backend = _grid(unary, factor), backend
        out = dispatch.room(message)
        backend.blurred_update(unary.contiguous(), message.contiguous(), *ctx.grid, out)
        return out

    @staticmethod
    def backward(ctx, gradient):
        unary, message = (x.contiguous() for x in ctx.saved_tensors)
        to_unary, to_message = dispatch.room(unary), dispatch.room(message)
        ctx.backend.backward(gradient.contiguous(), unary, message, *ctx.grid, to_unary)
        ctx.backend.unblur_backward(to_unary, *ctx.grid, to_message)
        return to_unary, to_message, None, None


class _AddUnblurred(torch.autograd.Function):
    @staticmethod
    def forward(ctx, unary, message, factor, backend):
        ctx.coarse, ctx.grid, ctx.backend = message.shape, _grid(unary, factor), backend
        out = dispatch.room(unary)
        backend.add_unblurred(unary.contiguous(), message.contiguous(), *ctx.grid, out)
        return out

    @staticmethod
    def backward(ctx, gradient):
        to_message = dispatch.room(gradient, *ctx.coarse)
        ctx.backend.unblur_backward(gradient.contiguous(), *ctx.grid, to_message)
        return gradient, to_message, None, None
