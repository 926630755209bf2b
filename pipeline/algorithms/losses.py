"""Losses over labelled pixels; void does not count."""

import torch.nn.functional as F

VOID = 255


def cross_entropy(scores, truth):
    """Return the cross-entropy summed over labelled pixels, and how many there are.

    Parameters
    ----------
    scores : Tensor of shape (B, C, H, W)
        Any scores; their softmax over C is compared.
    truth : Tensor of shape (B, H, W), int64
        Class, or 255 for void.

    Returns
    -------
    (Tensor, Tensor)
        Sum and count, both scalars. Callers divide, so that a mean over several devices is exact.
    """
    # Flat, since the two-dimensional kernel is not deterministic on CUDA.
    scores = scores.permute(0, 2, 3, 1).flatten(0, 2)
    total = F.cross_entropy(scores, truth.flatten(), ignore_index=VOID, reduction="sum")
    return total, (truth != VOID).sum()
