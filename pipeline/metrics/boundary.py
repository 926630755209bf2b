"""Quality near object boundaries: the same counts, over narrow bands ("trimaps") only.

A band of width *w* holds the pixels at distance 1 to *w* of a boundary. What the boundary is, the pack says:

void         the void pixels of the truth: band = dilate(void, square of side 2w + 1) without void
label_edges  the lines between pixels of two classes: for data whose void is clutter and not a contour

In both, the band of width 1 along a straight boundary is two pixels wide, one on either side.

Source: Chen et al., arXiv:1412.7062, section 5.2 and Fig. 5; Kohli, Ladický and Torr, IJCV 2009, for the idea.
"""

import numpy as np
from scipy import ndimage

from pipeline.core.errors import DataError
from pipeline.core.sample import VOID
from pipeline.metrics.overlap import pair_index

TRIMAPS = ("void", "label_edges")
FAR = np.iinfo(np.int32).max  # the distance where an image has no boundary at all


def distance(truth, trimap):
    """Return how far each pixel lies from the nearest boundary.

    Parameters
    ----------
    truth : ndarray of shape (H, W), uint8
        Class of every pixel; 255 is void.
    trimap : {"void", "label_edges"}
        What a boundary is.

    Returns
    -------
    ndarray of shape (H, W), int32
        In pixels, chessboard metric, at least 1 beside a boundary; 0 on void if void is the boundary;
        `FAR` everywhere if the image has no boundary.

    Raises
    ------
    DataError
        If `trimap` is neither of the two.
    """
    if trimap == "void":
        return _to_nearest(truth == VOID)
    if trimap == "label_edges":
        beside = _to_nearest(label_edges(truth))
        return beside + (beside < FAR)
    raise DataError("trimap", f"'{trimap}'", f"one of {', '.join(TRIMAPS)}", "mend the pack's settings")


def label_edges(truth):
    """Mark the pixels (H, W) that have a 4-neighbour of another class; void is no class and has no edges."""
    edges = np.zeros(truth.shape, dtype=bool)
    for one, other in (
        ((slice(None), slice(1, None)), (slice(None), slice(None, -1))),
        ((slice(1, None), slice(None)), (slice(None, -1), slice(None))),
    ):
        differ = (truth[one] != truth[other]) & (truth[one] != VOID) & (truth[other] != VOID)
        edges[one] |= differ
        edges[other] |= differ
    return edges


def band_confusions(truth, labels, classes, widths, trimap):
    """Count the pairs (true class, label) in bands of several widths.

    Parameters
    ----------
    truth, labels : ndarray of shape (H, W), uint8
    classes : int
    widths : sequence of int
        Rising, in pixels. A wider band holds the narrower ones.
    trimap : {"void", "label_edges"}

    Returns
    -------
    ndarray of shape (len(widths), C, C), int64
    """
    away = distance(truth, trimap)
    counted = (truth != VOID) & (away <= widths[-1])
    pairs = pair_index(truth[counted], labels[counted], classes)
    ring = np.searchsorted(widths, away[counted])  # the narrowest band that holds the pixel
    counts = np.bincount(ring * classes**2 + pairs, minlength=len(widths) * classes**2)
    return counts.reshape(len(widths), classes, classes).cumsum(axis=0)


def _to_nearest(marked):
    if not marked.any():
        return np.full(marked.shape, FAR, dtype=np.int32)
    return ndimage.distance_transform_cdt(~marked, metric="chessboard").astype(np.int32)
