"""What a network says of an image: scores per class, and the kind of number they are."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from pipeline.core.errors import DataError

KINDS = ("logits", "probability", "neg_log_probability")
GRIDS = ("cells", "points")
SMALLEST = 1e-20  # probabilities are clipped here before the logarithm; smaller ones carry no information


@dataclass(frozen=True)
class Unaries:
    """Scores of one image at the network's own stride.

    Attributes
    ----------
    scores : Tensor of shape (C, h, w), float32
        One map per class, h × w the size of the network's output.
    kind : {"logits", "probability", "neg_log_probability"}
        What the numbers are. Only `log_probability` reads it, so no system can mix kinds up.
    stride : int
        Pixels between two entries.
    grid : {"cells", "points"}
        Where the entries stand in the image, see `resize`.
    """

    scores: torch.Tensor
    kind: str
    stride: int
    grid: str

    def log_probability(self, height, width):
        """Return log p(class) at image size: Tensor of shape (C, height, width), float32.

        Scores are resized as they are, as in training; then normalised.
        """
        scores = resize(self.scores[None], height, width, self.stride, self.grid)[0]
        if self.kind == "logits":
            return scores.log_softmax(dim=0)
        if self.kind == "probability":
            return scores.clamp_min(SMALLEST).log().log_softmax(dim=0)
        return (-scores).log_softmax(dim=0)


def resize(scores, height, width, stride, grid):
    """Resize scores bilinearly to image size.

    Parameters
    ----------
    scores : Tensor of shape (B, C, h, w)
    height, width : int
        Of the image, px.
    stride : int
        Pixels between two entries of the scores.
    grid : {"cells", "points"}
        Where the entries stand. cells: each in the middle of one of h × w cells that share the image; torch says
        corners not aligned. points: entry (row, col) on the pixel (row · stride, col · stride); corners aligned, for
        those who enlarge to (h − 1) · stride + 1. Pixels beyond the last entry have its value.

    Returns
    -------
    Tensor of shape (B, C, height, width)
    """
    if scores.shape[-2:] == (height, width):
        return scores
    if grid == "cells":
        return F.interpolate(scores, size=(height, width), mode="bilinear", align_corners=False)
    sizes = zip((height, width), scores.shape[-2:], strict=True)
    beyond = [max(0, -(-(size - 1) // stride) + 1 - has) for size, has in sizes]
    scores = F.pad(scores, (0, beyond[1], 0, beyond[0]), mode="replicate")
    reach = [(has - 1) * stride + 1 for has in scores.shape[-2:]]
    return F.interpolate(scores, size=reach, mode="bilinear", align_corners=True)[..., :height, :width]


def standing(size, stride, grid):
    """Return the pixels, rows or cols, that the ⌈size / stride⌉ entries along an axis stand for: Tensor (n,), int64."""
    count = -(-size // stride)
    if grid == "cells":
        return ((torch.arange(count) + 0.5) * size / count).long()
    return torch.arange(count) * stride


def check(scores, kind, where):
    """Refuse scores that are not finite, or not of the kind they claim to be.

    Parameters
    ----------
    scores : Tensor of shape (C, h, w)
    kind : {"logits", "probability", "neg_log_probability"}
    where : str
        Names the scores in an error.

    Raises
    ------
    DataError
        With the class and position of the first bad score.
    """
    bad = ~torch.isfinite(scores)
    if bad.any():
        label, row, col = (int(i) for i in bad.nonzero()[0])
        raise DataError(
            f"{where}, class {label}, row {row}, col {col}",
            f"the score {float(scores[label, row, col])}",
            "finite scores",
            "look for a diverged training or a damaged cache, and make the unaries again",
        )
    as_probability = torch.exp(-scores) if kind == "neg_log_probability" else scores
    if scores.shape[0] > 1 and (kind == "logits") == _is_probability(as_probability):
        sums = "scores in [0, 1] that sum to 1 at every pixel" if kind == "logits" else "scores that are none"
        hint = "probability" if kind == "logits" else "logits"
        raise DataError(where, f"{sums}, marked as {kind}", f"scores of kind '{kind}'", f"state the kind '{hint}'")


def _is_probability(scores):
    total = scores.float().sum(dim=0)
    return bool(scores.min() >= 0) and bool((total - 1).abs().max() < 1e-3)
