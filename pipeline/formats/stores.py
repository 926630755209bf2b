"""Zarr v3 stores with one array per image: what unaries and labels have in common.

A store is written in a hidden folder beside its place and renamed when whole. A writer that finds such a
folder of the same work (equal stamps) keeps its whole arrays, so a killed stage goes on where it was.
Each array is one chunk: Blosc-zstd with shuffle, then a CRC-32C, so that damage is found when read.
"""

import hashlib
import json
import shutil
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from pipeline.core.errors import DataError
from pipeline.core.files import move_folder, partial
from pipeline.core.stamp import same_work

# What Zarr raises on a store that is missing, cut short or damaged.
UNREADABLE = (OSError, KeyError, ValueError, RuntimeError, TypeError, AttributeError)


class Writer:
    """Stores arrays by name; `names` says which are there, `digests` what is in them."""

    def __init__(self, group):
        self._group = group
        folders = (path.parent.name for path in Path(group.store.root).glob("*/zarr.json"))
        found = ((name, _whole_digest(group, name)) for name in folders)
        self.digests = {name: digest for name, digest in found if digest}

    @property
    def names(self):
        """Names of the arrays that are there, whole."""
        return self.digests.keys()

    def put(self, name, array, attributes):
        """Store one array; its digest is added to its attributes."""
        array = np.ascontiguousarray(array)
        digest = hashlib.sha256(array).hexdigest()
        # What a kill left of it may not be readable even as an array to overwrite.
        shutil.rmtree(Path(self._group.store.root) / name, ignore_errors=True)
        stored = self._group.create_array(
            name,
            shape=array.shape,
            chunks=array.shape,
            dtype=array.dtype,
            fill_value=np.nan if array.dtype.kind == "f" else 255,
            compressors=(
                BloscCodec(cname="zstd", clevel=1, shuffle="shuffle", typesize=array.itemsize),
                Crc32cCodec(),
            ),
            attributes=attributes | {"sha256": digest},
        )
        stored[...] = array
        self.digests[name] = digest


@contextmanager
def writer(path, *, format_name, names, attributes, stamp):
    """Yield a Writer of the store that will be at `path` once all of `names` were put.

    Parameters
    ----------
    path : str or Path
        Folder of the finished store.
    format_name : str
        Kind and version of the store, checked by `Store`.
    names : sequence of str
        Every array the finished store must hold, in order.
    attributes : dict
        Further attributes of the store.
    stamp : dict
        What it comes from; a partial store of another stamp is thrown away.
    """
    path, beside = Path(path), partial(path)
    beside.parent.mkdir(parents=True, exist_ok=True)
    group = _resume(beside, stamp)
    if group is None:
        group = _begin(beside, attributes | {"stamp": stamp})
    out = Writer(group)
    yield out
    missing = [name for name in names if name not in out.digests]
    if missing:
        raise RuntimeError(f"{path}: {len(missing)} arrays were never put, the first is {missing[0]}")
    digests = "".join(out.digests[name] for name in names)
    content = hashlib.sha256((json.dumps([list(names), attributes], sort_keys=True) + digests).encode())
    # Set last: what has a format is whole.
    group.attrs.update({"format": format_name, "names": list(names), "digest": content.hexdigest()})
    move_folder(beside, path)


class Store:
    """A finished store, open for reading."""

    def __init__(self, path, format_name, made_by):
        self.path, self.made_by = Path(path), made_by
        if not self.path.is_dir():
            raise DataError(path, "no such store", "a Zarr store", f"run `{made_by}` first or mend the path")
        try:
            self._group = zarr.open_group(self.path, mode="r", zarr_format=3)
        except UNREADABLE as error:
            reason = " ".join(str(error).split())[:120]
            raise DataError(path, f"no readable Zarr v3 group ({reason})", "a store", self._again) from None
        self.attributes = dict(self._group.attrs)
        found = self.attributes.get("format")
        if found != format_name:
            raise DataError(path, f"format {found!r}", f"'{format_name}'", self._again)
        self.names = tuple(self.attributes["names"])
        self._known = frozenset(self.names)
        self.stamp = self.attributes["stamp"]
        self.digest = self.attributes["digest"]

    def read(self, name):
        """Return (array, attributes) of one image."""
        if name not in self._known:
            raise DataError(f"{self.path}, image {name}", "no such image", "one of the store", self._again)
        try:
            stored = self._group[name]
            if stored.nchunks_initialized < stored.nchunks:
                raise KeyError("its data file is missing")
            return stored[...], dict(stored.attrs)
        except UNREADABLE as error:
            reason = " ".join(str(error).split())[:120]
            where = f"{self.path}, image {name}"
            raise DataError(where, f"a damaged array ({reason})", "a whole one", self._again) from None

    def attributes_of(self, name):
        """Return the attributes of one image's array without reading its data."""
        return dict(self._group[name].attrs)

    @property
    def _again(self):
        return f"run `{self.made_by}` again"


