"""Silhouettes of the embedded data set: twenty kinds of objects, put together from simple parts.

A part is ``(kind, tone, numbers…)`` in the object's frame: u to the right, v down, the object within
about −1..1, feet at v = 1. `SILHOUETTES` holds them in the order in which they are painted. The tone tells how
a part is coloured: with the class's first hue, its second, or both in its pattern.
"""

import numpy as np

FIRST, SECOND, BOTH = "first", "second", "both"
THINNEST = 0.8  # px, half the thickness below which a sensor would lose a rod


def _box(u0, v0, u1, v1, tone):
    return ("box", tone, u0, v0, u1, v1)


def _oval(u, v, a, b, tone):
    return ("oval", tone, u, v, a, b)


def _rod(u0, v0, u1, v1, half, tone):
    return ("rod", tone, u0, v0, u1, v1, half)


def _ring(u, v, radius, half, tone):
    return ("ring", tone, u, v, radius, half)


def _hull(tone, *corners):
    return ("hull", tone, *corners)


def _legs(top, half, tone, *columns):
    return tuple(_rod(u, top, u, 0.97, half, tone) for u in columns)


SILHOUETTES = {
    "aeroplane": (
        _rod(0.15, -0.1, -0.3, -0.55, 0.06, SECOND),
        _rod(0.75, -0.05, 0.98, -0.5, 0.08, SECOND),
        _rod(-0.8, 0.05, 0.85, -0.05, 0.24, BOTH),
        _rod(0.05, 0.05, 0.45, 0.65, 0.15, BOTH),
    ),
    "bicycle": (
        _hull(BOTH, -0.55, 0.4, -0.2, -0.32, 0.45, -0.32, 0.15, 0.55),
        _ring(-0.55, 0.5, 0.4, 0.08, FIRST),
        _ring(0.55, 0.5, 0.4, 0.08, FIRST),
        _rod(0.55, 0.5, 0.35, -0.45, 0.06, SECOND),
        _rod(-0.1, -0.25, -0.2, -0.45, 0.05, SECOND),
        _rod(-0.35, -0.47, -0.05, -0.47, 0.07, FIRST),
        _rod(0.2, -0.5, 0.5, -0.42, 0.05, FIRST),
    ),
    "bird": (
        _rod(-0.05, 0.4, -0.1, 0.95, 0.03, SECOND),
        _rod(0.12, 0.4, 0.15, 0.95, 0.03, SECOND),
        _rod(-0.4, 0.15, -1.0, 0.4, 0.13, BOTH),
        _oval(0.0, 0.1, 0.58, 0.42, BOTH),
        _rod(0.6, -0.42, 0.95, -0.36, 0.05, SECOND),
        _oval(0.5, -0.4, 0.27, 0.25, FIRST),
    ),
    "boat": (
        _rod(0.0, 0.4, 0.0, -1.0, 0.03, SECOND),
        _hull(FIRST, 0.08, -0.9, 0.75, 0.25, 0.08, 0.25),
        _hull(SECOND, -0.08, -0.7, -0.08, 0.25, -0.55, 0.25),
        _hull(BOTH, -0.95, 0.35, 0.95, 0.35, 0.65, 0.85, -0.6, 0.85),
    ),
    "bottle": (
        _rod(0.0, -0.85, 0.0, -0.3, 0.13, SECOND),
        _box(-0.36, -0.35, 0.36, 0.97, BOTH),
        _box(-0.17, -1.0, 0.17, -0.82, FIRST),
    ),
    "bus": (
        _oval(-0.6, 0.72, 0.2, 0.22, SECOND),
        _oval(0.6, 0.72, 0.2, 0.22, SECOND),
        _box(-1.0, -0.65, 1.0, 0.68, BOTH),
        _box(-1.0, -0.72, 1.0, -0.52, FIRST),
    ),
    "car": (
        _hull(SECOND, -0.65, 0.0, -0.35, -0.48, 0.3, -0.48, 0.65, 0.0),
        _box(-1.0, -0.05, 1.0, 0.5, BOTH),
        _oval(-0.55, 0.5, 0.23, 0.23, SECOND),
        _oval(0.55, 0.5, 0.23, 0.23, SECOND),
    ),
    "cat": (
        _rod(0.4, 0.85, 0.85, 0.55, 0.08, SECOND),
        _rod(0.85, 0.55, 0.8, 0.0, 0.07, SECOND),
        _oval(0.05, 0.4, 0.48, 0.58, BOTH),
        _hull(FIRST, -0.42, -0.5, -0.38, -0.98, -0.1, -0.65),
        _hull(FIRST, 0.32, -0.5, 0.28, -0.98, 0.0, -0.65),
        _oval(-0.05, -0.42, 0.4, 0.34, BOTH),
    ),
    "chair": (
        *_legs(0.2, 0.05, SECOND, -0.5, 0.5, -0.3, 0.65),
        _box(-0.55, -0.95, 0.4, 0.1, BOTH),
        _box(-0.6, 0.05, 0.75, 0.32, FIRST),
    ),
    "cow": (
        *_legs(0.3, 0.09, FIRST, -0.6, -0.42, 0.35, 0.52),
        _rod(-0.8, -0.2, -0.95, 0.5, 0.03, SECOND),
        _box(-0.8, -0.42, 0.65, 0.4, BOTH),
        _oval(0.78, -0.32, 0.24, 0.28, FIRST),
        _rod(0.65, -0.55, 0.55, -0.75, 0.04, SECOND),
        _rod(0.88, -0.55, 0.98, -0.75, 0.04, SECOND),
    ),
    "diningtable": (
        *_legs(0.0, 0.06, SECOND, -0.8, -0.55, 0.55, 0.8),
        _hull(BOTH, -0.75, -0.6, 0.75, -0.6, 1.0, 0.12, -1.0, 0.12),
        _box(-1.0, 0.08, 1.0, 0.2, FIRST),
    ),
    "dog": (
        *_legs(0.3, 0.08, FIRST, -0.5, -0.32, 0.3, 0.46),
        _rod(-0.6, -0.05, -0.9, -0.6, 0.06, SECOND),
        _oval(-0.05, 0.1, 0.66, 0.33, BOTH),
        _oval(0.6, -0.35, 0.3, 0.26, BOTH),
        _rod(0.75, -0.28, 0.98, -0.22, 0.11, SECOND),
        _rod(0.45, -0.5, 0.38, -0.15, 0.1, SECOND),
    ),
    "horse": (
        *_legs(0.2, 0.06, SECOND, -0.55, -0.4, 0.28, 0.45),
        _rod(-0.65, -0.1, -0.95, 0.45, 0.08, SECOND),
        _oval(-0.08, 0.03, 0.64, 0.36, BOTH),
        _rod(0.4, -0.05, 0.68, -0.65, 0.2, BOTH),
        _rod(0.68, -0.72, 0.95, -0.45, 0.12, FIRST),
    ),
    "motorbike": (
        _ring(-0.6, 0.5, 0.3, 0.13, FIRST),
        _ring(0.6, 0.5, 0.3, 0.13, FIRST),
        _rod(0.6, 0.5, 0.35, -0.5, 0.06, FIRST),
        _hull(BOTH, -0.8, -0.12, 0.4, -0.35, 0.55, 0.2, 0.15, 0.7, -0.35, 0.6),
        _rod(-0.85, -0.18, 0.0, -0.2, 0.1, SECOND),
        _rod(0.2, -0.55, 0.55, -0.48, 0.05, SECOND),
    ),
    "person": (
        _rod(-0.13, 0.25, -0.22, 0.95, 0.12, SECOND),
        _rod(0.13, 0.25, 0.2, 0.95, 0.12, SECOND),
        _rod(-0.25, -0.38, -0.5, 0.2, 0.07, FIRST),
        _rod(0.25, -0.38, 0.5, 0.15, 0.07, FIRST),
        _box(-0.33, -0.5, 0.33, 0.35, BOTH),
        _oval(0.0, -0.75, 0.19, 0.23, FIRST),
    ),
    "pottedplant": (
        _rod(0.0, 0.5, 0.0, -0.1, 0.05, FIRST),
        _oval(-0.4, -0.12, 0.46, 0.32, BOTH),
        _oval(0.42, -0.17, 0.46, 0.32, BOTH),
        _oval(0.0, -0.56, 0.42, 0.42, BOTH),
        _hull(SECOND, -0.42, 0.4, 0.42, 0.4, 0.3, 0.97, -0.3, 0.97),
    ),
    "sheep": (
        *_legs(0.4, 0.06, SECOND, -0.42, -0.25, 0.25, 0.4),
        _oval(-0.32, 0.05, 0.48, 0.46, BOTH),
        _oval(0.25, 0.05, 0.48, 0.46, BOTH),
        _oval(0.72, -0.2, 0.24, 0.28, FIRST),
    ),
    "sofa": (
        _box(-0.85, -0.55, 0.85, 0.2, BOTH),
        _box(-0.9, 0.1, 0.9, 0.6, BOTH),
        _box(-1.0, -0.1, -0.72, 0.65, FIRST),
        _box(0.72, -0.1, 1.0, 0.65, FIRST),
    ),
    "train": (
        *(_oval(u, 0.5, 0.12, 0.13, SECOND) for u in (-0.75, -0.45, 0.35, 0.65)),
        _hull(BOTH, -1.1, -0.42, 0.75, -0.42, 1.1, 0.1, 1.1, 0.45, -1.1, 0.45),
        _box(-1.1, -0.5, 0.75, -0.36, FIRST),
    ),
    "tvmonitor": (
        _rod(0.0, 0.3, 0.0, 0.85, 0.1, FIRST),
        _rod(-0.4, 0.88, 0.4, 0.88, 0.06, FIRST),
        _box(-0.9, -0.75, 0.9, 0.5, FIRST),
        _box(-0.76, -0.62, 0.76, 0.37, BOTH),
    ),
}


