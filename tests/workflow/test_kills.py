"""A stage is killed on its way; the same command again ends with the numbers of an undisturbed run."""

import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
import zarr
from driver import edit, environment
from observe import untimed

from pipeline.formats.tables import read_history


def stage_command(folder, stage, log):
    """The command of one stage as its log in `folder` tells it."""
    line = (folder / "logs" / stage / log).read_text(encoding="utf-8").splitlines()[0]
    words = shlex.split(line[line.index("python -m") :])
    return [sys.executable, *words[1 : words.index("--log")]]


def run(words, folder):
    ended = subprocess.run(words, cwd=folder, env=environment(), capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stderr


def kill_within(words, folder, progress, low=0.2, high=0.8):
    """Start a stage, kill it with SIGKILL once `progress` has passed `low`; assert that it was not past `high`."""
    running = subprocess.Popen(words, cwd=folder, env=environment(), stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while (reached := progress()) < low:
        assert running.poll() is None and time.monotonic() < end, f"ended before it could be killed, at {reached}"
        time.sleep(0.002)
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    reached = progress()
    assert low <= reached <= high, reached


@pytest.fixture
def copy(done, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(done, folder)
    return folder


def test_train(copy):
    edit(copy / "config/nets/resnet18.yaml", epochs="24")
    words = stage_command(copy, "train", "embedded/resnet18.log")
    weights = copy / "results/train/embedded/resnet18.safetensors"
    checkpoint = weights.parent / f".{weights.name}.checkpoint"
    run(words, copy)
    expected, history = weights.read_bytes(), read_history(weights.with_suffix(".jsonl"))
    weights.unlink()

    def progress():
        if not checkpoint.exists():
            return 0.0
        return torch.load(checkpoint, weights_only=True)["state"]["done"] / (24 * 3)

    kill_within(words, copy, progress)
    assert not weights.exists()
    told = run(words, copy)
    assert re.search(r"goes on at step \d+ of 72", told), told
    assert weights.read_bytes() == expected
    assert untimed(read_history(weights.with_suffix(".jsonl"))) == untimed(history)
    assert not checkpoint.exists()


@pytest.mark.parametrize(
    ("stage", "log", "store", "images"),
    [
        ("cache", "embedded/resnet18/0.log", "cache/embedded/resnet18/0.zarr", 20),
        ("refine", "embedded/resnet18/convcrf/0.log", "refine/embedded/resnet18/convcrf/0.zarr", 12),
    ],
)
def test_stores(done, copy, stage, log, store, images):
    words = stage_command(copy, stage, log)
    store = copy / "results" / store
    beside = store.parent / f".{store.name}.partial"
    shutil.rmtree(store)

    def progress():
        return len(list(beside.glob("*/c"))) / images

    kill_within(words, copy, progress)
    assert not store.exists() and beside.is_dir()
    told = run(words, copy)
    assert re.search(rf"[1-9]\d* of {images} images are there already", told), told
    expected = zarr.open_group(done / "results" / store.relative_to(copy / "results"), mode="r")
    found = zarr.open_group(store, mode="r")
    assert found.attrs["digest"] == expected.attrs["digest"]
    for name in expected.attrs["names"]:
        assert (found[name][...] == expected[name][...]).all()
    assert not beside.exists()
