"""Costs between neighbours beside the labels they led to, in two enlarged regions of an image."""

import matplotlib as mpl
import numpy as np
from scipy import ndimage

from pipeline.figures import gallery, page, palette

EXPLAINED = (
    "Of the image that the system gains most on, the two squares in which it changed most of the network's labels, as "
    "Figure 5 of Colovic et al. (CVWW 2017) shows them. Costs: what a jump between classes costs at a pixel, to the "
    "right and below; dark is cheap, so borders may run there."
)
PART = 0.3  # of the shorter side, that of a square
FRAME = (255, 40, 120)  # seldom a colour of photographs
_SCALE = mpl.colormaps["magma"]


def regions(changed, count=2):
    """Choose squares with the most changed pixels, none over another.

    Parameters
    ----------
    changed : ndarray of shape (H, W), bool
    count : int

    Returns
    -------
    list of (slice, slice)
        Rows and columns; as many as fit.
    """
    height, width = changed.shape
    side = max(1, round(PART * min(height, width)))
    sums = np.zeros((height + 1, width + 1), np.int64)
    sums[1:, 1:] = changed.cumsum(axis=0).cumsum(axis=1)
    inside = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    found = []
    while len(found) < count and inside.max(initial=-1) >= 0:
        row, col = np.unravel_index(inside.argmax(), inside.shape)
        found.append((slice(int(row), int(row) + side), slice(int(col), int(col) + side)))
        inside[max(0, row - side + 1) : row + side, max(0, col - side + 1) : col + side] = -1
    return found


def framed(image, squares):
    """Draw the outlines of squares on a copy of a photograph (H, W, 3) uint8."""
    result = image.copy()
    for square in squares:
        inside = np.zeros(image.shape[:2], dtype=bool)
        inside[square] = True
        result[inside & ~ndimage.binary_erosion(inside, iterations=max(1, max(inside.shape) // 200))] = FRAME
    return result


def scene(sample, before, after, costs, title):
    """Return one image's regions: photograph, truth, labels before and after, costs.

    Parameters
    ----------
    sample : Sample
    before, after : ndarray of shape (H, W), uint8
        Labels of the network and of the system.
    costs : ndarray of shape (H, W)
        Not negative.
    title : str
        HTML.

    Returns
    -------
    str
        HTML.
    """
    squares, colours = regions(before != after), palette.voc()
    bright = np.uint8(np.round(255 * _SCALE(costs / max(float(costs.max()), 1e-12))[..., :3]))
    whole = gallery.photograph(framed(sample.image, squares), f"photograph {sample.name}, with squares")
    tiles = [
        gallery.tile(whole, gallery.photograph(bright, "costs of the whole image"), "image; costs between neighbours")
    ]
    for name, array, map_of in (
        ("photograph", sample.image, None),
        ("truth", sample.truth, colours),
        ("network", before, colours),
        ("with the CRF", after, colours),
        ("costs", bright, None),
    ):
        parts = [page.picture(array[square], f"{name}, square", map_of) for square in squares]
        tiles.append(gallery.tile(*(parts + [""] * (2 - len(parts))), name))
    return gallery.framed(title, tiles)
