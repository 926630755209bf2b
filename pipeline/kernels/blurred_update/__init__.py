"""Mean field on a coarser grid than the image's: blur, unblur, and the update of Q between the two in one pass.

Cells are squares of ``factor`` × ``factor`` pixels; their grid is centred over the image and reaches over it by less
than one cell. Source: Teichmann and Cipolla, arXiv:1805.04777, section 4.2, "Gaussian blur" (there a factor of 4), and
the padding of the authors' code.
"""

import torch

from pipeline.core.errors import DataError
from pipeline.kernels import checks, dispatch
from pipeline.kernels.blurred_update import cpu, reference

REFUSALS = {"cpu": dispatch.cpu_refusal}


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
    backend : {"auto", "cpu", "reference"}
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
    if _pick(unary, message, factor, backend) == "cpu":
        return _Update.apply(unary, message, factor)
    return reference.blurred_update(unary, message, factor)


def add_unblurred(unary, message, factor, *, backend="auto"):
    """Return unary + unblur(message), the scores (B, C, H, W); see `blurred_update`."""
    if _pick(unary, message, factor, backend) == "cpu" and not (unary.requires_grad or message.requires_grad):
        out = dispatch.room(unary.shape)
        with dispatch.compiled():
            for image in zip(*_arrays(unary, message), out.numpy(), strict=True):
                cpu.add_unblurred(*image[:2], factor, *_margins(unary, factor), image[2])
        return out
    return unary + reference.unblur(message, factor, *unary.shape[2:])


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


def _arrays(*tensors):
    return [tensor.detach().contiguous().numpy() for tensor in tensors]


def _margins(unary, factor):
    return tuple(reference.margin(size, factor) for size in unary.shape[2:])


class _Update(torch.autograd.Function):
    @staticmethod
    def forward(ctx, unary, message, factor):
        ctx.save_for_backward(unary, message)
        ctx.factor = factor
        out = dispatch.room(message.shape)
        with dispatch.compiled():
            for image in zip(*_arrays(unary, message), out.numpy(), strict=True):
                cpu.blurred_update(*image[:2], factor, *_margins(unary, factor), image[2])
        return out

    @staticmethod
    def backward(ctx, gradient):
        unary, message = ctx.saved_tensors
        (batch, classes, height, _), cols = unary.shape, message.shape[3]
        to_unary, to_message = (dispatch.room(x.shape) for x in (unary, message))
        to_rows = dispatch.room((batch, height, classes, cols))
        top, left = _margins(unary, ctx.factor)
        arrays = _arrays(gradient, unary, message, to_unary, to_rows, to_message)
        with dispatch.compiled():
            for *image, rows, coarse in zip(*arrays, strict=True):
                cpu.backward_rows(*image[:3], ctx.factor, top, left, image[3], rows)
                cpu.backward_message(rows, ctx.factor, top, coarse)
        return to_unary, to_message, None
