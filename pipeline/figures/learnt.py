"""What fits learnt and how: the compatibility of classes, and mean IoU on the way."""

import numpy as np
from matplotlib.colors import Normalize

from pipeline.figures.plots import SCALE, colour_bar, drawing

COMPATIBILITY = (
    "Compatibility learnt by {system}: the penalty of a class (row) beside pixels of another (column), less that of "
    "the other beside itself, to which no label is sensitive; the diagonal is then 0, and left out. Potts, where it "
    "started, is 1 everywhere; dark pairs may stand together, as in Figure 5 of arXiv:1502.03240."
)
WATCHED = {"heldout_miou": "held-out images, which they are fitted on", "val_miou": "val images"}


def relative(penalty):
    """Return the penalties (C, C) less those of the diagonal of each column; of several iterations' the last one's."""
    penalty = penalty if penalty.ndim == 2 else penalty[-1]
    return penalty - np.diag(penalty)[None, :]


def compatibility(penalty, class_names, name):
    """Draw a compatibility as a matrix, with the classes' names.

    Parameters
    ----------
    penalty : ndarray of shape (C, C) or (T, C, C)
    class_names : sequence of str
    name : str
        Unique within a page.

    Returns
    -------
    str
        SVG.

    Notes
    -----
    Source: Zheng et al., arXiv:1502.03240, Figure 5.
    """
    values = relative(penalty)
    np.fill_diagonal(values, np.nan)  # 0, and so far from the others that these would look alike
    scale = Normalize(np.nanmin(values), max(np.nanmax(values), np.nanmin(values) + 0.1))
    places = range(len(class_names))
    with drawing(name, 4.4) as (figure, done):
        axes = figure.subplots()
        axes.pcolormesh(np.ma.masked_invalid(values), cmap=SCALE, norm=scale, edgecolors="face", linewidth=0.2)
        axes.set(xlim=(0, len(values)), ylim=(len(values), 0), aspect="equal")
        size = min(10.5, 150 / len(values))
        centres = [place + 0.5 for place in places]
        axes.set_xticks(centres, class_names, rotation=90, fontsize=size)
        axes.set_yticks(centres, class_names, fontsize=size)
        axes.grid(visible=False)
        axes.tick_params(length=0)
        colour_bar(figure, axes, scale, "penalty", fraction=0.06)
    return done[0]
