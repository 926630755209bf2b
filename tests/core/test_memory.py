"""Freed memory goes back to the system, but not at every call."""

import platform

import pytest
import torch

from pipeline.core import memory

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")


def tensors(count):
    """Tensors of half a MB, which come from the heap: below the size at which glibc maps blocks one by one."""
    torch.empty(8 << 20)  # whatever maps and frees a large block raises that size
    return [torch.ones(1 << 17) for _ in range(count)]


def test_a_loop_that_frees_what_it_took_does_not_grow():
    trim = memory.trimmer()
    trim()
    before, sizes = memory.resident(), []
    for _ in range(30):
        made = tensors(400)
        kept = made[-1]  # at the end of the heap: the C library alone gives nothing back
        del made
        trim()
        sizes.append(memory.resident() - before)
        del kept
    # 400 tensors are 200 MB.
    assert max(sizes) < 120 << 20, [size >> 20 for size in sizes]


def test_memory_in_use_is_left_alone_and_looked_at_again_only_when_it_grows(monkeypatch):
    trims = []
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: type("C", (), {"malloc_trim": trims.append}))
    trim, held = memory.trimmer(), 1 << 30
    monkeypatch.setattr(memory, "resident", lambda: held)
    for held in (1 << 30, 1 << 30, int(1.1 * (1 << 30)), int(1.3 * (1 << 30)), 1 << 30):  # noqa: B007
        trim()
    assert len(trims) == 2
