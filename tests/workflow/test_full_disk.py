"""A disk that fills, and one that cannot be written: one line, exit status 2, nothing half-written, nothing lost."""

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
    error, left = refused(done, tmp_path / "small", f"size={kib}k", stage, log)
    assert "no space left" in error and "make room" in error
    # What a killed stage would go on from may stay, hidden; no output, whole or in part.
    assert all(name.startswith(".") for name in left), left


@needs_mount
@pytest.mark.parametrize(
    ("stage", "log"),
    [
        ("pack", "embedded.log"),
        ("train", "embedded/resnet18.log"),
        ("cache", "embedded/resnet18/0.log"),
        ("fit", "embedded/resnet18/convcrf.log"),
        ("fit", "embedded/resnet18/hybrid.log"),
        ("refine", "embedded/resnet18/convcrf/0.log"),
        ("finetune", "embedded/resnet18_convcrf/convcrf.log"),
        ("score", "embedded/resnet18/convcrf.log"),
        ("aggregate", "embedded.log"),
        ("report", "embedded.log"),
    ],
)
def test_read_only(done, tmp_path, stage, log):
    """Modes of a folder would not do: they do not hold for root."""
    error, left = refused(done, tmp_path / "small", "ro", stage, log)
    assert "a read-only file system" in error
    assert left == []


def refused(done, small, options, stage, log):
    """Run a stage that writes to a file system of these options; return the one line it says and what is left."""
    words = stage_command(done, stage, log)
    small.mkdir()
    for option in ("--output", "--output-system", "--history", "--journal"):
        if option in words:
            at = words.index(option) + 1
            words[at] = str(small / Path(words[at]).name)
    script = f'mount -t tmpfs -o {options} tmpfs "$1" && shift && "$@"; status=$?; ls -A "{small}" >&2; exit $status'
    ended = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", str(small), *words],
        cwd=done, env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 2 and "Traceback" not in ended.stderr, ended.stderr
    lines = ended.stderr.splitlines()
    errors = [number for number, line in enumerate(lines) if line.startswith(f"pipeline.{stage}: ")]
    assert len(errors) == 1, ended.stderr
    return lines[errors[0]], lines[errors[0] + 1 :]
