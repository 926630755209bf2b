"""Runs of the workflow that are killed on their way, and whether their results are those of an undisturbed one."""

import contextlib
import re
import signal
import subprocess
import time
from pathlib import Path

import h5py
import numpy as np
import psutil
import zarr
from driver import command, environment, snakemake
from observe import untimed

from pipeline.formats import tables

VICTIMS = ("Snakemake", "a stage", "all at once")


def run_with_kills(folder, moments, rng, *options):
    """Run the workflow in `folder`, killing at each of some moments (seconds after a start), then to its end.

    Returns
    -------
    list of dict
        Of each kill that met a process: victim, the stages that were running, seconds. Victims are drawn from VICTIMS;
        when no stage runs, Snakemake is it.
    """
    told = []
    for moment in moments:
        running = subprocess.Popen(
            command(folder, "--rerun-incomplete", *options),
            env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        victim = VICTIMS[rng.integers(len(VICTIMS))]
        try:
            running.wait(moment)
        except subprocess.TimeoutExpired:
            stages = stages_in(folder)
            if not stages:
                victim = "Snakemake"
            chosen = [running.pid] if victim == "Snakemake" else [int(rng.choice(sorted(stages)))]
            for process in [running.pid, *stages] if victim == "all at once" else chosen:
                kill(process)
            told.append({"victim": victim, "running": sorted(stages.values()), "second": round(moment, 2)})
        running.wait()
        # Stages whose Snakemake is gone end by themselves.
        wait_until(lambda: not stages_in(folder), 20)
        assert snakemake(folder, "--unlock")[0] == 0
    status, text = snakemake(folder, "--rerun-incomplete", *options)
    assert status == 0, text
    return told


def kill(process):
    """Send SIGKILL to a process, perhaps one that has just ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(process).send_signal(signal.SIGKILL)


def same_results(one, other):
    """Hold two results folders against each other: bytes of files, arrays of stores; times may differ."""
    files, again = ({path.relative_to(root) for path in root.rglob("*") if path.is_file()} for root in (one, other))
    differing = {str(path) for path in again ^ files if not re.search(r"\.snakemake|\.time\.tsv$", path.name)}
    assert not differing, f"left over or missing: {sorted(differing)}"
    compared = set()
    for path in files:
        stage = path.parts[0]
        if ".snakemake" in path.name or path.name.endswith(".time.tsv") or stage == "aggregate" or stage == "report":
            continue
        if stage in ("cache", "refine"):
            store = next(parent for parent in path.parents if parent.suffix == ".zarr")
            if store not in compared:
                same_arrays(zarr.open_group(one / store, mode="r"), zarr.open_group(other / store, mode="r"))
            compared.add(store)
        elif stage == "score":
            with h5py.File(one / path) as left, h5py.File(other / path) as right:
                for key in ("all", "bands", "exact"):
                    np.testing.assert_array_equal(left[key][...], right[key][...])
            compared.add(path)
        elif path.suffix == ".jsonl":
            assert untimed(tables.read_history(one / path)) == untimed(tables.read_history(other / path))
            compared.add(path)
        else:
            assert (one / path).read_bytes() == (other / path).read_bytes(), path
            compared.add(path)
    # one pack, 2 + 3 files of trainings (a system among them), 8 fitted systems and two searches' journals, 2 caches,
    # 9 labels, 9 scores
    assert len(compared) == 36, sorted(map(str, compared))
    rows, again = (tables.read(root / "aggregate/embedded.tsv")[0] for root in (one, other))
    for row in (*rows, *again):
        del row["seconds_per_image"]
    assert len(rows) == 9 and rows == again


def same_arrays(left, right):
    names = left.attrs["names"]
    assert names == right.attrs["names"] and left.attrs["digest"] == right.attrs["digest"]
    for name in names:
        np.testing.assert_array_equal(left[name][...], right[name][...])


def stages_in(folder):
    """Return the stages that work in `folder`, by the numbers of their processes."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_text(encoding="utf-8", errors="replace").split("\0")
            stage = next((word for word in words if word.startswith("pipeline.")), None)
            if stage and (process / "cwd").resolve() == folder:
                found[int(process.name)] = stage.removeprefix("pipeline.")
        except OSError:
            continue
    return found


def wait_until(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
