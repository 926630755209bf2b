"""What a training leaves: a checkpoint that only the same work goes on from, then weights and history."""

import json
import logging
import time

import pytest
import torch

from pipeline.formats import tables, trainings, weights
from pipeline.formats.trainings import Checkpoint

STAMP = {"stage": "train", "commit": "1", "settings": {"crop": [8, 8]}, "class_names": ["a", "b"]}


def state():
    moments = {0: {"step": torch.tensor(3.0), "exp_avg": torch.arange(64.0)}}
    return {
        "module": {"weight": torch.arange(64.0), "count": torch.tensor(3)},
        "optimiser": {"state": moments, "param_groups": [{"lr": 1e-3, "params": [0], "betas": (0.9, 0.999)}]},
        "done": 3,
        "epoch_loss": 0.25,
        "history": [{"epoch": 1, "heldout_miou": None}],
    }


def same(one, other):
    return str(one) == str(other) and torch.equal(one["module"]["weight"], other["module"]["weight"])


@pytest.fixture
def checkpoint(tmp_path):
    written = Checkpoint(tmp_path / "new" / "net.safetensors", STAMP)
    written.write(state())
    return written


def test_round_trip(checkpoint):
    assert same(checkpoint.read(), state())
    assert [path.name for path in checkpoint.path.parent.iterdir()] == [".net.safetensors.checkpoint"]


def test_none_yet(tmp_path):
    assert Checkpoint(tmp_path / "net", STAMP).read() is None


def test_a_checkpoint_is_replaced_then_removed(checkpoint):
    checkpoint.write(state() | {"done": 4})
    assert checkpoint.read()["done"] == 4
    checkpoint.remove()
    assert checkpoint.read() is None
    checkpoint.remove()
    assert list(checkpoint.path.parent.iterdir()) == []


def test_a_checkpoint_of_other_work_is_not_used(checkpoint):
    output = checkpoint.path.parent / "net.safetensors"
    assert Checkpoint(output, STAMP | {"settings": {"crop": [8, 9]}}).read() is None
    assert Checkpoint(output, STAMP | {"commit": "2"}).read() is not None


def test_a_truncated_checkpoint_is_not_used(checkpoint):
    content = checkpoint.path.read_bytes()
    for length in [*range(64), *range(64, len(content), 97), len(content) - 1]:
        checkpoint.path.write_bytes(content[:length])
        assert checkpoint.read() is None


def test_a_damaged_checkpoint_is_named_and_not_used(checkpoint, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("pipeline"), "propagate", True)
    content = checkpoint.path.read_bytes()
    for place in range(0, len(content), 29):
        damaged = bytearray(content)
        damaged[place] ^= 0x01
        checkpoint.path.write_bytes(damaged)
        caplog.clear()
        assert checkpoint.read() is None
        assert f"{checkpoint.path}: damaged, its checksum is another; the training starts anew" in caplog.text


@pytest.mark.parametrize("content", [[1, 2], {"state": 1}, torch.zeros(3)], ids=["list", "no stamp", "tensor"])
def test_a_foreign_file_is_not_used(checkpoint, content):
    torch.save(content, checkpoint.path)
    assert checkpoint.read() is None


def test_due_when_the_last_one_is_old(checkpoint, monkeypatch):
    assert not checkpoint.due(False)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + trainings.CHECKPOINT_EVERY + 1)
    assert checkpoint.due(False)
    checkpoint.write(state())
    assert not checkpoint.due(False)


@pytest.mark.parametrize(("took", "after", "due"), [(0.4, 0.5, True), (2.0, 19.0, False), (2.0, 21.0, True)])
def test_ends_of_epochs_are_kept_if_writing_is_a_tenth_of_the_time(checkpoint, monkeypatch, took, after, due):
    clock = [time.monotonic()]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    save = torch.save

    def slow(*content):
        save(*content)
        clock[0] += took

    monkeypatch.setattr(torch, "save", slow)
    assert checkpoint.due(True)  # the first
    checkpoint.write(state())
    clock[0] += after
    assert checkpoint.due(True) == due
    assert not checkpoint.due(False)


def test_weights_and_history(tmp_path):
    output, told = tmp_path / "net.safetensors", tmp_path / "net.jsonl"
    history = [{"epoch": 1, "loss": 0.5, "heldout_miou": None}, {"epoch": 2, "loss": 0.25, "heldout_miou": 31.5}]
    trainings.write(output, told, {"weight": torch.arange(3.0)}, history, STAMP)
    tensors, stamp = weights.read(output)
    assert torch.equal(tensors["weight"], torch.arange(3.0))
    assert stamp == STAMP
    assert tables.read_history(told) == history
    assert [json.loads(line) for line in told.read_text().splitlines()] == history
