"""Scores: the confusion counts of one run, image by image, in one HDF5 file.

    names, block  (n,)      text   sample, and the block of a video that it belongs to (its own name if none)
    all           (n C C)   int32  pixels by true class (row) and label (column), void left out
    bands         (n W C C) int32  the same within `widths` px of a boundary; wider bands hold narrower ones
    exact         (n C C)   int32  the same against the exact truth, where the pack has one
    changed       (n,)      f8     share of pixels whose label differs from the unary's
    seconds       (n,)      f8     of refining, warm
    energy, bound (n,)      f8     of the labels, and of all labels, where the system knows them

Attributes: `format`, `class_names`, `categories`, `split`, `widths`, `trimap`, `settings` of the system, `pack_digest`,
`stamp`, `digest` of the content. For the same inputs all bytes are the same but those of `seconds`.

Counts are compressed (gzip 1), checked (Fletcher-32) and written image by image, so that memory does not grow
with their number.
"""

import hashlib
import json
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from pipeline.core.errors import DataError
from pipeline.core.stamp import to_json
from pipeline.formats import hdf5

FORMAT = "edgewise score 2"
AT_ONCE = 2**22  # bytes of counts held in memory while reading
CHUNK = 2**16  # bytes of counts compressed together, unless one image has more
COUNTS, NUMBERS, TEXTS = ("all", "bands", "exact"), ("changed", "seconds"), ("names", "block")
CERTIFICATE = ("energy", "bound")  # of every image or of none


