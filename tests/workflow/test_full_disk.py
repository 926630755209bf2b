"""A disk that fills: one line, exit status 2, nothing half-written, nothing lost."""

import shutil
import subprocess
from pathlib import Path

import pytest
from driver import environment
from test_kills import stage_command


def mountable():
    """Whether a small file system of one's own can be had, in a namespace that ends with the process."""
    tried = ["unshare", "--map-root-user", "--mount", "sh", "-c", "mount -t tmpfs -o size=64k tmpfs /mnt"]
    return shutil.which("unshare") and subprocess.run(tried, capture_output=True).returncode == 0


needs_mount = pytest.mark.skipif(not mountable(), reason="no tmpfs can be mounted here")


@needs_mount
@pytest.mark.parametrize(
    ("stage", "log", "kib"),
    [
        ("pack", "embedded.log", 100),
        ("train", "embedded/resnet18.log", 300),
        ("cache", "embedded/resnet18/0.log", 60),
        ("fit", "embedded/resnet18/convcrf.log", 4),
        ("refine", "embedded/resnet18/convcrf/0.log", 40),
        ("score", "embedded/resnet18/convcrf.log", 100),
        ("finetune", "embedded/resnet18_convcrf/convcrf.log", 300),
    ],
)
def test_full(done, tmp_path, stage, log, kib):
    words = stage_command(done, stage, log)
    small = tmp_path / "small"
    small.mkdir()
    for option in ("--output", "--output-system", "--history"):
        if option in words:
            at = words.index(option) + 1
            words[at] = str(small / Path(words[at]).name)
    script = f'mount -t tmpfs -o size={kib}k tmpfs "$1" && shift && "$@"; status=$?; ls -A "{small}" >&2; exit $status'
    full = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", str(small), *words],
        cwd=done, env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert full.returncode == 2, full.stderr
    errors = [line for line in full.stderr.splitlines() if "no space left" in line]
    assert len(errors) == 1 and errors[0].startswith(f"pipeline.{stage}: ") and "make room" in errors[0], full.stderr
    assert "Traceback" not in full.stderr
    left = full.stderr.splitlines()[full.stderr.splitlines().index(errors[0]) + 1 :]
    # What a killed stage would go on from may stay, hidden; no output, whole or in part.
    assert all(name.startswith(".") for name in left), left
