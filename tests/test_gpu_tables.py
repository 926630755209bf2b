"""The page about GPUs is what the measurements give; and the scripts that measure, where they need no GPU."""

import subprocess
import sys
from argparse import Namespace

import pytest
import torch

from pipeline.core.settings import ROOT
from pipeline.kernels import source

CPU = torch.device("cpu")
SIZE = "24x32x3"


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")


def test_the_page_is_what_the_measurements_give():
    command = [sys.executable, ROOT / "benchmarks/gpu_tables.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_kernel_has_its_needs():
    import gpu_needs

    files = [str(path.relative_to(source.PACKAGE)) for path in source.PACKAGE.rglob("*.cu")]
    assert set(gpu_needs.NEEDS) == {(file, kernel) for file in files for kernel in gpu_needs.parameters(file)}


def test_every_kernel_is_launched_by_some_call():
    import gpu_needs
    import gpu_roofline

    rows = gpu_roofline.needs(SIZE)
    assert {(row["file"], row["kernel"]) for row in rows} == set(gpu_needs.NEEDS)
    assert all(row["needs"]["bytes"] > 0 for row in rows)


@pytest.mark.parametrize(("size", "radius"), [(1, 0), (1, 3), (5, 2), (6, 5), (4, 9)])
def test_pairs_within_a_window_are_counted(size, radius):
    import gpu_needs

    pairs = sum(abs(one - other) <= radius for one in range(size) for other in range(size))
    assert gpu_needs.inside(size, radius) == pairs


def test_an_array_that_is_read_and_written_counts_twice_and_one_that_is_given_twice_once():
    import gpu_needs

    unary, message, weights, out = torch.zeros(1, 3, 8), torch.zeros(1, 3, 8), torch.zeros(1, 3), torch.zeros(1, 3, 8)
    constants = {"CLASSES": 3, "MESSAGES": 1, "RESULT": 0}
    arguments = unary, message, message, message, message, weights, out, 8
    launch = gpu_needs.launched("mean_field_update/kernel.cu", "mean_field_update", arguments, constants)
    assert gpu_needs.needed(launch) == {"bytes": 4 * (24 + 24 + 3 + 24), "float32": 24 * 6, "special": 24}
    edges, minima, labels = torch.zeros(1, 1, 8), torch.zeros(1, 8, dtype=torch.float64), torch.zeros(0).byte()
    arguments = unary, unary, edges, out, out, unary, labels, minima, 2, 4, False
    constants = {"CLASSES": 3, "DOWN": False, "WALKERS": 32}
    launch = gpu_needs.launched("potts_chains/kernel.cu", "hand_over", arguments, constants)
    assert gpu_needs.needed(launch)["bytes"] == 4 * (24 + 8 + 24) + 8 * 8


def test_shares_and_goals_come_from_times_and_ceilings():
    import gpu_roofline
    import gpu_tables

    rows = {"about": {"ceilings": {"bytes": 1e9, "float32": 1e15, "tf32": None, "special": None}}}
    rows["about"] |= {
        "date": "2000-01-01",
        "commit": "abc",
        "versions": {"torch": "2", "numpy": "2"},
        "device": {"name": "X"},
    }
    kernel = {"file": "f.cu", "kernel": "blur", "launches": 2, "needs": {"bytes": 10**8, "float32": 10**6}, "ms": 400.0}
    rows["9x9x2, call"] = {"kernels": [kernel]}
    rows["9x9x2, other"] = {"error": "RuntimeError: broken"}
    told = gpu_roofline.assembled(rows)
    assert (told["rows"][0]["limit"], told["rows"][0]["share"]) == ("bytes", 0.25)
    assert [goal["met"] for goal in told["goals"]] == [False, None]
    page = gpu_tables.roofline(told)
    assert "| call | `blur` | 2 | 100 | 400 | 0.25 | memory | 100 | 25 % |" in page
    assert "| other | RuntimeError: broken |" in page and "**missed**" in page


@pytest.fixture
def args():
    return Namespace(size=[SIZE], difnet=65, convcrf=None, images=None, seconds=0.01)


def test_rows_are_measured_kept_and_told(args, tmp_path, capsys):
    import gpu_headline
    import gpu_rows
    import gpu_tables

    every = gpu_headline.rows(args, CPU)
    names = ["about", f"{SIZE}, convcrf 5, blur 4", f"{SIZE}, reference convcrf 5, blur 4"]
    chosen = {name: every[name] for name in (*names, f"kernels of {names[1]}")}
    assert gpu_rows.measure(chosen, tmp_path, minutes=1)
    found = {name: gpu_rows.read(tmp_path, name) for name in chosen}
    ours = found[names[1]]
    assert ours["checks"]["far_from_float64"] < 1e-5 and ours["checks"]["labels_as_cpu"] == 1
    assert ours["calls"] >= 3 and ours["host_ms"] <= ours["alone_ms"] and ours["graph"] == "no GPU"
    capsys.readouterr()
    assert gpu_rows.measure(chosen, tmp_path, minutes=0) and capsys.readouterr().out == ""
    told = gpu_headline.assembled(found)
    assert [row["name"] for row in told["rows"]] == names[1:]
    page = gpu_tables.headline(told)
    assert "| convcrf 5, blur 4 | " in page and "not run: no checkout of the ConvCRF authors' repository" in page
    assert all(goal["met"] is None for goal in told["goals"])


def test_a_row_that_fails_is_kept_and_one_that_ended_the_process_is_tried_again(tmp_path, capsys):
    import gpu_rows

    def broken():
        raise ValueError("no such thing")

    assert not gpu_rows.measure({"late": dict}, tmp_path, minutes=-1)
    gpu_rows._write(gpu_rows.path(tmp_path, "late"), {"tries": 1, "error": "the process ended"})
    assert gpu_rows.measure({"bad": broken, "late": dict}, tmp_path, minutes=1)
    assert gpu_rows.read(tmp_path, "bad")["error"] == "ValueError: no such thing"
    assert "error" not in gpu_rows.read(tmp_path, "late")
    gpu_rows._write(gpu_rows.path(tmp_path, "late"), {"tries": 2, "error": "the process ended"})
    assert gpu_rows.measure({"late": broken}, tmp_path, minutes=1)
    assert gpu_rows.read(tmp_path, "late")["error"] == "the process ended"


def test_goals_are_met_by_figures_of_their_rows():
    import gpu_goals

    fast = {"name": gpu_goals.FAST, "back_to_back_ms": 0.4, "alone_ms": 1.5, "waits": ["pipeline/x.py:1: waited"]}
    rows = [
        fast | {"kernels_ms": 0.38},
        {"name": gpu_goals.FAST.replace("conv", "reference conv"), "back_to_back_ms": 10},
    ]
    told = {goal["goal"]: goal for goal in gpu_goals.judged(gpu_goals.HEADLINE, rows)}
    assert [goal["met"] for goal in told.values()][:4] == [True, False, True, None]
    assert told["Refinements in which the host waits for the GPU"]["of"] == gpu_goals.FAST
    assert told["Kernels' share of the time back to back, the least"]["met"] is True
