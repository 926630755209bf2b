"""The whole workflow on a small configuration: run, run again, edit, kill, and each stage by hand."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys

import torch
from driver import ROOT, command, edit, environment, planned, small_copy, snakemake
from survival import same_results, stages_in, wait_until

from pipeline.formats import fitted, journal, tables, weights


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
    same_results(done / "results", by_hand / "results")


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


def test_a_search_in_parts_finds_the_same(done, tmp_path):
    folder, system = tmp_path / "parts", "results/fit/embedded/resnet18/hybrid.npz"
    shutil.copytree(done, folder, copy_function=shutil.copy2)
    edit(folder / "config/config.yaml", shards=2)
    shutil.rmtree(folder / "results/fit")
    shutil.rmtree(folder / "results/cache")
    assert sorted(job.split()[0] for job in planned(folder, system)) == [
        "cache",
        "cache",
        "fit",
        "fit_part",
        "fit_part",
    ]
    status, text = snakemake(folder, system)
    assert status == 0, text
    told = (folder / "logs/fit/embedded/resnet18/hybrid.log").read_text(encoding="utf-8")
    assert re.search(r"(\d+) of \1 tasks are in the journal", told), told
    parts = (folder / "results/fit/embedded/resnet18/hybrid.search").glob("*-of-2.journal")
    one, other = ({key for key, _ in journal.read(path)} for path in parts)
    assert one and other and not one & other
    one, other = (fitted.read(root / system) for root in (done, folder))
    assert one.curve == other.curve
    assert {name: float(value) for name, value in one.state.items()} == {
        name: float(value) for name, value in other.state.items()
    }


def test_two_processes_train_a_network_together(done, tmp_path):
    folder, target = tmp_path / "together", "results/train/embedded/resnet18.safetensors"
    shutil.copytree(done, folder, copy_function=shutil.copy2)
    edit(folder / "config/config.yaml", processes=2)
    status, text = snakemake(folder, target)
    assert status == 0, text
    (alone, once), (together, twice) = (weights.read(root / target) for root in (done, folder))
    assert (once["processes"], twice["processes"]) == (1, 2)
    assert alone.keys() == together.keys() and all(torch.isfinite(tensor).all() for tensor in together.values())
    epochs = [tables.read_history((root / target).with_suffix(".jsonl")) for root in (done, folder)]
    # Batch norm sees half a batch at a time, so the two are near each other and not the same.
    assert [epoch["steps"] for epoch in epochs[0]] == [epoch["steps"] for epoch in epochs[1]]
    assert abs(epochs[0][-1]["loss"] - epochs[1][-1]["loss"]) < 0.2 * epochs[0][-1]["loss"]
    log = (folder / "logs/train/embedded/resnet18.log").read_text(encoding="utf-8")
    assert log.count("done in") == 1


def test_who_prepares_images_changes_no_result_and_threads_do(done, tmp_path):
    folder = tmp_path / "more"
    shutil.copytree(done, folder, copy_function=shutil.copy2)
    edit(folder / "config/config.yaml", workers="3", halo="32")
    status, text = snakemake(folder, "--dry-run")
    assert status == 0 and "Nothing to be done" in text, text
    edit(folder / "config/config.yaml", system_threads="2")
    stages = {job.split()[0] for job in planned(folder)}
    assert {"fit", "refine", "score", "aggregate", "report"} <= stages and not stages & {"pack", "train"}
    # A search keeps as many cores busy as it has processes.
    status, text = snakemake(folder, "--dry-run", "--cores", "4", "results/fit/embedded/resnet18/hybrid.npz")
    assert status == 0 and re.search(r"rule fit:.*?threads: 3", text, re.S), text
