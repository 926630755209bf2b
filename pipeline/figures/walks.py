"""A diffusion on one image: scores, influence and importance, labels after each walk, rows of its matrices."""

from pipeline.figures import gallery, page, palette, stepwise

EXPLAINED = (
    "The image that the network's first system gains most on (the first image where there is none), as Figures 2 to 4 "
    "of DifNet (NeurIPS 2018) show them. First the labels of the scores, their influence and the importance map, each "
    "from its least, black, to its most, pale. Then for each walk the labels after it and the rows of its transition "
    "matrix at two places, marked 1 and 2 in the photograph: pale is where their next values come from, by the root of "
    "the share. Of what is new in a walk, μ is the share that comes from others rather than the seed; β is the share "
    "of what is new."
)
LONGEST = 160  # px; many pictures, and smooth
MARKS = ((255, 40, 120), (0, 200, 255))


def places(truth, before, after):
    """Choose two pixels to look at: one that the walks mend, if any, and one that they leave right, or the middle.

    Parameters
    ----------
    truth, before, after : ndarray of shape (H, W), uint8

    Returns
    -------
    list of (int, int)
        Row and column of each.
    """
    mended = (before != truth) & (after == truth)
    kept = (before == truth) & (after == truth)
    return [_most_inside(mask) for mask in (mended, kept)]


def _most_inside(mask):
    """Return the pixel of a mask (H, W) nearest to the mean of them all; without any the middle of the image."""
    rows, cols = mask.nonzero()
    if not rows.size:
        return mask.shape[0] // 2, mask.shape[1] // 2
    nearest = ((rows - rows.mean()) ** 2 + (cols - cols.mean()) ** 2).argmin()
    return int(rows[nearest]), int(cols[nearest])


def marked(image, pixels):
    """Draw a small square around each pixel on a copy of a photograph (H, W, 3) uint8."""
    result, half = image.copy(), max(2, max(image.shape[:2]) // 40)
    for (row, col), colour in zip(pixels, MARKS, strict=True):
        result[max(0, row - half) : row + half + 1, max(0, col - half) : col + half + 1] = colour
    return result


def scene(sample, pixels, maps, walks, title):
    """Return one image's diffusion.

    Parameters
    ----------
    sample : Sample
    pixels : list of (int, int)
        The two places.
    maps : tuple of (ndarray of shape (H, W), uint8), (h, w), (h, w)
        Labels of the scores; influence; importance.
    walks : list of (str, (float, float), ndarray of shape (H, W), uint8, ndarray of shape (2, h, w))
        What each is called; its μ and β; the labels after it; its rows.
    title : str
        HTML.

    Returns
    -------
    str
        HTML.
    """
    photo = gallery.photograph(marked(sample.image, pixels), f"photograph {sample.name}, with two places", LONGEST)
    tiles = [gallery.tile(photo, _labels(sample.truth, "truth"), "image, truth")]
    labels, influence, importance = maps
    shades = _shades(influence, "influence") + _shades(importance, "importance")
    tiles.append(gallery.tile(_labels(labels, "labels of the scores"), shades, "scores, influence, importance"))
    for name, mixing, labels, rows in walks:
        caption = page.text(name) + "<br>μ {:.2f}, β {:.2f}".format(*mixing)
        # The root, or all but the place itself would be black.
        shades = "".join(_shades(row**0.5, f"row {number} of P, {name}") for number, row in enumerate(rows, start=1))
        tiles.append(gallery.tile(_labels(labels, f"labels after {name}"), shades, caption))
    return gallery.framed(title, tiles)


def _labels(array, name):
    return page.picture(array, name, palette.voc(), longest=LONGEST)


def _shades(array, name):
    return gallery.photograph(stepwise.coloured(array, array.min(), array.max()), name, LONGEST)