def distance(part, u, v, unit):
    """Signed distance to a part's outline, negative inside.

    Parameters
    ----------
    part : tuple
        As in `SILHOUETTES`.
    u, v : ndarray of shape (H, W), float32
        Coordinates in the object's frame.
    unit : float
        Pixels in one unit of the frame.

    Returns
    -------
    ndarray of shape (H, W), float32
        Pixels; exact near the outline, which is all that painting needs.
    """
    kind, _, *numbers = part
    return _DISTANCES[kind](u, v, THINNEST / unit, *numbers) * np.float32(unit)


def _distance_box(u, v, _, u0, v0, u1, v1):
    du = np.abs(u - (u0 + u1) / 2) - (u1 - u0) / 2
    dv = np.abs(v - (v0 + v1) / 2) - (v1 - v0) / 2
    return np.maximum(du, dv)


def _distance_oval(u, v, _, u0, v0, a, b):
    su, sv = (u - u0) / a, (v - v0) / b
    norm = np.sqrt(su * su + sv * sv) + 1e-6
    slope = np.sqrt((su / a) ** 2 + (sv / b) ** 2) + 1e-6
    return norm * (norm - 1) / slope


def _distance_rod(u, v, thinnest, u0, v0, u1, v1, half):
    du, dv = u1 - u0, v1 - v0
    along = ((u - u0) * du + (v - v0) * dv) / (du * du + dv * dv)
    along = np.clip(along, 0, 1)
    return np.hypot(u - u0 - along * du, v - v0 - along * dv) - max(half, thinnest)


def _distance_ring(u, v, thinnest, u0, v0, radius, half):
    return np.abs(np.hypot(u - u0, v - v0) - radius) - max(half, thinnest)


def _distance_hull(u, v, _, *corners):
    points = np.array(corners).reshape(-1, 2)
    middle = points.mean(0)
    away = None
    for (u0, v0), (u1, v1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        nu, nv = (v1 - v0), -(u1 - u0)
        norm = np.hypot(nu, nv) * (1 if (middle[0] - u0) * nu + (middle[1] - v0) * nv < 0 else -1)
        side = (u - np.float32(u0)) * np.float32(nu / norm) + (v - np.float32(v0)) * np.float32(nv / norm)
        away = side if away is None else np.maximum(away, side)
    return away


_DISTANCES = {
    "box": _distance_box,
    "oval": _distance_oval,
    "rod": _distance_rod,
    "ring": _distance_ring,
    "hull": _distance_hull,
}
