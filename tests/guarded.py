"""Memory that ends where none may be read or written: a touch beyond it ends the process with a segmentation fault."""

import contextlib
import ctypes
import mmap

import numpy as np
import torch

from pipeline.kernels import dispatch

_SYSTEM = ctypes.CDLL(None, use_errno=True)


def array(shape, dtype=np.float32, *, at_end=True):
    """Return an array filled with NaN whose last byte, or whose first, borders on forbidden pages."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    inner = -(-max(size, 1) // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, inner + 2 * mmap.PAGESIZE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for page in (start, start + mmap.PAGESIZE + inner):
        assert _SYSTEM.mprotect(ctypes.c_void_p(page), mmap.PAGESIZE, 0) == 0
    offset = mmap.PAGESIZE + (inner - size if at_end else 0)
    whole = np.frombuffer(memory, dtype, count=int(np.prod(shape)), offset=offset).reshape(shape)
    whole.fill(np.nan)
    return whole


def tensor(like, *, at_end=True):
    """Return a copy of a float32 tensor in such memory."""
    copy = torch.from_numpy(array(tuple(like.shape), at_end=at_end))
    return copy.copy_(like.detach())


@contextlib.contextmanager
def allocation(*, at_end=True):
    """Within it, what kernels make room for lies in such memory."""
    kept = dispatch.room
    dispatch.room = lambda like, *shape: torch.from_numpy(array(shape or tuple(like.shape), at_end=at_end))
    try:
        yield
    finally:
        dispatch.room = kept
