"""What a network says of an image: scores per class, and the kind of number they are."""

from dataclasses import dataclass

import torch

from pipeline.core.errors import DataError
from pipeline.core.grids import Grid

KINDS = ("logits", "probability", "neg_log_probability")
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
    grid : Grid
        Where the entries stand in the image.
    """

    scores: torch.Tensor
    kind: str
    grid: Grid

    def log_probability(self, height, width, device="cpu"):
        """Return log p(class) at image size: Tensor of shape (C, height, width), float32, on a device.

        Scores are resized as they are, as in training; then normalised. Both is done on the device, which few numbers
        travel to.
        """
        scores = self.grid.resize(self.scores[None].to(device), height, width)[0]
        if self.kind == "logits":
            return scores.log_softmax(dim=0)
        if self.kind == "probability":
            return scores.clamp_min(SMALLEST).log().log_softmax(dim=0)
        return (-scores).log_softmax(dim=0)


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
