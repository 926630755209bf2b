"""Mean field step by step: scores and beliefs of one class after some of its iterations."""

import matplotlib as mpl
import numpy as np
from scipy import ndimage

from pipeline.figures import gallery, page, palette, words

EXPLAINED = (
    "One class of one image: the image that the network's first system gains most on, and the class that gains most "
    "in it. Above: its score, which is the input of the softmax, after so many iterations of mean field. Below: the "
    "belief in it, the softmax's output. Iteration 0 is the network's own answer. IoU is that of the "
    "class in this image, in percent."
)
SHOWN = (0, 1, 2, 5)  # iterations, besides the last
LONGEST = 200  # px; many pictures, and smooth
OUTLINE = (255, 40, 120)  # seldom a colour of photographs
_SCALE = mpl.colormaps["magma"]


def shown(iterations):
    """Return the numbers of iterations to show, of so many."""
    return [number for number in SHOWN if number < iterations] + [iterations]


def outlined(image, inside):
    """Draw the outline of a region on a paler copy of a photograph.

    Parameters
    ----------
    image : ndarray of shape (H, W, 3), uint8
    inside : ndarray of shape (H, W), bool

    Returns
    -------
    ndarray of shape (H, W, 3), uint8
    """
    result = (128 + image // 2).astype(np.uint8)
    thick = max(1, round(max(inside.shape) / 120))  # px, as large pictures are shown smaller
    # Beyond the border lies more of the same: the image's edge is no outline.
    kept = ndimage.binary_erosion(inside, iterations=thick, border_value=1)
    result[inside & ~kept] = OUTLINE
    return result


def coloured(array, low, high):
    """Colour numbers from `low`, black, to `high`, pale: (H, W) → (H, W, 3) uint8."""
    share = (array - low) / max(high - low, 1e-6)
    return np.uint8(np.round(255 * _SCALE(np.clip(share, 0, 1))[..., :3]))


def scene(sample, label, steps, title):
    """Return what mean field does to one class of one image: a row of scores over a row of beliefs.

    Parameters
    ----------
    sample : Sample
    label : int
        The class.
    steps : list of (int, ndarray of shape (H, W), ndarray of shape (H, W), float)
        Iterations done; score and belief of the class; its IoU in the image, percent.
    title : str
        HTML.

    Returns
    -------
    str
        HTML.
    """
    every = np.stack([score for _, score, _, _ in steps])
    low, high = float(every.min()), float(every.max())
    photo = gallery.photograph(sample.image, f"photograph {sample.name}", LONGEST)
    outline = gallery.photograph(outlined(sample.image, sample.truth == label), "outline of the truth", LONGEST)
    tiles = [gallery.tile(photo, outline, "image, truth")]
    for number, score, belief, iou in steps:
        name = f"iteration {number}"
        above = gallery.photograph(coloured(score, low, high), f"score, {name}", LONGEST)
        below = gallery.photograph(coloured(belief, 0, 1), f"belief, {name}", LONGEST)
        tiles.append(gallery.tile(above, below, page.element("b", page.text(name)) + f"<br>IoU {iou:.1f}"))
    return _key(low, high) + gallery.framed(title, tiles)


def _key(low, high):
    """Return the scales of both rows."""
    colours = (palette.hexadecimal(255 * np.array(_SCALE(share)[:3])) for share in np.linspace(0, 1, 6))
    bar = page.element("i", style=f"width:5rem;background:linear-gradient(90deg,{','.join(colours)})")
    ends = (f"score {words.number(str(low), 1)} to {words.number(str(high), 1)}", "belief 0 to 1")
    return page.element("ul", *(page.element("li", bar, page.text(end)) for end in ends), class_="key")
