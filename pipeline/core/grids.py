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
        Where the first point stands, px: on the first pixel, or in the middle of a cell that begins on or before it.
        Cells of the image itself have none.
    """

    kind: str
    stride: int
    origin: float = 0.0

    def __post_init__(self):
        off = self.origin != 0 and (self.kind == "cells" or self._before < 0 or self._before % 1)
        if self.kind not in KINDS or self.stride < 1 or off:
            expected = f"{' or '.join(KINDS)}, a stride of 1 or more, of points an origin of 0 or (stride − 1) / 2 − n"
            raise DataError("grid", f"{self.kind}, {self.stride}, {self.origin}", expected, "make the unaries again")

    @property
    def _before(self):
        """How many pixels before the image the cell begins that the first point stands in the middle of."""
        return (self.stride - 1) / 2 - self.origin

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
        if self.stride == 1 and self.origin == 0 and scores.shape[-2:] == (height, width):
            return scores
        if self.kind == "cells":
            return F.interpolate(scores, size=(height, width), mode="bilinear", align_corners=False)
        aligned = self.origin == 0
        before = 0 if aligned else int(self._before)
        wanted = [
            -(-(size - 1) // self.stride) + 1 if aligned else -(-(size + before) // self.stride)
            for size in (height, width)
        ]
        lacking = [max(0, count - has) for count, has in zip(wanted, scores.shape[-2:], strict=True)]
        scores = F.pad(scores, (0, lacking[1], 0, lacking[0]), mode="replicate")
        reach = [(has - 1) * self.stride + 1 if aligned else has * self.stride for has in scores.shape[-2:]]
        whole = F.interpolate(scores, size=reach, mode="bilinear", align_corners=aligned)
        return whole[..., before : before + height, before : before + width]
