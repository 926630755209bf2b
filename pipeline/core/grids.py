"""Where a network's entries stand in an image, and how they are enlarged to it."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from pipeline.core.errors import DataError

KINDS = ("cells", "points")


@dataclass(frozen=True)
class Grid:
    """Places of the entries of a network's output.

    Attributes
    ----------
    kind : {"cells", "points"}
        cells: each entry in the middle of one of h × w cells that share the image; torch says corners not aligned.
        points: entry (row, col) on the pixel (origin + row · stride, origin + col · stride); with an origin of 0
        corners are aligned, for those who enlarge to (h − 1) · stride + 1.
    stride : int
        Pixels between two entries.
    origin : float
        Where the first point stands, px; cells have no origin.
    """

    kind: str
    stride: int
    origin: float = 0.0

    def __post_init__(self):
        if self.kind not in KINDS or self.stride < 1 or (self.kind == "cells" and self.origin):
            expected = f"{' or '.join(KINDS)}, a stride of 1 or more, an origin of points only"
            raise DataError("grid", f"{self.kind}, {self.stride}, {self.origin}", expected, "make the unaries again")

    def missing(self, size):
        """Return by how many pixels an axis must grow for its entries to stand on both sides of every pixel.

        Networks whose points begin elsewhere than at 0 see beyond the image by themselves.
        """
        return -(size - 1) % self.stride if self.kind == "points" and self.origin == 0 else 0

    def standing(self, size):
        """Return the pixels, rows or cols, that ⌈size / stride⌉ entries along an axis stand for: Tensor (n,), int64."""
        count = -(-size // self.stride)
        if self.kind == "cells":
            return ((torch.arange(count) + 0.5) * size / count).long()
        return torch.arange(count) * self.stride

    def resize(self, scores, height, width):
        """Resize scores (B, C, h, w) bilinearly to image size: (B, C, height, width).

        Pixels before the first point have its value, those beyond the last one the last one's.
        """
        if scores.shape[-2:] == (height, width):
            return scores
        if self.kind == "cells":
            return F.interpolate(scores, size=(height, width), mode="bilinear", align_corners=False)
        rows, cols = (
            self._shares(size, count).to(scores) for size, count in zip((height, width), scores.shape[-2:], strict=True)
        )
        with torch.autocast(scores.device.type, enabled=False):
            return rows @ scores @ cols.T

    def _shares(self, size, count):
        """Return what each of `count` points gives to each of `size` pixels: (size, count), rows sum to 1."""
        places = ((torch.arange(size) - self.origin) / self.stride).clamp(0, count - 1)
        return (1 - (places[:, None] - torch.arange(count)).abs()).clamp_min(0)
