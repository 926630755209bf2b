"""The data set that comes with the project: photograph-like images, made from a seed, truth exact to the pixel.

Every image is a scene: a background of one to three surfaces, clutter of no class, and one to four objects
that hide one another, under one light with cast shadows, then seen through a lens and a noisy sensor. What the
objects are is told by silhouette, by pattern and by the pair of hues in it; every hue serves several classes
and the background.
"""

import numpy as np
from scipy.ndimage import gaussian_filter

from pipeline.core.errors import SettingsError
from pipeline.core.sample import VOID, Sample
from pipeline.datasets import Source
from pipeline.datasets.embedded_materials import DRESS, HUES, clouds, hue, pattern, plain
from pipeline.datasets.embedded_shapes import FIRST, SECOND, SILHOUETTES, distance

CLASS_NAMES = ("background", *SILHOUETTES)
APART = 1_000_000  # index from one split to the next: a longer split leaves the images of the others alone


def read(settings, seed):
    """Describe the data set; its images are made when `Source.sample` is called.

    Parameters
    ----------
    settings : object
        As in ``config/packs/embedded.yaml``.
    seed : int

    Returns
    -------
    Source

    Raises
    ------
    SettingsError
        If `shortest_side` is larger than `longest_side`.
    """
    if settings.shortest_side > settings.longest_side:
        found, expected = f"{settings.shortest_side} px", f"at most longest_side, {settings.longest_side} px"
        raise SettingsError("shortest_side", found, expected, "swap or mend the two")
    counts = {"train": settings.train, "heldout": settings.heldout, "val": settings.val}
    index = {
        f"{split}_{number:04d}": number + place * APART
        for place, (split, count) in enumerate(counts.items())
        for number in range(count)
    }
    splits = {split: tuple(name for name in index if name.startswith(f"{split}_")) for split in counts}

    def sample(name):
        return Sample(name, *render(index[name], seed, settings))

    return Source(CLASS_NAMES, splits, sample, {})


def render(index, seed, settings):
    """Make one image and its truth; the same bytes for the same arguments.

    Parameters
    ----------
    index : int
        Which image. Neighbouring indices show different classes, so that any twenty in a row show all.
    seed : int
        Which data set.
    settings : object
        `longest_side`, `shortest_side`, `void_band`; px.

    Returns
    -------
    image : ndarray of shape (H, W, 3), uint8
        RGB.
    truth : ndarray of shape (H, W), uint8
        Classes, with 255 wherever another class lies within `void_band` px.
    exact : ndarray of shape (H, W), uint8
        Classes alone.
    """
    rng = np.random.default_rng([seed, index])
    shape = _shape(rng, settings)
    light = rng.uniform(0.2, 0.8) * np.pi  # where the light comes from: above, from left or right
    light = np.array([np.cos(light), np.sin(light)], np.float32)
    image = _background(rng, shape)
    exact = np.zeros(shape, np.uint8)
    for _ in range(rng.integers(1, 5)):
        image = _clutter(rng, image, light)
    for name, middle, unit in _cast(rng, index, shape):
        image, exact = _object(rng, image, exact, light, name, middle, unit)
    return _photograph(rng, image), _with_void(exact, settings.void_band), exact


def _shape(rng, settings):
    """Height and width: one is the longest side, lying or standing as often."""
    other = int(rng.integers(settings.shortest_side, settings.longest_side + 1))
    return (settings.longest_side, other) if rng.random() < 0.5 else (other, settings.longest_side)


def _background(rng, shape):
    """One to three surfaces above one another, each of one hue, their borders uneven."""
    row = np.arange(shape[0], dtype=np.float32)[:, None] / shape[0]
    image = _surface(rng, shape, rng.choice(["blue", "white", "ochre", "red", "green"]))
    for border in sorted(rng.uniform(0.2, 0.8, rng.integers(0, 3))):
        below = row + np.float32(rng.choice([0.003, 0.03])) * clouds(rng, shape, rng.uniform(6, 25)) - border
        share = np.clip(0.5 + below * shape[0], 0, 1)[..., None]
        image += share * (_surface(rng, shape, rng.choice(list(HUES))) - image)
    return image


def _surface(rng, shape, name):
    row = np.linspace(-1, 1, shape[0], dtype=np.float32)[:, None, None]
    fade = 1 + np.float32(rng.normal(0, 0.12)) * row
    colour = hue(rng, name, 14)
    colour += np.float32(rng.uniform(0, 0.5)) * (colour.mean() - colour)  # scenery is often paler than objects
    return plain(rng, shape, colour, rng.uniform(0.02, 0.16)) * fade


def _clutter(rng, image, light):
    """Put a thing of no class into the scene: a stone, a post or a bush of one hue."""
    shape = image.shape[:2]
    u, v = _frame(rng, shape, rng.uniform(0, 1, 2) * shape, 1, turn=0.3)
    size = rng.uniform(4, 0.2 * max(shape))
    part = [
        ("oval", None, 0, 0, size, size * rng.uniform(0.5, 1)),
        ("box", None, -size, -0.7 * size, size, 0.7 * size),
        ("rod", None, 0, -3 * size, 0, 3 * size, rng.uniform(1, 4)),
    ][rng.integers(3)]
    away = distance(part, u, v, 1)
    surface = plain(rng, shape, hue(rng, rng.choice(list(HUES)), 14), rng.uniform(0.02, 0.16))
    return _paint(rng, image, surface, away, light)


