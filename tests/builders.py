"""Tiny inputs for tests, written with the pipeline's own writers: seeded, smooth, a few small images.

`pack` first; `unaries`, `labels` and `fitted` then take the path of that pack. All return the path they wrote.
"""

import json

import numpy as np
import torch
from scipy import ndimage

from pipeline.core.sample import Sample
from pipeline.core.settings import Settings
from pipeline.core.unaries import resize
from pipeline.formats import fitted as fitted_files
from pipeline.formats import labels as label_stores
from pipeline.formats import packs
from pipeline.formats import unaries as unary_stores
from pipeline.formats.packs import Pack

CLASS_NAMES = ("ground", "leaf", "berry", "stone", "water")
SIZES = ((24, 32), (30, 21), (17, 40), (33, 33), (20, 26), (28, 23))  # rows, cols
SPLITS = {"train": 2, "heldout": 2, "val": 6}
VOID = 255
COLOURS = np.array([[90, 70, 50], [60, 140, 60], [170, 40, 70], [130, 130, 140], [50, 90, 170]], np.float64)
STAMP = {
    "project": "edgewise 0",
    "commit": "0123456789ab",
    "versions": {"python": "3", "torch": "2"},
    "inputs": {},
    "settings": {},
    "seed": 0,
}


def stamp(stage, **more):
    """Return a stamp as `core.stamp.make` would, without looking at the code."""
    return STAMP | {"stage": stage} | more


def smooth(rng, shape, sigma):
    """Draw smooth noise of unit spread; the last two axes are rows and cols."""
    drawn = ndimage.gaussian_filter(rng.standard_normal(shape), (0,) * (len(shape) - 2) + (sigma, sigma))
    return drawn / drawn.std()


def sample(name, seed, size=(24, 32), classes=4, exact=True):
    """Make one Sample: smooth regions, a void line one pixel wide along their edges, colours that tell classes."""
    rng = np.random.default_rng(seed)
    whole = smooth(rng, (classes, *size), 4).argmax(axis=0).astype(np.uint8)
    truth = whole.copy()
    truth[:, 1:][whole[:, 1:] != whole[:, :-1]] = VOID
    truth[1:][whole[1:] != whole[:-1]] = VOID
    image = COLOURS[whole] + 25 * smooth(rng, (3, *size), 1).transpose(1, 2, 0)
    return Sample(name, image.clip(0, 255).astype(np.uint8), truth, whole if exact else None)


def pack(path, *, classes=4, sizes=SIZES, splits=SPLITS, exact=True, trimap="void", blocks=None, seed=0):
    """Write a pack; sizes go round over all images, named val_0, val_1, …"""
    named = {split: [f"{split}_{number}" for number in range(count)] for split, count in splits.items()}
    with packs.writer(
        path,
        class_names=CLASS_NAMES[:classes],
        splits=named,
        blocks=blocks or {},
        trimap=trimap,
        stamp=stamp("pack", seed=seed),
    ) as put:
        for number, name in enumerate(name for names in named.values() for name in names):
            put(sample(name, seed * 1000 + number, sizes[number % len(sizes)], classes, exact))
    return path


def scores_of(truth, classes, *, seed, stride=4, noise=1.0):
    """Return logits (C h w) float32 that blur the truth, with smooth noise; void is no evidence for any class."""
    height, width = (-(-size // stride) for size in truth.shape)
    hot = np.stack([(truth == label).astype(np.float32) for label in range(classes)])
    coarse = resize(torch.from_numpy(hot)[None], (height, width) if False else height, width)[0].numpy()
    return (4 * coarse + noise * smooth(np.random.default_rng(seed), coarse.shape, 1)).astype(np.float32)
