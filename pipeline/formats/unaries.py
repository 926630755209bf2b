"""Unaries: the scores of one network for many images, in one or several Zarr stores (shards).

STORE             attributes: kind, class_names, grid (kind, stride, origin), dtype, pack_digest, stamp, digest, names
STORE/NAME        (C h w) float16 or float32 at the network's stride; attributes: image_size (rows, cols),
                  image_sha256, max_error (of storing in `dtype`), sha256
"""

import dataclasses
import hashlib

import numpy as np
import torch

from pipeline.core.errors import DataError
from pipeline.core.grids import Grid
from pipeline.core.unaries import Unaries, check
from pipeline.formats import stores

FORMAT = "edgewise unaries 3"
DTYPES = {"float16": np.float16, "float32": np.float32}


def writer(path, *, names, class_names, kind, grid, dtype, pack_digest, stamp):
    """Return a context that yields a `stores.Writer`; fill it with `put`."""
    attributes = {
        "kind": kind,
        "class_names": list(class_names),
        "grid": dataclasses.asdict(grid),
        "dtype": dtype,
        "pack_digest": pack_digest,
    }
    return stores.writer(path, format_name=FORMAT, names=names, attributes=attributes, stamp=stamp)


def put(out, name, scores, image, dtype):
    """Store one image's scores.

    Parameters
    ----------
    out : stores.Writer
    name : str
    scores : ndarray of shape (C, h, w), float32
    image : ndarray of shape (H, W, 3), uint8
        The photograph they belong to; its size and hash are stored beside them.
    dtype : {"float16", "float32"}
        How to store. The largest error this makes is stored too.
    """
    with np.errstate(over="ignore"):
        stored = scores.astype(DTYPES[dtype])
    if not np.isfinite(stored).all() and np.isfinite(scores).all():
        raise DataError(name, f"a score of {np.abs(scores).max():.3g}", "at most 65504 for float16", "use float32")
    attributes = {
        "image_size": list(image.shape[:2]),
        "image_sha256": hashlib.sha256(image.tobytes()).hexdigest(),
        "max_error": float(np.abs(stored.astype(np.float32) - scores).max()),
    }
    out.put(name, stored, attributes)


class Cache(stores.Shards):
    """All shards of one network's unaries, open for reading."""

    def __init__(self, paths):
        super().__init__(paths, FORMAT, made_by="cache", what="unaries", alike=("kind", "grid"))
        self.kind, self.grid = self.attributes["kind"], Grid(**self.attributes["grid"])

    def unaries(self, name, image):
        """Return the Unaries of one image, checked against the image they are for."""
        where = f"{self.store_of(name).path}, image {name}"
        scores, attributes = self.read(name)
        size, expected = tuple(attributes["image_size"]), image.shape[:2]
        if size != expected:
            hint = "the axes look swapped, run `cache` again" if size == expected[::-1] else "run `cache` again"
            raise DataError(
                where,
                f"unaries of an image of {size[0]} × {size[1]} px (rows × cols)",
                f"{expected[0]} × {expected[1]} as in the pack",
                hint,
            )
        if attributes["image_sha256"] != hashlib.sha256(image.tobytes()).hexdigest():
            raise DataError(
                where,
                "unaries of another image of the same name",
                "those of the pack's image",
                "run `cache` again",
            )
        if scores.shape[0] != len(self.class_names):
            raise DataError(where, f"{scores.shape[0]} classes", str(len(self.class_names)), "run `cache` again")
        scores = torch.from_numpy(scores.astype(np.float32))
        check(scores, self.kind, where)
        return Unaries(scores, self.kind, self.grid)
