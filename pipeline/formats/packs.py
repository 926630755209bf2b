"""Packs: one data set in one HDF5 file.

    /images/NAME   (H W 3) uint8   photograph, RGB
    /truth/NAME    (H W)   uint8   class, 255 = void
    /exact/NAME    (H W)   uint8   class without void bands, where the data set knows it
    /splits/SPLIT  (n,)    text    names of the samples

Attributes: `class_names`, `trimap`, `blocks` (name → block of a video, JSON), `stamp`, `digest` of the content.

Every array is compressed (gzip 1) and carries a Fletcher-32 checksum, so that damage is found when read.
"""

import hashlib
import json
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from pipeline.core.errors import DataError
from pipeline.core.sample import Sample
from pipeline.core.stamp import to_json
from pipeline.formats import hdf5

FORMAT = "edgewise pack 1"
VOID = 255
_STORED = {"compression": "gzip", "compression_opts": 1, "shuffle": False, "fletcher32": True}


@contextmanager
def writer(path, *, class_names, splits, blocks, trimap, stamp):
    """Yield a function that stores one Sample; the pack appears at `path` when the block ends without error."""
    with hdf5.whole(path) as (file, reserve):
        content = hashlib.sha256()

        def put(sample):
            _check(sample, len(class_names))
            arrays = {"images": sample.image, "truth": sample.truth, "exact": sample.exact}
            reserve(sum(array.nbytes for array in arrays.values() if array is not None))
            for group, array in arrays.items():
                if array is not None:
                    file.create_dataset(f"{group}/{sample.name}", data=array, chunks=array.shape, **_STORED)
                    content.update(f"{group}/{sample.name}".encode() + array.tobytes())

        yield put
        reserve(sum(len(name) + 16 for names in splits.values() for name in names))
        for split, names in splits.items():
            file.create_dataset(f"splits/{split}", data=np.array(names, dtype=h5py.string_dtype()))
        described = {
            "class_names": json.dumps(list(class_names), ensure_ascii=False),
            "blocks": json.dumps(blocks, sort_keys=True),
            "trimap": trimap,
            "stamp": to_json(stamp),
        }
        content.update(json.dumps([described["class_names"], described["blocks"], splits]).encode())
        file.attrs.update(described | {"format": FORMAT, "digest": content.hexdigest()})


class Pack:
    """A pack open for reading; may be sent to another process, which opens the file for itself."""

    def __init__(self, path):
        self.path = Path(path)
        self._file = None
        attrs = dict(self._open().attrs)
        self.class_names = tuple(json.loads(attrs["class_names"]))
        self.blocks = json.loads(attrs["blocks"])
        self.trimap = attrs["trimap"]
        self.digest = attrs["digest"]
        self.stamp = json.loads(attrs["stamp"])

    @property
    def classes(self):
        """Number of classes, void not counted."""
        return len(self.class_names)

    @property
    def splits(self):
        """Names of the splits."""
        return tuple(self._open()["splits"])

    def names(self, split):
        """Return the names of one split's samples, in its order."""
        if split not in self.splits:
            raise DataError(self.path, f"no split '{split}'", f"one of {', '.join(self.splits)}", "name one of these")
        return tuple(self._open()["splits"][split].asstr()[:])

    def sample(self, name):
        """Read one sample by name."""
        exact = self._read("exact", name) if name in self._open().get("exact", ()) else None
        return Sample(name, self._read("images", name), self._read("truth", name), exact)

    def _read(self, group, name):
        try:
            return self._open()[group][name][()]
        except KeyError:
            found, expected = f"no {group}/{name}", "every sample of its splits"
        except OSError as error:
            found, expected = f"{group}/{name} damaged ({_first_words(error)})", "a whole array"
        raise DataError(self.path, found, expected, "run `pack` again") from None

    def _open(self):
        if self._file is None:
            self._file = _open(self.path)
        return self._file

    def __getstate__(self):
        return self.__dict__ | {"_file": None}


def _open(path):
    if not path.is_file():
        raise DataError(path, "no such file", "a pack", "run `pack` first or mend the path")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise DataError(path, f"no readable HDF5 file ({_first_words(error)})", "a pack", "run `pack` again") from None
    if file.attrs.get("format") != FORMAT or "splits" not in file:
        raise DataError(path, f"format {file.attrs.get('format')!r}", f"a whole '{FORMAT}'", "run `pack` again")
    return file


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
    bad = truth[(truth >= classes) & (truth != VOID)]
    if bad.size:
        raise DataError(
            f"{sample.name}, labels",
            f"the value {int(bad[0])}",
            f"0 to {classes - 1}, or {VOID} for void",
            "mend the labels or the list of class names",
        )


def _first_words(error):
    return " ".join(str(error).split())[:120]
