"""What kind a file or store is, told from its content; and stores that are not whole yet."""

from pathlib import Path

import h5py
import zarr

from pipeline.core.errors import DataError
from pipeline.formats import confusions, fitted, hdf5, labels, packs, unaries

KINDS = {
    packs.FORMAT: "pack",
    confusions.FORMAT: "score",
    fitted.FORMAT: "fitted",
    unaries.FORMAT: "unaries",
    labels.FORMAT: "labels",
}
MADE_BY = {"cache": "unaries", "refine": "labels"}  # kind of a store that is not whole, by its stage
ENDINGS = {".safetensors": "weights", ".npz": "fitted", ".jsonl": "history", ".tsv": "table", ".journal": "journal"}


def kind_of(path):
    """Tell what `path` is: a value of `KINDS` or `ENDINGS`, or "partial unaries" or "partial labels".

    Raises
    ------
    DataError
        If there is nothing at `path`, or nothing that a stage makes.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(path, "nothing there", "a file or store of the results folder", "mend the path")
    kind = _kind_of_store(path) if path.is_dir() else ENDINGS.get(path.suffix) or _kind_of_hdf5(path)
    if kind is None:
        wanted = "a pack, unaries, labels, a fitted system, a score, weights, a history, a journal or a table"
        raise DataError(path, "a file of another kind", wanted, "name a file that a stage has made")
    return kind


class PartialStore:
    """A store that a stage is still writing, or was killed over; `names` are the arrays that are there."""

    def __init__(self, path):
        self.path, self._group = Path(path), zarr.open_group(path, mode="r", zarr_format=3)
        self.attributes = dict(self._group.attrs)
        self.stamp = self.attributes["stamp"]
        arrays = sorted(self._group.arrays())
        self.names = tuple(name for name, array in arrays if array.nchunks_initialized == array.nchunks)

    def read(self, name):
        """Return (array, attributes) of one image."""
        try:
            return self._group[name][...], dict(self._group[name].attrs)
        except (KeyError, ValueError, RuntimeError, OSError):
            where = f"{self.path}, image {name}"
            raise DataError(where, "no whole array", "one that is there", "see the list of names") from None

    def attributes_of(self, name):
        """Return the attributes of one image's array."""
        return dict(self._group[name].attrs)


def _kind_of_store(path):
    try:
        attributes = dict(zarr.open_group(path, mode="r", zarr_format=3).attrs)
    except (FileNotFoundError, ValueError, KeyError):
        return None
    if "format" in attributes:
        return KINDS.get(attributes["format"])
    begun = MADE_BY.get(attributes.get("stamp", {}).get("stage"))
    return begun and f"partial {begun}"


def _kind_of_hdf5(path):
    if not h5py.is_hdf5(path):
        # What ends like HDF5 and is not is damaged: the reader says so better.
        return next((kind for kind in ("pack", "score") if kind in path.parts), None) if path.suffix == ".h5" else None
    with h5py.File(path, "r") as file:
        return KINDS.get(hdf5.texts(file).get("format"))
