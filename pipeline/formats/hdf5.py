"""HDF5 that neither a full disk nor a damaged file can break.

The HDF5 library does not survive a write that fails: objects it could not flush are lost in silence or end the
process. So disk space is reserved before each array is handed over, where the failure is an ordinary OSError.
Nor does it survive damaged metadata in its oldest format, which has no checksums: files are written in that of
version 1.10, and texts at a fixed length, since those of variable length lie in a part that is never checked.
"""

import os
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from pipeline.core.errors import DataError
from pipeline.core.files import whole_file

VERSION = ("v110", "v110")
DAMAGE = (OSError, KeyError, RuntimeError, ValueError, TypeError)  # what the library raises on a damaged file
MARGIN = 1 << 20  # bytes kept ahead for the library's own structures and what it writes when closing
METADATA = 128 << 10  # bytes of a file's structure that the library keeps; by itself 2 MB, as it counts: 34 in truth


@contextmanager
def whole(path):
    """Yield (file, reserve); the HDF5 file appears at `path` when the block ends without error.

    Call ``reserve(nbytes)`` before writing arrays of that size, as they are stored or larger.
    """
    with whole_file(path) as beside:
        # Made first, so that space can be had before the library writes its first byte.
        descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            os.posix_fallocate(descriptor, 0, MARGIN)
            with h5py.File(beside, "w", libver=VERSION) as file:
                _keep_little(file)
                # Creating it has cut the file to nothing again.
                os.posix_fallocate(descriptor, 0, MARGIN)
                reserved = MARGIN

                def reserve(nbytes):
                    nonlocal reserved
                    end = file.id.get_filesize() + nbytes + MARGIN
                    if end > reserved:
                        os.posix_fallocate(descriptor, reserved, end - reserved)
                        reserved = end

                yield file, reserve
                file.flush()
                size = file.id.get_filesize()
            os.ftruncate(descriptor, size)
        finally:
            os.close(descriptor)


def _keep_little(file):
    """Let memory not grow with the number of arrays that were written or read; this costs no time."""
    config = file.id.get_mdc_config()
    config.set_initial_size = True
    config.initial_size = config.min_size = config.max_size = METADATA
    file.id.set_mdc_config(config)


def write_chunk(file, key, shape, chunk, gzip):
    """Store an array (uint8) of one chunk, its filters applied before: zlib at level `gzip`, if any, Fletcher-32."""
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk(shape)
    plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    plan.set_obj_track_times(False)
    if gzip is not None:
        plan.set_deflate(gzip)
    plan.set_fletcher32()
    groups = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    groups.set_create_intermediate_group(True)
    groups.set_char_encoding(h5py.h5t.CSET_UTF8)
    space = h5py.h5s.create_simple(shape)
    # The library's own layer takes as long again.
    array = h5py.h5d.create(file.id, key.encode(), h5py.h5t.STD_U8LE, space, plan, groups)
    array.write_direct_chunk((0,) * len(shape), chunk)


def set_texts(file, texts):
    """Store a mapping of str to str as attributes."""
    for name, text in texts.items():
        file.attrs[name] = np.bytes_(text.encode())


def texts(file):
    """Return the attributes that `set_texts` stored; those of another's file may be texts of another kind."""
    values = file.attrs.items()
    return {name: value.decode() if isinstance(value, bytes) else str(value) for name, value in values}


def write_names(file, key, names):
    """Store a sequence of str as a checksummed array of fixed-length texts."""
    encoded = np.array([name.encode() for name in names], dtype=np.bytes_)
    # An empty list has no chunk to check.
    checked = {"chunks": encoded.shape, "fletcher32": True} if len(encoded) else {}
    file.create_dataset(key, data=encoded, **checked)


def read_names(file, key):
    """Return what `write_names` stored, as a tuple of str."""
    return tuple(name.decode() for name in file[key][...])


def open_whole(path, format_name, made_by):
    """Open a file for reading and return it with its texts; DataError if it is missing, damaged or another."""
    what = f"a {format_name.split()[1]}"
    path = Path(path)
    if not path.is_file():
        raise DataError(path, "no such file", what, f"run `{made_by}` first or mend the path")
    again = f"run `{made_by}` again"
    try:
        file = h5py.File(path, "r")
        _keep_little(file)
    except OSError as error:
        reason = first_words(error)
        raise DataError(path, f"no readable HDF5 file ({reason})", what, again) from None
    try:
        about = texts(file)
    except DAMAGE as error:
        raise DataError(path, f"a damaged file ({first_words(error)})", what, again) from None
    if about.get("format") != format_name:
        raise DataError(path, f"format {about.get('format')!r}", f"'{format_name}'", again)
    return file, about


def first_words(error):
    """Return the beginning of an error's text in one line."""
    return " ".join(str(error).split())[:120]
