"""What a process holds and may still take; and freed memory, which the C library keeps.

It is told to keep freed blocks (`pipeline/__init__.py`), and glibc (2.36 was looked at) seldom uses one again whose
beginning was aligned, as those of torch's tensors are: a loop over images grew by 6 MB an image that nothing used.
"""

import ctypes
import os
import resource
from pathlib import Path

GROWTH, LEAST = 1.15, 64 << 20  # by which factor, and by how many bytes, a process may grow
OFTEN = 8  # calls; memory that was given back and is taken again within so many is in use
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
_STATM = Path("/proc/self/statm")
_highest = 0  # bytes, before the mark was last forgotten


def resident():
    """Return the bytes of memory this process holds, None where the system does not tell as Linux does."""
    if not _STATM.exists():
        return None
    return int(_STATM.read_text(encoding="ascii").split()[1]) * _PAGE


def available(root="/"):
    """Return the bytes that this process may still take, of the machine and of what its job was granted; or None.

    What files keep in memory and would give back counts as free. `root` is where proc and sys lie.
    """
    root = Path(root)
    told = root / "proc/meminfo"
    if not told.is_file():
        return None
    free = 1024 * int(_entry(told, "MemAvailable:"))
    for folder, limit, taken, files in _grants(root):
        bound = (folder / limit).read_text(encoding="ascii").strip()
        if bound != "max":
            used = int((folder / taken).read_text(encoding="ascii")) - int(_entry(folder / "memory.stat", files))
            free = min(free, max(0, int(bound) - used))
    return free


def _grants(root):
    """Yield (folder, limit, taken, what files keep) of every control group of memory that this process is in."""
    groups = root / "proc/self/cgroup"
    for line in groups.read_text(encoding="ascii").splitlines() if groups.is_file() else ():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            top, names = (
                "sys/fs/cgroup/memory",
                ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
            )
        elif not controllers:
            top, names = "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        else:
            continue
        # In a container the path may be that of the host; its own group is the top then.
        for folder in {root / top / part.strip("/") for part in (path, *map(str, Path(path).parents))}:
            if all((folder / name).is_file() for name in (*names[:2], "memory.stat")):
                yield folder, *names


def _entry(path, name):
    """Return the first number of a line that begins with a name."""
    lines = (line.split() for line in path.read_text(encoding="ascii").splitlines())
    return next(words[1] for words in lines if words and words[0] == name)


def peak(call):
    """Call a function; return by how many bytes memory grew meanwhile, at most; None where that cannot be told."""
    global _highest
    _trim()
    _highest = highest()
    try:
        # Linux forgets the highest mark there was.
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return None
    before = resident()
    call()
    return 1024 * int(_entry(Path("/proc/self/status"), "VmHWM:")) - before


def highest():
    """Return the most bytes that this process ever held."""
    return max(_highest, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def trimmer():
    """Return a function to call after each image or step: it gives freed memory back if the process keeps growing.

    What is taken again at every step is left alone: the system would clear all its pages anew.
    """
    bound, calls = None, 0

    def call():
        nonlocal bound, calls
        held = resident()
        if held is None:
            return
        calls += 1
        if bound is None:
            bound = larger(held)
        elif held > bound:
            _trim()
            bound, calls = larger(held) if calls < OFTEN else bound, 0

    return call


def larger(size):
    """Return how many bytes a process may hold that held so many, before it is looked at."""
    return max(GROWTH * size, size + LEAST)


def _trim():
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
