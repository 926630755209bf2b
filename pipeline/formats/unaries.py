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


class Cache:
    """All shards of one network's unaries, open for reading."""

    def __init__(self, paths):
        self.stores = [stores.Store(path, FORMAT, made_by="cache") for path in paths]
        first = self.stores[0].attributes
        self.kind, self.class_names = first["kind"], tuple(first["class_names"])
        self.grid, self.pack_digest = Grid(**first["grid"]), first["pack_digest"]
        for store in self.stores[1:]:
            for key in ("kind", "class_names", "grid", "pack_digest"):
                if store.attributes[key] != first[key]:
                    raise DataError(
                        store.path,
                        f"{key} {store.attributes[key]}",
                        f"{first[key]} as in {paths[0]}",
                        "run `cache` again",
                    )
        self._home = {name: store for store in self.stores for name in store.names}

    @property
    def digest(self):
        """One digest over all shards."""
        return hashlib.sha256("".join(store.digest for store in self.stores).encode()).hexdigest()

    @property
    def names(self):
        """Names of all images, shard by shard."""
        return tuple(self._home)

    def belongs_to(self, pack):
        """Refuse unaries that were made from another pack, or have other classes."""
        where = self.stores[0].path
        if self.class_names != pack.class_names:
            raise DataError(
                where,
                f"classes {self.class_names}",
                f"{pack.class_names} as in the pack",
                "run `cache` again",
            )
        if self.pack_digest != pack.digest:
            raise DataError(where, "unaries of another pack", f"those of {pack.path}", "run `cache` again")

    def unaries(self, name, image):
        """Return the Unaries of one image, checked against the image they are for."""
        if name not in self._home:
            raise DataError(
                self.stores[0].path,
                f"no image {name}",
                "every image of the split",
                "cache this split too, or run `cache` again",
            )
        store = self._home[name]
        where = f"{store.path}, image {name}"
        scores, attributes = store.read(name)
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
