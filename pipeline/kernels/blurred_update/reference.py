"""The formulas in plain PyTorch."""

import torch.nn.functional as F


def margin(size, factor):
    """Return how far the coarse grid reaches over the image at the top or at the left, px."""
    return -(-(-size % factor) // 2)


def blur(values, factor):
    """See the contract in the package."""
    if factor == 1:
        return values
    padding = [margin(size, factor) for size in values.shape[2:]]
    return F.avg_pool2d(values, factor, padding=padding, count_include_pad=False)


def unblur(values, factor, height, width):
    """See the contract in the package."""
    size = [length * factor for length in values.shape[2:]]
    fine = F.interpolate(values, size=size, mode="bilinear", align_corners=False)
    top, left = margin(height, factor), margin(width, factor)
    return fine[..., top : top + height, left : left + width]


def blurred_update(unary, message, factor):
    """See the contract in the package."""
    return blur((unary + unblur(message, factor, *unary.shape[2:])).softmax(dim=1), factor)
