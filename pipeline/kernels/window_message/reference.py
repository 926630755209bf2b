"""The formula in plain PyTorch, one neighbour offset at a time."""

import torch
import torch.nn.functional as F


def window_message(q, features, radius):
    """See the contract in the package. Memory: a few images of the size of `q`, never one per offset."""
    height, width = q.shape[-2:]
    # Outside the image q is 0, so whatever weight its pixels get, they send nothing.
    around_q, around_features = (F.pad(x, (radius,) * 4) for x in (q, features))
    message = torch.zeros_like(q)
    for row in range(2 * radius + 1):
        for col in range(2 * radius + 1):
            there = (..., slice(row, row + height), slice(col, col + width))
            distance = (features - around_features[there]).square().sum(dim=1, keepdim=True)
            message = torch.addcmul(message, torch.exp(-0.5 * distance), around_q[there])
    return message
