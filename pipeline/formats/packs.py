"""Packs: one data set in one HDF5 file.

    /images/NAME   (H W 3) uint8   photograph, RGB
    /truth/NAME    (H W)   uint8   class, 255 = void
    /exact/NAME    (H W)   uint8   class without void bands, where the data set knows it
    /full/NAME     (H' W') uint8   class at the size of the data set, where image and truth were made smaller
    /splits/SPLIT  (n,)    text    names of the samples

Attributes: `class_names`, `categories` (category → class names, JSON; {} if it has none), `trimap`, `blocks` (name →
block of a video, JSON), `stamp`, `digest` of the content.

Every array is one chunk with a Fletcher-32 checksum, so that damage is found when read. Labels are compressed
(gzip 1); photographs are not: it takes five times as long as decoding them, and saves a third of the room.
"""

import hashlib
import json
import os
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numcodecs.fletcher32 import Fletcher32

from pipeline.core.errors import DataError
from pipeline.core.sample import VOID, Sample
from pipeline.core.stamp import to_json
from pipeline.formats import hdf5

FORMAT = "edgewise pack 3"
OPTIONAL = ("exact", "full")  # groups that not every pack has
LEVEL = 1  # of the compression of labels


class Encoded(NamedTuple):
    """One array as a pack holds it."""

    key: str  # GROUP/NAME
    shape: tuple
    chunk: bytes  # after HDF5's filters
    gzip: int | None  # level of one of them
    sha256: str  # of the array


def encode(sample, classes):
    """Check and encode one sample, in whatever process: a list of Encoded.

    Raises
    ------
    DataError
        If its arrays disagree, or labels are neither one of so many classes nor void.
    """
    _check(sample, classes)
    arrays = {"images": sample.image} | {group: getattr(sample, group) for group in ("truth", *OPTIONAL)}
    return [_encode(f"{group}/{sample.name}", array) for group, array in arrays.items() if array is not None]


def _encode(key, array):
    content = array.tobytes()
    gzip = None if key.startswith("images/") else LEVEL
    # As HDF5 does it, which would hold a lock that all threads share.
    chunk = Fletcher32().encode(content if gzip is None else zlib.compress(content, gzip))
    return Encoded(key, array.shape, chunk, gzip, hashlib.sha256(content).hexdigest())


@contextmanager
def writer(path, *, class_names, categories, splits, blocks, trimap, stamp):
    """Yield a function that stores what `encode` made; the pack appears at `path` when the block ends without error."""
    with hdf5.whole(path) as (file, reserve):
        content = hashlib.sha256()

        def put(encoded):
            reserve(sum(len(one.chunk) for one in encoded))
            for key, shape, chunk, gzip, sha256 in encoded:
                hdf5.write_chunk(file, key, shape, chunk, gzip)
                content.update(f"{key} {shape} {sha256}".encode())

        yield put
        reserve(sum(len(name) + 16 for names in splits.values() for name in names))
        for split, names in splits.items():
            hdf5.write_names(file, f"splits/{split}", names)
        described = {
            "class_names": json.dumps(list(class_names), ensure_ascii=False),
            "categories": json.dumps(categories, ensure_ascii=False),
            "blocks": json.dumps(blocks, sort_keys=True),
            "trimap": trimap,
            "stamp": to_json(stamp),
        }
        texts = [described[key] for key in ("class_names", "categories", "blocks")]
        content.update(json.dumps([*texts, splits]).encode())
        hdf5.set_texts(file, described | {"format": FORMAT, "digest": content.hexdigest()})


class Pack:
    """A pack open for reading; may be sent to another process, which opens the file for itself."""

    def __init__(self, path):
        self.path = Path(path)
        self._file = self._process = None
        _, about = self._open()
        try:
            self.class_names = tuple(json.loads(about["class_names"]))
            self.blocks, self.categories, self.stamp = (
                json.loads(about[key]) for key in ("blocks", "categories", "stamp")
            )
            self.trimap, self.digest = about["trimap"], about["digest"]
            self._splits = {split: hdf5.read_names(self._file, f"splits/{split}") for split in self._file["splits"]}
        except hdf5.DAMAGE as error:
            raise self._damaged("its description", error) from None

    @property
    def classes(self):
        """Number of classes, void not counted."""
        return len(self.class_names)

    @property
    def splits(self):
        """Names of the splits."""
        return tuple(self._splits)

    def names(self, split):
        """Return the names of one split's samples, in its order."""
        if split not in self.splits:
            raise DataError(self.path, f"no split '{split}'", f"one of {', '.join(self.splits)}", "name one of these")
        return self._splits[split]

    def sample(self, name):
        """Read one sample by name."""
        return Sample(name, *(self._read(group, name) for group in ("images", "truth", *OPTIONAL)))

    def _read(self, group, name):
        """Return one array; None if its group is optional and the pack has none."""
        file, _ = self._open()
        try:
            if group in OPTIONAL and group not in file:
                return None
            if name in file[group]:
                return file[group][name][()]
        except hdf5.DAMAGE as error:
            raise self._damaged(f"{group}/{name}", error) from None
        raise DataError(self.path, f"no {group}/{name}", "every sample of its splits", "run `pack` again")

    def _damaged(self, what, error):
        reason = hdf5.first_words(error)
        return DataError(self.path, f"{what} damaged ({reason})", "a whole pack", "run `pack` again")

    def _open(self):
        # A process that was forked off must not share the library's state with its parent.
        if self._process != os.getpid():
            self._file, self._about = hdf5.open_whole(self.path, FORMAT, made_by="pack")
            self._process = os.getpid()
        return self._file, self._about

    def __getstate__(self):
        return self.__dict__ | {"_file": None, "_process": None}


def _check(sample, classes):
    """Refuse a sample whose arrays disagree or whose labels are out of range."""
    image, truth = sample.image, sample.truth
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or truth.dtype != np.uint8:
        found = f"image {image.shape} {image.dtype}, truth {truth.shape} {truth.dtype}"
        raise DataError(sample.name, found, "(H, W, 3) uint8 and (H, W) uint8", "mend the reader")
    if image.shape[:2] != truth.shape:
        raise DataError(
            sample.name,
            f"an image of {image.shape[0]} × {image.shape[1]} px (rows × cols) with labels of "
            f"{truth.shape[0]} × {truth.shape[1]}",
            "equal sizes",
            "replace the one that is wrong",
        )
    if sample.exact is not None and (sample.exact.shape != truth.shape or sample.exact.max() >= classes):
        found = f"exact truth {sample.exact.shape} up to class {sample.exact.max()}"
        raise DataError(sample.name, found, f"{truth.shape} up to {classes - 1}", "mend the reader")
    full = truth if sample.full is None else sample.full
    if full.dtype != np.uint8 or full.ndim != 2 or np.any(np.less(full.shape, truth.shape)):
        found = f"truth at full size {full.shape} {full.dtype}"
        raise DataError(sample.name, found, f"uint8 of {truth.shape} or more", "mend the reader")
    for labels in (truth, full):
        bad = labels[(labels >= classes) & (labels != VOID)]
        if bad.size:
            raise DataError(
                f"{sample.name}, labels",
                f"the value {int(bad[0])}",
                f"0 to {classes - 1}, or {VOID} for void",
                "mend the labels or the list of class names",
            )
