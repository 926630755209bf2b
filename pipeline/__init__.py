"""Edgewise: sharpen a CNN's segmentation with structured inference.

Here a file is a stage and a folder is a library.
"""

import ctypes
import os
import sys


def _settle():
    """Make this process wait and keep memory in ways that suit images: arrays of megabytes, passes of a millisecond."""
    # Torch and Numba bring an OpenMP each, with threads of their own. Left to itself, each lets its threads spin for
    # milliseconds after their work, on the cores that the other's then wait for. This is about a tenth of one.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # Freed arrays of up to 32 MB are kept for the next ones, 256 MB of them at most. The system would take them back
    # and clear every page anew for every image. Only the GNU C library knows these settings.
    allocator = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(allocator, "mallopt"):
        mmap_threshold, trim_threshold = -3, -1  # as in its malloc.h
        allocator.mallopt(mmap_threshold, 32 << 20)
        allocator.mallopt(trim_threshold, 256 << 20)


if os.environ.get("EDGEWISE_PLAIN_PROCESS") != "1":
    _settle()
