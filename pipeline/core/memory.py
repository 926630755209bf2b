"""Freed memory that the C library keeps.

glibc (2.36 was looked at) seldom uses a freed block again whose beginning was aligned, as those of torch's tensors are:
a loop over thousands of images grew by 6 MB an image, although nothing of it was in use.
"""

import ctypes
import os
from pathlib import Path

GROWTH, LEAST = 1.15, 64 << 20  # by which factor, and by how many bytes, a process grows before it is looked at again
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
_STATM = Path("/proc/self/statm")


def resident():
    """Return the bytes of memory this process holds."""
    return int(_STATM.read_text(encoding="ascii").split()[1]) * _PAGE


def trimmer():
    """Return a function to call now and then: it gives freed memory back if the process has grown since it last did.

    Where the C library is another it does nothing.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if _STATM.exists() else None
    bound = 0

    def call():
        nonlocal bound
        if trim is not None and resident() > bound:
            trim(0)
            bound = max(GROWTH * resident(), resident() + LEAST)

    return call
