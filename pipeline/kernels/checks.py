"""What the kernels ask of every tensor they are given."""

import math

import torch

from pipeline.core.errors import DataError


def image(where, tensor):
    """Refuse what is no batch of images: four axes, none empty, floating numbers."""
    if tensor.ndim != 4 or tensor.numel() == 0:
        raise DataError(
            where, f"the shape {tuple(tensor.shape)}", "(B, C, H, W), none of them 0", "add or fill the axis"
        )
    if not tensor.is_floating_point():
        raise DataError(where, str(tensor.dtype), "floating numbers", "convert with .float()")


def one_size(where, **tensors):
    """Refuse tensors whose B, H, W or dtype differ."""
    (name, first), *others = tensors.items()
    for other, tensor in others:
        sizes = [(x.shape[0], *x.shape[2:]) for x in (first, tensor)]
        if sizes[0] != sizes[1]:
            swapped = sizes[0][0] == sizes[1][0] and sizes[0][:0:-1] == sizes[1][1:]
            hint = "rows and columns look swapped" if swapped else "pass arrays of one image size"
            found = f"{name} {tuple(first.shape)} with {other} {tuple(tensor.shape)}"
            raise DataError(where, found, "one batch, height and width", hint)
        if first.dtype != tensor.dtype:
            raise DataError(where, f"{name} {first.dtype}, {other} {tensor.dtype}", "one dtype", "convert one")


def scales(where, values, **scales):
    """Refuse factors of pixels that are not (B, 1, H, W), of the dtype of `values` (B, C, H, W)."""
    expected = (values.shape[0], 1, *values.shape[2:])
    for name, scale in scales.items():
        if tuple(scale.shape) != expected or scale.dtype != values.dtype:
            found = f"{name} {tuple(scale.shape)}, {scale.dtype}"
            raise DataError(where, found, f"{expected}, {values.dtype}", "give one factor for each pixel")


def finite(where, tensor):
    """Refuse a tensor (B, C, H, W) with NaN or infinity; name the first."""
    # One NaN or infinity makes the sum one: a pass that writes nothing.
    if math.isfinite(float(tensor.detach().sum(dtype=torch.float64))):
        return
    bad = ~torch.isfinite(tensor)
    if bad.any():
        index = tuple(int(i) for i in bad.nonzero()[0])
        place = "image {}, channel {}, row {}, col {}".format(*index)
        raise DataError(f"{where}, {place}", f"{float(tensor[index])}", "finite numbers", "look where it comes from")
