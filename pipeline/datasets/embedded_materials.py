"""Materials of the embedded data set: what surfaces look like under the scene's light.

Seven hues serve everything, background included. A class is told by which two of them meet and in which
pattern, so that one pixel's colour says little and a small neighbourhood says a lot.
"""

from functools import cache

import numpy as np

HUES = {
    "white": (222, 219, 211),
    "black": (48, 47, 52),
    "red": (182, 62, 52),
    "ochre": (208, 166, 72),
    "green": (84, 132, 66),
    "blue": (66, 104, 170),
    "brown": (134, 92, 60),
}

# class: (first hue, second hue, pattern); no two classes share a pair of hues
DRESS = {
    "aeroplane": ("white", "blue", "bands"),
    "bicycle": ("black", "green", "spots"),
    "bird": ("green", "blue", "blotches"),
    "boat": ("white", "red", "bands"),
    "bottle": ("green", "white", "bands"),
    "bus": ("red", "ochre", "checks"),
    "car": ("ochre", "blue", "checks"),
    "cat": ("ochre", "black", "stripes"),
    "chair": ("brown", "green", "stripes"),
    "cow": ("white", "black", "blotches"),
    "diningtable": ("ochre", "brown", "checks"),
    "dog": ("brown", "white", "blotches"),
    "horse": ("brown", "black", "blotches"),
    "motorbike": ("black", "red", "spots"),
    "person": ("red", "blue", "stripes"),
    "pottedplant": ("green", "red", "spots"),
    "sheep": ("white", "ochre", "spots"),
    "sofa": ("brown", "red", "stripes"),
    "train": ("green", "ochre", "bands"),
    "tvmonitor": ("black", "blue", "checks"),
}


def clouds(rng, shape, scale):
    """Smooth noise of mean 0 and standard deviation about 1, with features of about `scale` px; (H, W) float32."""
    rows, cols = (_spread(size, float(scale)) for size in shape)
    return rows @ rng.standard_normal((rows.shape[1], cols.shape[1]), np.float32) @ cols.T


@cache
def _spread(size, scale):
    """Weights (size, nodes) that blend nodes `scale` px apart with Gaussians, each row of norm 1."""
    nodes = np.arange(-2, size / scale + 2) * scale
    weights = np.exp(-0.5 * ((np.arange(size)[:, None] - nodes) / (0.6 * scale)) ** 2)
    return (weights / np.linalg.norm(weights, axis=1, keepdims=True)).astype(np.float32)


def hue(rng, name, spread):
    """One specimen of a hue, off its mean by `spread` levels per channel and overall; (3,) float32, 8-bit levels."""
    off = rng.normal(0, spread, 3) + rng.normal(0, spread)
    return np.clip(np.array(HUES[name]) + off, 12, 245).astype(np.float32)


def plain(rng, shape, colour, roughness):
    """A surface of one colour whose brightness wavers by `roughness` (a fraction); (H, W, 3) float32, 8-bit levels."""
    coarse, fine = rng.uniform(5, 16), rng.uniform(1.5, 4)
    waver = 0.7 * clouds(rng, shape, coarse) + 0.7 * clouds(rng, shape, fine)
    return colour * (1 + np.float32(roughness) * waver)[..., None]


def pattern(rng, kind, u, v, period):
    """Share of the second hue at every pixel.

    Parameters
    ----------
    kind : {"bands", "stripes", "checks", "spots", "blotches"}
    u, v : ndarray of shape (H, W), float32
        Place on the object, px; v runs down it.
    period : float
        Size of one repetition, px.

    Returns
    -------
    ndarray of shape (H, W), float32
        Within 0..1, with soft borders of about a pixel.
    """
    turn, phase = np.float32(2 * np.pi / period), rng.uniform(0, 2 * np.pi, 2).astype(np.float32)
    if kind == "bands":
        wave = np.sin(turn * v + phase[0])
    elif kind == "stripes":
        wave = np.sin(turn * (u + np.float32(rng.uniform(-0.5, 0.5)) * v) + phase[0])
    elif kind == "checks":
        wave = 1.6 * np.sin(turn * u + phase[0]) * np.sin(turn * v + phase[1])
    elif kind == "spots":
        wave = np.sin(turn * u + phase[0]) + np.sin(turn * v + phase[1]) - 0.3
    else:
        wave = clouds(rng, u.shape, 0.7 * period)
    share = 0.5 + (wave + np.float32(rng.uniform(-0.35, 0.2))) * np.float32(0.16 * period)
    return np.clip(share, 0, 1)
