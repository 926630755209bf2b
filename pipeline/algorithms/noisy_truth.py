"""Unaries made of the truth instead of by a network: the synthetic benchmark of ConvCRF.

Source: Teichmann and Cipolla, arXiv:1805.04777, section 5.1; cells, shares and resizing, of which the text says nothing
or little, are those of the authors' public code.
"""

import numpy as np

from pipeline.core.errors import DataError
from pipeline.core.sample import VOID


def noisy_truth(truth, classes, *, cell, keep_probability, kind, stride, seed, name):
    """Return scores that know the truth no finer than a cell, and in some cells do not know it at all.

    The truth as one map per class is resized to one value per cell and back to its size. Every cell draws a class,
    and whether it keeps the truth; both are resized to the size of the image too. With m the map of what is kept::

        scores = m · truth + (1 − m) · noise

    Parameters
    ----------
    truth : ndarray of shape (H, W), uint8
        Void counts as class 0; it is not scored anyway.
    classes : int
        C, void not counted.
    cell : int
        Side of a cell, px: there are H // cell rows and W // cell columns of them.
    keep_probability : float
        Of each cell, 0..1.
    kind : {"probability", "logits"}
        Towards the border all maps fade, see `resize`, and so does the sum of the scores. As probability they are
        divided by it, which leaves log p up to the constant that a softmax takes away. As logits they are handed on
        as they are: so does the authors' code, where a pixel that is sure has p = e / (e + C − 1), 0.12 of 21 classes.
    stride : int
        1, as published, or more: only the scores in the middle of ⌈H / stride⌉ × ⌈W / stride⌉ cells, of a grid "cells".
    seed : int
    name : str
        Of the image. Seed and name alone decide what is drawn.

    Returns
    -------
    ndarray of shape (C, ⌈H / stride⌉, ⌈W / stride⌉), float32
        In [0, 1].

    Raises
    ------
    DataError
        If the image is smaller than a cell.
    """
    height, width = truth.shape
    rows, cols = height // cell, width // cell
    if not rows or not cols:
        raise DataError(
            f"image {name}",
            f"{height} × {width} px (rows × cols)",
            f"at least one cell of {cell} × {cell}",
            "lower `cell` of the network",
        )
    rng = np.random.default_rng([seed, *name.encode()])
    noise = one_hot(rng.integers(classes, size=(rows, cols)), classes)
    kept = (rng.random((rows, cols)) < keep_probability).astype(np.float32)
    known = resize(one_hot(np.where(truth == VOID, 0, truth), classes), rows, cols)
    size = -(-height // stride), -(-width // stride)
    kept = resize(kept, *size)
    scores = kept * resize(known, *size) + (1 - kept) * resize(noise, *size)
    return scores / scores.sum(axis=0) if kind == "probability" else scores


def one_hot(labels, classes):
    """Return one map per class: (C, H, W) float32, 1 where `labels` (H, W) name the class and 0 elsewhere."""
    return (labels == np.arange(classes)[:, None, None]).astype(np.float32)


def resize(maps, height, width):
    """Resize maps (…, h, w) to (…, height, width) float32: linear, without smoothing, 0 outside.

    Centres of pixels are half a pixel from the border. Since outside counts as 0, enlarged maps fade within half a
    cell of it: for cells of 8 px to 9/16 at a side. The same as ``resize`` of scikit-image with order 1, mode
    "constant" and no anti-aliasing.
    """
    rows, cols = weights(height, maps.shape[-2]), weights(width, maps.shape[-1])
    return rows @ maps @ cols.T


def weights(size, cells):
    """Return what each of `cells` counts at each of `size` places between them: (size, cells) float32."""
    places = (np.arange(size) + 0.5) * cells / size - 0.5
    return np.maximum(1 - np.abs(places[:, None] - np.arange(cells)), 0).astype(np.float32)