class Shards:
    """All stores that make up one whole, each with some of the images, open for reading.

    Parameters
    ----------
    paths : sequence of (str or Path)
    format_name : str
    made_by : str
        The stage.
    what : str
        What they hold, for errors.
    alike : sequence of str
        Attributes that all of them must share, besides their classes and pack.
    """

    def __init__(self, paths, format_name, made_by, what, alike=()):
        self.made_by, self.what = made_by, what
        self.stores = [Store(path, format_name, made_by) for path in paths]
        self.attributes, self.path = self.stores[0].attributes, self.stores[0].path
        self.class_names, self.pack_digest = tuple(self.attributes["class_names"]), self.attributes["pack_digest"]
        self._home = {}
        for store in self.stores:
            for key in ("class_names", "pack_digest", *alike):
                if store.attributes[key] != self.attributes[key]:
                    found, expected = f"{key} {store.attributes[key]}", f"{self.attributes[key]} as in {self.path}"
                    raise DataError(store.path, found, expected, self._again)
            for key in ("inputs", "settings", "source"):
                if store is not self.stores[0] and store.stamp[key] != self.stamp[key]:
                    raise DataError(store.path, f"other {key} than in {self.path}", "shards of one run", self._again)
            if both := next((name for name in store.names if name in self._home), None):
                found = f"image {both}, as in {self._home[both].path}"
                raise DataError(store.path, found, "each image in one store", "name one of the two")
            self._home |= dict.fromkeys(store.names, store)

    @property
    def digest(self):
        """One digest over all stores."""
        return hashlib.sha256("".join(store.digest for store in self.stores).encode()).hexdigest()

    @property
    def names(self):
        """Names of all images, store by store."""
        return tuple(self._home)

    @property
    def stamp(self):
        """The stamp of the first store; the others' name other shards."""
        return self.stores[0].stamp

    def store_of(self, name):
        """Return the store that holds an image."""
        if name not in self._home:
            found, do = f"no image {name}", f"run `{self.made_by}` on this split too, or again"
            raise DataError(self.path, found, "every image of the split", do)
        return self._home[name]

    def read(self, name):
        """Return (array, attributes) of one image."""
        return self.store_of(name).read(name)

    def attributes_of(self, name):
        """Return the attributes of one image's array without reading its data."""
        return self.store_of(name).attributes_of(name)

    def belongs_to(self, pack):
        """Refuse stores that were made from another pack, or have other classes."""
        if self.class_names != pack.class_names:
            found = f"classes {self.class_names}"
            raise DataError(self.path, found, f"{pack.class_names} as in the pack", self._again)
        if self.pack_digest != pack.digest:
            raise DataError(self.path, f"{self.what} of another pack", f"those of {pack.path}", self._again)

    @property
    def _again(self):
        return f"run `{self.made_by}` again"


def _begin(beside, attributes):
    shutil.rmtree(beside, ignore_errors=True)
    return zarr.create_group(beside, zarr_format=3, attributes=attributes)


def _resume(beside, stamp):
    """Open a partial store if it is of the same work."""
    try:
        group = zarr.open_group(beside, mode="r+", zarr_format=3)
        # Stamps are compared as JSON reads them back: tuples have become lists.
        return group if same_work(group.attrs["stamp"], json.loads(json.dumps(stamp))) else None
    except UNREADABLE:
        return None


def _whole_digest(group, name):
    """Return the digest of a partial store's array, None if a kill fell between its metadata and its data."""
    try:
        stored = group[name]
        if stored.nchunks_initialized < stored.nchunks:
            return None
        digest = hashlib.sha256(stored[...]).hexdigest()
        return digest if digest == stored.attrs["sha256"] else None
    except UNREADABLE:
        return None
