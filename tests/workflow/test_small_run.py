"""The whole workflow on a small configuration: run, run again, edit, kill, and each stage by hand."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import zarr
from driver import ROOT, command, edit, environment, planned, small_copy, snakemake
from observe import untimed

from pipeline.formats import tables


def test_the_report_is_there_and_stands_alone(done):
    page = (done / "results/report/embedded/index.html").read_text(encoding="utf-8")
    assert "resnet18" in page and "convcrf" in page and "Costs between neighbours" in page
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", page), "the page must not load anything"


def test_a_second_run_has_nothing_to_do(done):
    status, text = snakemake(done)
    assert status == 0 and "Nothing to be done" in text, text


def test_editing_a_system_reruns_its_fit_and_what_follows_only(done, tmp_path):
    folder = tmp_path / "edited"
    shutil.copytree(done, folder, copy_function=shutil.copy2)
    edit(folder / "config/systems/convcrf.yaml", theta_alpha="21.0")
    jobs = planned(folder)
    assert "fit pack=embedded, net=resnet18, system=convcrf" in jobs
    assert not [job for job in jobs if re.match("pack|train", job)]
    # The unary's results stay; those of the fine-tuned pair rest on the fit of convcrf.
    assert not [job for job in jobs if "net=resnet18, system=unary" in job]
    assert not [job for job in jobs if job.startswith("cache") and "net=resnet18," in job]


def test_editing_a_stage_reruns_what_rests_on_it_only():
    # Rules carry the hash of the sources they rest on, so the closure decides; see tests/core/test_closure.py.
    from pipeline.core.closure import sources

    assert ROOT / "pipeline/systems/convcrf.py" not in sources("pipeline.refine")
    assert ROOT / "pipeline/systems/convcrf.py" in sources("pipeline.systems.convcrf")
    assert ROOT / "pipeline/report.py" not in sources("pipeline.score")


def test_each_stage_by_hand_gives_what_snakemake_gave(done, tmp_path):
    """Run the command that stands in the first line of each log, in a copy without the results of that stage."""
    by_hand = tmp_path / "by hand"
    shutil.copytree(done / "config", by_hand / "config")
    order = ["pack", "train", "cache", "fit", "finetune", "refine", "score", "aggregate", "report"]
    logs = sorted((done / "logs").rglob("*.log"), key=lambda path: path.stat().st_mtime)
    assert {path.relative_to(done / "logs").parts[0] for path in logs} == set(order)
    for log in logs:
        line = log.read_text(encoding="utf-8").splitlines()[0]
        words = shlex.split(line[line.index("python -m") :])
        words = [sys.executable, *words[1 : words.index("--log")]]
        ended = subprocess.run(words, cwd=by_hand, env=environment(), capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
    compare(done / "results", by_hand / "results")


def compare(one, other):
    """Hold two results folders against each other: bytes of files, arrays of stores; times may differ."""
    files = [path.relative_to(one) for path in one.rglob("*") if path.is_file()]
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


def test_a_killed_snakemake_recovers_by_the_two_documented_commands(done, tmp_path):
    folder = small_copy(tmp_path / "killed")
    running = subprocess.Popen(
        command(folder), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    started = folder / "logs/train/embedded/resnet18.log"
    wait_until(lambda: started.exists() and "python" in started.read_text(), 120)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    # Its stage ends by itself, since its parent did.
    wait_until(lambda: not stages_in(folder), 20)
    status, text = snakemake(folder)
    assert status != 0 and "--unlock" in text, text
    assert snakemake(folder, "--unlock")[0] == 0
    status, text = snakemake(folder, "--rerun-incomplete")
    assert status == 0, text
    weights = "results/finetune/embedded/resnet18_convcrf/convcrf.safetensors"
    assert (folder / weights).read_bytes() == (done / weights).read_bytes()


def stages_in(folder):
    """Process numbers of stages that work in `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            if any(word.startswith(b"pipeline.") for word in words) and (process / "cwd").resolve() == folder:
                found.append(process.name)
        except OSError:
            continue
    return found


def wait_until(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
