"""Freed memory goes back to the system, but not at every call."""

import platform

import pytest
import torch

from pipeline.core import memory

needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")


def simulated(monkeypatch, sizes):
    """Run a trimmer on a process that holds `sizes(calls since it gave back)` MB; return MB held, and trims."""
    state, held, trims = {"calls": 0}, [], []

    def trim():
        trims.append(len(held))
        state["calls"] = 0

    monkeypatch.setattr(memory, "_trim", trim)
    monkeypatch.setattr(memory, "resident", lambda: held[-1] << 20)
    call = memory.trimmer()
    for _ in range(1000):
        state["calls"] += 1
        held.append(sizes(state["calls"]))
        call()
    return held, trims


def test_a_process_that_grows_at_every_image_is_kept_in_bounds(monkeypatch):
    held, trims = simulated(monkeypatch, lambda calls: 500 + 6 * calls)
    assert max(held) < 600 and 30 < len(trims) < 100


def test_what_every_step_takes_again_is_left_alone(monkeypatch):
    _, trims = simulated(monkeypatch, lambda calls: 900)
    assert not trims
    # The first step was a small one.
    first = iter([300])
    _, trims = simulated(monkeypatch, lambda calls: next(first, 900))
    assert len(trims) == 1


@needs_glibc
def test_freed_memory_is_given_back():
    made = [torch.ones(1 << 17) for _ in range(400)]  # half a MB each, so from the heap; see `pipeline/__init__.py`
    kept = made[-1]  # at the end of the heap: the C library alone gives nothing back
    del made
    before = memory.resident()
    memory._trim()
    assert memory.resident() < before - (150 << 20) and kept[0] == 1


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
