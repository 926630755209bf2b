"""Freed memory goes back to the system, but not at every call."""

import platform

import pytest
import torch

from pipeline.core import memory

needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")


def tensors(count):
    """Tensors of half a MB, which come from the heap: blocks of up to 32 MB do, see `pipeline/__init__.py`."""
    return [torch.ones(1 << 17) for _ in range(count)]


@needs_glibc
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


@needs_glibc
def test_memory_in_use_is_left_alone_and_looked_at_again_only_when_it_grows(monkeypatch):
    trims = []
    monkeypatch.setattr(memory, "_trim", lambda: trims.append(1))
    trim, held = memory.trimmer(), 1 << 30
    monkeypatch.setattr(memory, "resident", lambda: held)
    for held in (1 << 30, 1 << 30, int(1.1 * (1 << 30)), int(1.3 * (1 << 30)), 1 << 30):  # noqa: B007
        trim()
    assert len(trims) == 2


GIB = 1 << 30


def machine(root, groups, **files):
    """Write what the kernel tells: 8 GiB available, and control groups with their files."""
    told = {"proc/meminfo": f"MemTotal: {16 << 20} kB\nMemAvailable: {8 << 20} kB\n", "proc/self/cgroup": groups}
    for path, text in (told | files).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


@pytest.mark.parametrize("nested", ["", "/slurm/job_7/step_0"])
def test_what_a_job_was_granted_bounds_what_is_available(tmp_path, nested):
    two = f"sys/fs/cgroup{nested}/memory"
    group = {
        f"{two}.max": f"{4 * GIB}",
        f"{two}.current": f"{3 * GIB}",
        f"{two}.stat": f"anon 1\ninactive_file {GIB}\n",
    }
    machine(tmp_path, f"1:cpu:/\n0::{nested or '/'}\n", **group)
    # Of the 3 GiB taken one is of files, and would be given back.
    assert memory.available(tmp_path) == 2 * GIB
    (tmp_path / f"{two}.max").write_text("max\n")
    assert memory.available(tmp_path) == 8 * GIB


def test_control_groups_of_the_first_version(tmp_path):
    one = "sys/fs/cgroup/memory/job/memory"
    group = {f"{one}.limit_in_bytes": f"{2 * GIB}", f"{one}.usage_in_bytes": f"{GIB}"}
    machine(tmp_path, "4:cpu,memory:/job/step\n0::/\n", **group, **{f"{one}.stat": "total_inactive_file 0\n"})
    assert memory.available(tmp_path) == GIB


def test_what_is_available_may_not_be_told(tmp_path):
    assert memory.available(tmp_path) is None


@needs_glibc
def test_the_peak_of_a_call_and_of_all():
    large = torch.ones(30 << 20)
    del large
    before = memory.highest()
    grown = memory.peak(lambda: torch.ones(10 << 20))
    assert 38 << 20 <= grown <= 48 << 20
    assert memory.highest() >= before, "the mark that was forgotten counts"
