"""The small run on a real Slurm: a job is cancelled, the run goes on, and ends as a local one does."""

import os
import subprocess
import sys
import time

import cluster
import pytest
import yaml
from driver import ROOT, edit, environment, small_copy, snakemake
from observe import same_store

from pipeline.formats.labels import Labels
from pipeline.formats.unaries import Cache

pytestmark = pytest.mark.skipif(
    os.environ.get("EDGEWISE_SLURM") != "1",
    reason="starts a Slurm and writes /etc/slurm: set EDGEWISE_SLURM=1 on a machine where it may, as .ci/run does",
)
TARGET = "results/score/embedded/resnet18/convcrf.h5"  # of two shards: eight jobs
HERE = {
    "slurm-status-command": "squeue",
    "slurm-init-seconds-before-status-checks": 2,
    "latency-wait": 15,
    "retries": 0,
}


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    if lacking := cluster.missing():
        pytest.skip(lacking)
    with cluster.running(tmp_path_factory.mktemp("slurm")):
        yield


@pytest.fixture
def profile(tmp_path):
    """The profile as it is shipped, but for a cluster without accounts, and in haste."""
    shipped = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text(encoding="utf-8"))
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile/config.yaml").write_text(yaml.safe_dump(shipped | HERE), encoding="utf-8")
    return tmp_path / "profile"


def small(folder):
    made = small_copy(folder)
    edit(made / "config/config.yaml", shards=2)
    return made


def jobs(state):
    """Return number and comment, which names the rule, of all jobs in a state."""
    words = ["squeue", "--noheader", f"--states={state}", "--format=%i %k"]
    return [
        line.split(maxsplit=1) for line in subprocess.run(words, capture_output=True, text=True).stdout.splitlines()
    ]


def test_a_run_with_a_cancelled_job_ends_as_a_local_one(slurm, profile, tmp_path):
    here, there = small(tmp_path / "here"), small(tmp_path / "there")
    words = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(there)]
    words += ["--workflow-profile", str(profile), TARGET]
    first = subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    end = time.monotonic() + 300
    while not (training := [number for number, rule in jobs("RUNNING") if "train" in rule]):
        assert first.poll() is None and time.monotonic() < end, first.communicate()[0]
        time.sleep(0.2)
    subprocess.run(["scancel", *training], check=True)
    told, _ = first.communicate(timeout=300)
    assert first.returncode == 1 and "Error in rule train" in told, told
    assert not (there / "results/train/embedded/resnet18.safetensors").exists()

    again = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=600)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "rule pack" not in again.stdout + again.stderr, "what was done is not done again"
    assert {rule.split("_")[1] for _, rule in jobs("COMPLETED")} >= {"pack", "train", "cache", "fit", "refine", "score"}

    status, text = snakemake(here, TARGET)
    assert status == 0, text
    weights = "results/train/embedded/resnet18.safetensors"
    assert (here / weights).read_bytes() == (there / weights).read_bytes()
    for folder, opened in (("cache/embedded/resnet18", Cache), ("refine/embedded/resnet18/convcrf", Labels)):
        one, other = (
            opened([home / "results" / folder / f"{shard}.zarr" for shard in (0, 1)]) for home in (here, there)
        )
        assert same_store(one, other)
