"""Images too large for memory: refined in tiles that overlap, and an estimate of what a whole one would take."""

import itertools

import numpy as np

from pipeline.core.grids import Grid
from pipeline.core.unaries import Unaries

SIDES = (256, 512)  # px of the squares that an estimate rests on
# px. What a square sees begins and ends at a multiple, so that cells of a system's own, of 2, 3, 8 px, stay in place.
ALIGNED = 96


def refine(refine_one, image, unaries, tile, halo):
    """Refine an image in tiles: labels (H, W) uint8.

    Parameters
    ----------
    refine_one : callable
        Takes image and unaries, returns labels (h, w) uint8.
    image : ndarray of shape (H, W, 3), uint8
    unaries : Unaries
        Of the whole image.
    tile : int
        Side, px. The labels of a tile are those of a square that reaches further.
    halo : int
        By how much, px, at least. Labels are those of the whole image if no pixel beyond has a say: of a ConvCRF those
        have one that are iterations · blur · (filter size − 1) / 2 px away, where `blur` divides the image's sides.
        What reaches everywhere, or rests on places in the image, as learnt positions do, differs a little.
    """
    height, width = image.shape[:2]
    log_probability = unaries.log_probability(height, width)
    labels = np.empty((height, width), dtype=np.uint8)
    for top, bottom, above, below in cuts(height, tile, halo):
        for left, right, before, behind in cuts(width, tile, halo):
            outer = np.s_[above:below, before:behind]
            scores = log_probability[:, above:below, before:behind].contiguous()
            found = refine_one(np.ascontiguousarray(image[outer]), Unaries(scores, "logits", Grid("cells", 1)))
            labels[top:bottom, left:right] = found[top - above : bottom - above, left - before : right - before]
    return labels


def cuts(size, tile, halo):
    """Return (begin, end, begin of what it sees, end of that) for each tile along an axis, all tiles nearly alike."""
    count = -(-size // tile)
    edges = [round(number * size / count) for number in range(count + 1)]
    found = []
    for begin, end in itertools.pairwise(edges):
        sees_from, sees_to = max(0, begin - halo) // ALIGNED * ALIGNED, -(-(end + halo) // ALIGNED) * ALIGNED
        found.append((begin, end, sees_from, min(size, sees_to)))
    return found


def estimate(refine_one, image, unaries, peak):
    """Return about how many bytes refining an image takes: those of two squares of it, grown with its pixels; or None.

    Parameters
    ----------
    refine_one : callable
        As for `refine`.
    image : ndarray of shape (H, W, 3), uint8
        At least 512 × 512.
    unaries : Unaries
    peak : callable
        Calls a function, returns by how many bytes memory grew meanwhile, or None if that cannot be told.
    """
    height, width = image.shape[:2]
    grown = []
    for side in SIDES:
        stride = unaries.grid.stride
        cells = -(-side // stride)
        part = Unaries(unaries.scores[:, :cells, :cells].contiguous(), unaries.kind, Grid("cells", stride))
        square = np.ascontiguousarray(image[:side, :side])
        refine_one(square, part)  # compiles, and fills what is kept
        grown.append(peak(lambda square=square, part=part: refine_one(square, part)))
        if grown[-1] is None:
            return None
    small, large = (side * side for side in SIDES)
    return grown[1] + (grown[1] - grown[0]) / (large - small) * (height * width - large)
