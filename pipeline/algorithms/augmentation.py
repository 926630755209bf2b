"""Random views of a labelled photograph, as in section 5 of arXiv:1805.04777, by kornia's operators.

All random numbers are drawn from truncated normals: cut at two standard deviations, which lie at the ends of
the stated range. The geometry is one affine map, so that the image is resampled once.
"""

import numpy as np
import torch
from kornia.enhance import adjust_brightness, adjust_contrast, adjust_hue, adjust_saturation
from kornia.geometry.transform import warp_affine
from scipy.special import ndtr, ndtri

from pipeline.core.sample import VOID


def augment(image, truth, settings, crop, fill, rng):
    """Return one random view.

    Parameters
    ----------
    image : ndarray of shape (H, W, 3), uint8
    truth : ndarray of shape (H, W), uint8
    settings : Settings
        flip (bool), rotation (degrees), resize (low, high), jitter (brightness, contrast, saturation: share;
        hue: share of the circle).
    crop : tuple of int
        Rows and columns of the view.
    fill : sequence of 3 float
        Colour outside the image, 0..1.
    rng : numpy.random.Generator

    Returns
    -------
    image : Tensor of shape (3, rows, cols), float32, 0..1
    truth : Tensor of shape (rows, cols), int64, 255 outside the image
    """
    photograph = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    labels = torch.from_numpy(truth)[None, None].float()
    forward = _affine(image.shape[:2], crop, settings, rng)[None]
    # Lowered by the fill value, "outside" is 0, the one value that needs no blending at the image's edge.
    colour = torch.tensor(fill).float().view(1, 3, 1, 1)
    view = warp_affine(photograph - colour, forward, crop, mode="bilinear", align_corners=True) + colour
    labels = warp_affine(labels - VOID, forward, crop, mode="nearest", align_corners=True) + VOID
    return _jitter(view.clamp(0, 1), settings.jitter, rng)[0], labels[0, 0].round().long()


def _affine(size, crop, settings, rng):
    """Return the 2 × 3 map from image to view: flip, rotate and resize about a centre, then cut a random window."""
    scale = _between(*settings.resize, rng)
    angle = np.deg2rad(_around(0, settings.rotation, rng))
    mirror = -1.0 if settings.flip and rng.random() < 0.5 else 1.0
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.array([[cos * mirror, -sin], [sin * mirror, cos]])  # on (col, row)
    centre = (np.array(size[::-1]) - 1) / 2
    # A view smaller than the image is cut anywhere in it; a larger one shows all of it, anywhere.
    room = (np.array(size[::-1]) * scale - np.array(crop[::-1])) / 2
    shift = rng.uniform(-np.abs(room), np.abs(room))
    offset = (np.array(crop[::-1]) - 1) / 2 + shift - linear @ centre
    return torch.from_numpy(np.column_stack([linear, offset])).float()


def _jitter(view, jitter, rng):
    """Change brightness, contrast, saturation and hue by random amounts."""
    view = adjust_brightness(view, _around(0, jitter.brightness, rng))
    view = adjust_contrast(view, 1 + _around(0, jitter.contrast, rng))
    view = adjust_saturation(view, 1 + _around(0, jitter.saturation, rng))
    return adjust_hue(view, 2 * np.pi * _around(0, jitter.hue, rng)).clamp(0, 1)


def _around(centre, reach, rng):
    # SciPy's truncnorm draws the same, and takes a third of all that a view costs.
    return float(centre + reach * ndtri(ndtr(-2) + (ndtr(2) - ndtr(-2)) * rng.uniform()) / 2)


def _between(low, high, rng):
    """Draw a factor whose logarithm is spread evenly to both sides, so that halving is as likely as doubling."""
    return float(np.exp(_around(np.log(low * high) / 2, np.log(high / low) / 2, rng)))
