"""Writing HDF5 that a full disk cannot break.

The HDF5 library does not survive a write that fails: objects it could not flush are lost in silence or end the
process. So disk space is reserved before each array is handed over, where the failure is an ordinary OSError.
"""

import os
from contextlib import contextmanager

import h5py

from pipeline.core.files import whole_file

MARGIN = 1 << 20  # bytes kept ahead for the library's own structures and what it writes when closing


@contextmanager
def whole(path):
    """Yield (file, reserve); the HDF5 file appears at `path` when the block ends without error.

    Call ``reserve(nbytes)`` before writing arrays of that size, uncompressed.
    """
    with whole_file(path) as beside:
        # Made first, so that space can be had before the library writes its first byte.
        descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            os.posix_fallocate(descriptor, 0, MARGIN)
            with h5py.File(beside, "w", track_order=False) as file:
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
