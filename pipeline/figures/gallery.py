"""The gallery: which images to show, and what each system gained and lost on them, pixel by pixel."""

import numpy as np

from pipeline.core.sample import VOID
from pipeline.figures import page, palette

DIFFERENCE = np.array([palette.UNSCORED, palette.RIGHT, palette.WRONG, palette.GAINED, palette.LOST], dtype=np.uint8)
UNSCORED, RIGHT, WRONG, GAINED, LOST = range(5)
IN_ONE_ROW = 8  # pictures that a wide screen shows side by side
MEANINGS = (
    (GAINED, "wrong before, right now"),
    (LOST, "right before, wrong now"),
    (RIGHT, "right"),
    (WRONG, "wrong"),
    (UNSCORED, "void"),
)


def choose(gains, count):
    """Choose images to show: the best, the middle and the worst by gain, a third each.

    Parameters
    ----------
    gains : ndarray of shape (N,)
        NaN counts as no gain; ties keep their order.
    count : int
        How many at most.

    Returns
    -------
    list of (int, str)
        Index and "best", "median" or "worst", from the greatest gain to the smallest.
    """
    order = np.argsort(-np.nan_to_num(gains), kind="stable")
    count = min(count, len(order))
    best, worst = -(-count // 3), count // 3
    middle = count - best - worst
    start = min(max(best, (len(order) - middle) // 2), len(order) - worst - middle)
    chosen = [(index, "best") for index in order[:best]]
    chosen += [(index, "median") for index in order[start : start + middle]]
    return [(int(index), kind) for index, kind in chosen + [(i, "worst") for i in order[len(order) - worst :]]]


def difference(truth, before, after):
    """Return what changed from `before` to `after`, as indices into `DIFFERENCE`: (H, W) uint8."""
    was, is_now = before == truth, after == truth
    result = np.where(is_now, RIGHT, WRONG)
    result[~was & is_now] = GAINED
    result[was & ~is_now] = LOST
    result[truth == VOID] = UNSCORED
    return result.astype(np.uint8)


def scene(sample, labels, captions, title):
    """Return one image of the gallery: photograph over truth, then each run's labels over what it changed.

    Parameters
    ----------
    sample : Sample
    labels : dict of str to ndarray of shape (H, W), uint8
        By system; the first is the unary's, against which the others are held.
    captions : dict of str to str
        HTML by system.
    title : str
        HTML.
    """
    colours, truth = palette.voc(), sample.truth
    before = next(iter(labels.values()))
    photo = photograph(sample.image, f"photograph {sample.name}")
    tiles = [tile(photo, page.picture(truth, "truth", colours), "image, truth")]
    for system, array in labels.items():
        changed = page.picture(difference(truth, before, array), f"changes of {system}", DIFFERENCE)
        tiles.append(tile(page.picture(array, f"labels of {system}", colours), changed, captions[system]))
    return framed(title, tiles)


def photograph(array, label, longest=page.LONGEST):
    """Return a picture (H, W, 3) uint8 that may be smoothed when it is enlarged; the rest is as in `page.picture`."""
    return page.picture(array, label, longest=longest).replace("<img ", '<img class="photo" ', 1)


def tile(above, below, caption):
    """Return two pictures, one above the other, and what they are; all HTML."""
    return page.element("figure", above, below, page.element("figcaption", caption))


def framed(title, tiles):
    """Put the tiles of one image together under its title; all HTML."""
    row = page.element("div", *tiles, class_="tiles")
    return page.element("div", page.element("h4", title), row, class_="scene")


def scenes(shown, systems):
    """Put scenes of so many systems together, two or more side by side where the page is wide enough."""
    kind = "gallery few" if systems < IN_ONE_ROW else "gallery"
    return page.element("div", *shown, class_=kind, style=f"--tiles:{systems + 1}")


def class_key(class_names):
    """Return the colours of the classes, with their names."""
    colours = palette.voc()
    named = [(name, colours[label]) for label, name in enumerate(class_names)] + [("void", colours[VOID])]
    return _key(named)


def difference_key():
    """Return the colours of the difference maps, with their meanings."""
    return _key([(meaning, DIFFERENCE[index]) for index, meaning in MEANINGS])


def _key(named):
    items = (
        page.element("li", page.element("i", style=f"background:{palette.hexadecimal(colour)}"), page.text(name))
        for name, colour in named
    )
    return page.element("ul", *items, class_="key")