class Writer:
    """Takes the counts of one image after the other, in the order of the names."""

    def __init__(self, file, reserve, names):
        self._file, self._reserve, self.names, self.done = file, reserve, names, 0
        self.content = hashlib.sha256()

    def put(self, name, counts, numbers):
        """Store one image.

        Parameters
        ----------
        name : str
            The next of the names.
        counts : dict of str to ndarray
            "all" (C, C), "bands" (W, C, C) and, for every image or for none, "exact" (C, C); integers.
        numbers : dict of str to float
            "changed", "seconds" and, for every image or for none, "energy" and "bound".
        """
        if self.done == len(self.names) or name != self.names[self.done]:
            raise ValueError(f"{name} is out of turn")
        self._reserve(4 * sum(array.size for array in counts.values()))
        if self.done == 0:
            # The arrays of numbers are stored at once, as large as they will be.
            self._reserve(8 * len(numbers) * len(self.names))
            self._begin(counts, numbers)
        for key, array in counts.items():
            self._file[key][self.done] = array
            self.content.update(np.ascontiguousarray(array, dtype="<i4").tobytes())
        for key, number in numbers.items():
            self._file[key][self.done] = number
            if key != "seconds":
                self.content.update(np.float64(number).tobytes())
        self.done += 1

    def _begin(self, counts, numbers):
        for key, array in counts.items():
            images = max(1, CHUNK // (4 * array.size))
            self._file.create_dataset(
                key,
                shape=(len(self.names), *array.shape),
                dtype="<i4",
                chunks=(min(images, len(self.names)), *array.shape),
                compression="gzip",
                compression_opts=1,
                shuffle=True,
                fletcher32=True,
            )
        for key in numbers:
            self._file.create_dataset(
                key, shape=len(self.names), dtype="<f8", chunks=min(4096, len(self.names)), fletcher32=True
            )


@contextmanager
def writer(path, *, names, blocks, class_names, categories, split, widths, trimap, settings, pack_digest, stamp):
    """Yield a `Writer`; the file appears at `path` when the block ends without error.

    Parameters
    ----------
    path : str or Path
    names : sequence of str
        Every image that will be put, in order; at least one.
    blocks : dict of str to str
        Block of a video by name of image; images it lacks stand for themselves.
    class_names : sequence of str
    categories : dict of str to list of str
        Class names by category, empty if the pack has none.
    split, trimap : str
    widths : sequence of int
        Of the bands, px, rising.
    settings : dict
        Of the system, plain values.
    pack_digest : str
    stamp : dict
    """
    described = {
        "class_names": json.dumps(list(class_names), ensure_ascii=False),
        "categories": json.dumps(categories, ensure_ascii=False),
        "split": split,
        "widths": json.dumps(list(widths)),
        "trimap": trimap,
        "settings": json.dumps(settings, sort_keys=True, ensure_ascii=False),
        "pack_digest": pack_digest,
    }
    texts = {"names": list(names), "block": [blocks.get(name, name) for name in names]}
    with hdf5.whole(path) as (file, reserve):
        for key, values in texts.items():
            reserve(sum(len(value.encode()) for value in values) + 64 * len(values))
            hdf5.write_names(file, key, values)
        out = Writer(file, reserve, tuple(names))
        yield out
        if out.done < len(out.names):
            raise RuntimeError(f"{path}: {out.names[out.done]} was never put")
        out.content.update(json.dumps([described, texts], sort_keys=True).encode())
        digest = out.content.hexdigest()
        hdf5.set_texts(file, described | {"stamp": to_json(stamp), "format": FORMAT, "digest": digest})


class Score:
    """The counts of one run, open for reading.

    Attributes
    ----------
    names, block : tuple of str
    class_names : tuple of str
    widths : tuple of int
    split, trimap, pack_digest, digest : str
    settings, stamp, categories : dict
    """

    def __init__(self, path):
        self.path = Path(path)
        self._file, attrs = hdf5.open_whole(self.path, FORMAT, made_by="score")
        try:
            self.class_names, self.widths = (tuple(json.loads(attrs[key])) for key in ("class_names", "widths"))
            self.settings, self.stamp, self.categories = (
                json.loads(attrs[key]) for key in ("settings", "stamp", "categories")
            )
            self.split, self.trimap = attrs["split"], attrs["trimap"]
            self.pack_digest, self.digest = attrs["pack_digest"], attrs["digest"]
            self.names, self.block = (hdf5.read_names(self._file, key) for key in TEXTS)
            self._check_shapes()
        except hdf5.DAMAGE as error:
            raise self._damaged(error) from None

    @property
    def has_exact(self):
        """Whether the run was scored against an exact truth too."""
        return "exact" in self._file

    def parts(self, key):
        """Yield the counts "all", "bands" or "exact" in order, as many images at a time as memory allows."""
        stored = self._file[key]
        images = max(1, AT_ONCE // (4 * int(np.prod(stored.shape[1:]))))
        for start in range(0, len(stored), images):
            try:
                yield stored[start : start + images].astype(np.int64)
            except hdf5.DAMAGE as error:
                raise self._damaged(error) from None

    def total(self, key):
        """Return the counts summed over all images, int64: (C C), or (W C C) for "bands"."""
        return sum(part.sum(axis=0) for part in self.parts(key))

    @property
    def has_certificate(self):
        """Whether the system said how far its labels may be from the best."""
        return CERTIFICATE[0] in self._file

    def per_image(self, key):
        """Return "changed", "seconds", "energy" or "bound" of all images, (n,) float64."""
        try:
            return self._file[key][:]
        except hdf5.DAMAGE as error:
            raise self._damaged(error) from None

    def compares_with(self, other):
        """Refuse to be compared with a score of other images, classes, bands, or another pack."""
        for what in ("pack_digest", "class_names", "split", "names", "widths", "trimap"):
            mine, theirs = getattr(self, what), getattr(other, what)
            if mine != theirs:
                raise DataError(
                    self.path,
                    f"{what} {_short(mine)}",
                    f"{_short(theirs)} as in {other.path}",
                    "run `score` again on both, with the same pack and options",
                )

    def close(self):
        """Close the file."""
        self._file.close()

    def _check_shapes(self):
        classes, images = len(self.class_names), len(self.names)
        shapes = {"all": (classes, classes), "bands": (len(self.widths), classes, classes)}
        shapes |= {"exact": (classes, classes)} if self.has_exact else {}
        numbers = NUMBERS + CERTIFICATE if self.has_certificate else NUMBERS
        shapes |= dict.fromkeys(numbers, ()) | {"block": ()}
        for key, shape in shapes.items():
            if self._file[key].shape != (images, *shape):
                raise ValueError(f"{key} of shape {self._file[key].shape}")

    def _damaged(self, error):
        return DataError(self.path, f"a damaged file ({_short(error)})", "a score", "run `score` again")


def _short(value):
    text = " ".join(str(value).split())
    return text if len(text) <= 120 else text[:117] + "…"
