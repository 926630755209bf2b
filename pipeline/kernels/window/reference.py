"""The formulas in plain PyTorch, one neighbour offset at a time."""

import torch
import torch.nn.functional as F


def _neighbours(x, radius):
    """Yield, offset by offset in rows and then columns, each pixel's neighbour; outside the image 0."""
    height, width = x.shape[-2:]
    around = F.pad(x, (radius,) * 4)
    for row in range(2 * radius + 1):
        for col in range(2 * radius + 1):
            yield around[..., row : row + height, col : col + width]


def _kernel(features, radius):
    """Yield k(i, j) for every offset: (B, 1, H, W), 0 where j lies outside the image."""
    inside = torch.ones_like(features[:, :1])
    for there, known in zip(_neighbours(features, radius), _neighbours(inside, radius), strict=True):
        yield torch.exp(-0.5 * (features - there).square().sum(dim=1, keepdim=True)) * known


def degree(features, radius):
    """See the contract in the package."""
    return sum(_kernel(features, radius))


def weights(kernels, radius, left, right, exclude_self):
    """See the contract in the package; offsets are the second axis: (B, (2 radius + 1)², H, W)."""
    merged = 0
    for number, features in enumerate(kernels):
        receives, sends = left[:, number, None], right[:, number, None]
        sent = _neighbours(sends, radius)
        merged = merged + torch.cat(
            [receives * k * there for k, there in zip(_kernel(features, radius), sent, strict=True)], dim=1
        )
    if exclude_self:
        others = torch.ones(merged.shape[1], 1, 1).to(merged)
        others[merged.shape[1] // 2] = 0
        merged = merged * others
    return merged


def message(q, weights, radius):
    """See the contract in the package."""
    total = torch.zeros_like(q)
    for weight, there in zip(weights.unbind(dim=1), _neighbours(q, radius), strict=True):
        total = torch.addcmul(total, weight[:, None], there)
    return total