def _cast(rng, index, shape):
    """Choose the objects of an image, from the farthest to the nearest: name, middle (row, col), size in px."""
    names = [CLASS_NAMES[1 + index % 20]]
    names += list(rng.choice(CLASS_NAMES[1:], rng.choice([0, 1, 2, 3], p=[0.2, 0.4, 0.3, 0.1])))
    largest = min(shape) * (0.6, 0.5, 0.43, 0.4)[len(names) - 1]
    middles = []
    for _ in names:  # of a few places the one that is farthest from the others: hidden in part, seldom whole
        places = rng.uniform(0.18, 0.82, (6, 2)) * shape
        gaps = [min((np.hypot(*(place - other)) for other in middles), default=0) for place in places]
        middles.append(places[int(np.argmax(gaps))])
    units = rng.uniform(0.65, 1, len(names)) * largest
    return sorted(zip(names, middles, units, strict=True), key=lambda one: one[1][0])


def _frame(rng, shape, middle, unit, turn):
    """Coordinates (u, v), each (H, W) float32, of a frame around `middle`, turned, mirrored, stretched and bent."""
    row, col = (np.arange(size, dtype=np.float32) - np.float32(at) for size, at in zip(shape, middle, strict=True))
    row, col = np.broadcast_arrays(row[:, None], col)
    bend = np.float32(0.03 * unit)
    row, col = row + bend * clouds(rng, shape, 20), col + bend * clouds(rng, shape, 20)
    angle, stretch = rng.normal(0, turn), rng.uniform(0.8, 1.25)
    cos, sin = (np.float32(value / unit) for value in (np.cos(angle), np.sin(angle)))
    mirror = np.float32(rng.choice([-1, 1]))
    return (cos * col + sin * row) * mirror * np.float32(stretch), cos * row - sin * col


def _object(rng, image, exact, light, name, middle, unit):
    """Paint one object of a class over image (H, W, 3) and exact (H, W)."""
    shape = exact.shape
    u, v = _frame(rng, shape, middle, unit, turn=0.12)
    first, second, kind = DRESS[name]
    patterned = pattern(rng, kind, u * np.float32(unit), v * np.float32(unit), rng.uniform(6, 10))
    away, share = np.full(shape, np.inf, np.float32), patterned
    for part in SILHOUETTES[name]:
        moved = (*part[:2], *(np.array(part[2:]) + rng.normal(0, 0.012, len(part) - 2)))
        near = distance(moved, u, v, unit)
        tone = {FIRST: np.float32(0), SECOND: np.float32(1)}.get(part[1], patterned)
        share = np.where(near < 0, tone, share)
        away = np.minimum(away, near)
    colours = plain(rng, shape, hue(rng, first, 8), 0.06), plain(rng, shape, hue(rng, second, 8), 0.06)
    surface = colours[0] + share[..., None] * (colours[1] - colours[0])
    exact = np.where(away < 0, np.uint8(CLASS_NAMES.index(name)), exact)
    return _paint(rng, image, surface, away, light), exact


def _paint(rng, image, surface, away, light):
    """Lay a surface over the image where `away` (H, W; px) is negative, rounded by the light, over its own shadow."""
    reach, depth = rng.uniform(3, 10), rng.uniform(0.15, 0.45)
    right, down = np.round(light * (-1, 1) * rng.uniform(2, 7)).astype(int)
    rows, cols = (np.arange(size) for size in away.shape)
    shadow = away[np.clip(rows - down, 0, rows[-1])[:, None], np.clip(cols - right, 0, cols[-1])]
    image = image * (1 - np.float32(depth) * np.clip(0.5 - shadow / 4, 0, 1))[..., None]
    steep_down, steep_right = np.gradient(away)
    facing = steep_right * light[0] - steep_down * light[1]
    round_off = np.clip(1 + away / np.float32(reach), 0, 1)
    lit = 1 + np.float32(rng.uniform(0.1, 0.35)) * np.clip(facing, -1, 1) * round_off
    cover = np.clip(0.5 - away, 0, 1)[..., None]
    return image + cover * (surface * lit[..., None] - image)


def _photograph(rng, image):
    """Uneven light, its colour, exposure, the lens's blur and the sensor's noise; (H, W, 3) uint8."""
    shape = image.shape[:2]
    uneven = 1 + np.float32(rng.uniform(0.03, 0.12)) * clouds(rng, shape, 40)
    tint = rng.uniform(0.8, 1.2) * rng.normal(1, 0.04, 3)
    image = image * uneven[..., None] * tint.astype(np.float32)
    image = gaussian_filter(image, (rng.uniform(0.4, 0.9),) * 2 + (0,), truncate=3)
    noise = rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(2, 8))
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


def _with_void(exact, band):
    """The same classes (H, W) with 255 wherever another class lies within `band` px."""
    truth = exact.copy()
    height, width = exact.shape
    for down in range(band + 1):
        for right in range(-band, band + 1):
            if (down, right) <= (0, 0) or down * down + right * right > band * band:
                continue
            here = (slice(0, height - down), slice(max(-right, 0), width - max(right, 0)))
            there = (slice(down, height), slice(max(right, 0), width - max(-right, 0)))
            differ = exact[here] != exact[there]
            truth[here][differ] = VOID
            truth[there][differ] = VOID
    return truth
