"""Losses over labelled pixels; void does not count. Each returns a sum and the number of its terms."""

import torch
import torch.nn.functional as F

from pipeline.core.errors import SettingsError
from pipeline.core.sample import VOID

OWN = "system"  # names the loss that a system brings itself


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


def soft_jaccard(scores, truth):
    """Return 1 − the soft Jaccard index summed over the images, and how many of them have labels.

    With p = softmax(scores) and t the one-hot truth, the index of a class is Σ p t / Σ (p + t − p t) over labelled
    pixels; an image's is the mean over the classes it shows. It is the image's mean IoU made differentiable, so small
    classes count as much as large ones. Source: Rahman and Wang, "Optimizing intersection-over-union in deep neural
    networks for image segmentation", ISVC 2016.

    Parameters as for `cross_entropy`.

    Returns
    -------
    (Tensor, Tensor)
        Sum and count over images, both scalars.
    """
    labelled = (truth != VOID).unsqueeze(1)
    probability = scores.softmax(dim=1) * labelled
    classes = torch.arange(scores.shape[1], device=scores.device).view(1, -1, 1, 1)
    is_class = (truth.unsqueeze(1) == classes).to(scores.dtype)
    shared = (probability * is_class).sum(dim=(2, 3))
    joint = (probability + is_class - probability * is_class).sum(dim=(2, 3))
    shown = is_class.sum(dim=(2, 3)) > 0
    # A class that is not shown has no index, and its union may be 0.
    missed = (1 - shared / torch.where(shown, joint, torch.ones_like(joint))) * shown
    images = missed.sum(dim=1) / shown.sum(dim=1).clamp_min(1)
    return images.sum(), shown.any(dim=1).sum()


LOSSES = {"cross_entropy": cross_entropy, "soft_jaccard": soft_jaccard}


def of_system(module, loss, images, log_probability, truth):
    """Return a loss of what a system makes of unaries, a sum and the number of its terms.

    Parameters
    ----------
    module : nn.Module
        As `pipeline.systems` describes.
    loss : str
        Of `LOSSES`, or "system".
    images : Tensor of shape (B, 3, H, W)
        0..255.
    log_probability : Tensor of shape (B, C, H, W)
    truth : Tensor of shape (B, H, W), int64
    """
    if loss == OWN:
        return module.loss(images, log_probability, truth)
    return LOSSES[loss](module(images, log_probability), truth)


def check(module, loss, key):
    """Refuse "system" for a system without a loss of its own, and any other loss for one that has it."""
    own = hasattr(module, "loss")
    if own != (loss == OWN):
        expected = f"'{OWN}', as this system brings its own" if own else f"one of {', '.join(LOSSES)}"
        raise SettingsError(f"key '{key}'", f"'{loss}'", expected, "change it, or take another system")
