"""What a process holds and may still take; and freed memory, which the C library keeps.

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


def available():
    """Return the bytes that this process may still take, of the machine and of what its job was granted."""
    told = Path("/proc/meminfo").read_text(encoding="ascii")
    free = 1024 * int(next(line for line in told.splitlines() if line.startswith("MemAvailable")).split()[1])
    granted, taken = (Path(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if granted.is_file() and (bound := granted.read_text(encoding="ascii").strip()) != "max":
        free = min(free, int(bound) - int(taken.read_text(encoding="ascii")))
    return free


def peak(call):
    """Call a function; return by how many bytes memory grew meanwhile, at most."""
    _trim()
    # Linux forgets the highest mark there was.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = resident()
    call()
    told = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(next(line for line in told.splitlines() if line.startswith("VmHWM")).split()[1]) - before


def trimmer():
    """Return a function to call now and then: it gives freed memory back if the process has grown since it last did.

    Where the C library is another it does nothing.
    """
    bound = 0

    def call():
        nonlocal bound
        if _STATM.exists() and resident() > bound:
            _trim()
            bound = max(GROWTH * resident(), resident() + LEAST)

    return call


def _trim():
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
