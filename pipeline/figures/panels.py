"""One image of a pack, of unaries or of labels as a picture: panels side by side."""

from io import BytesIO

import matplotlib as mpl
import numpy as np
from PIL import Image

from pipeline.figures import gallery, palette

GAP = 4  # px between panels
SHORTEST = 256  # px; smaller panels are enlarged by a whole factor


def labels(array):
    """Colour a map of classes, (H, W) uint8 → (H, W, 3) uint8."""
    return palette.voc()[array]


def errors(truth, array):
    """Show where labels are right (light), wrong (dark) or not scored (white)."""
    return gallery.DIFFERENCE[gallery.difference(truth, array, array)]


def entropy(log_probability):
    """Show how unsure each pixel is, (C, H, W) → (H, W, 3) uint8: black sure, pale all classes alike."""
    unsure = -(np.exp(log_probability) * log_probability).sum(axis=0) / np.log(max(2, len(log_probability)))
    return np.uint8(np.round(255 * mpl.colormaps["magma"](np.clip(unsure, 0, 1))[..., :3]))


def side_by_side(panels):
    """Join panels (H, W, 3) uint8 of one size into one picture and return it as PNG bytes."""
    factor = max(1, SHORTEST // max(panels[0].shape[:2]))
    large = [panel.repeat(factor, axis=0).repeat(factor, axis=1) for panel in panels]
    gap = np.full((large[0].shape[0], GAP, 3), 255, dtype=np.uint8)
    joined = np.concatenate([piece for panel in large for piece in (panel, gap)][:-1], axis=1)
    file = BytesIO()
    Image.fromarray(joined).save(file, "png")
    return file.getvalue()
