"""The whole workflow on a small configuration: run, run again, edit, kill, and each stage by hand."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys

from chaos import same_results, stages_in, wait_until
from driver import ROOT, command, edit, environment, planned, small_copy, snakemake


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
