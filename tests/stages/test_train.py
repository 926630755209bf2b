"""`train` from its command line: the same bytes twice, kills, two processes as one, refusals."""

import os
import socket
import subprocess
import sys
import time

import psutil
import pytest
import torch
from observe import net_file, said, untimed
from tiny import LOOP, NETWORK, TRAINED, TUNED

from pipeline.algorithms import backprop
from pipeline.core import files
from pipeline.formats import tables, weights

ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}


def together(argv):
    """The command line of two processes that train together."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port)]
    return [sys.executable, *launch, "-m", "--", "pipeline.train", *argv]


def train(run, folder, **options):
    output, history = folder / "w.safetensors", folder / "w.jsonl"
    return run("train", output=output, history=history, **options), output, history


def test_train_gives_the_same_bytes_twice(tiny_run, tmp_path):
    status, output, history = train(tiny_run, tmp_path)
    assert status == 0
    assert output.read_bytes() == tiny_run.weights.read_bytes()
    assert untimed(tables.read_history(history)) == untimed(tables.read_history(tiny_run.history))


def test_train_depends_on_its_seed(tiny_run, tmp_path):
    _, output, _ = train(tiny_run, tmp_path, seed=1)
    assert not torch.equal(*(weights.read(path)[0]["classifier.4.weight"] for path in (output, tiny_run.weights)))


@pytest.mark.parametrize("step", [2, 3])
def test_train_goes_on_where_it_was_killed(tiny_run, tmp_path, monkeypatch, capsys, step):
    whole = backprop.Training.step

    def killed(self, images, truth):
        if self.done == step:
            raise KeyboardInterrupt
        return whole(self, images, truth)

    monkeypatch.setattr(backprop.Training, "step", killed)
    status, output, _ = train(tiny_run, tmp_path)
    assert status == 130
    assert not output.exists()
    monkeypatch.setattr(backprop.Training, "step", whole)
    status, output, history = train(tiny_run, tmp_path)
    assert status == 0
    # The checkpoint is that of the end of the first epoch, two steps.
    assert "goes on at step 2 of 4" in capsys.readouterr().err
    assert output.read_bytes() == tiny_run.weights.read_bytes()
    assert untimed(tables.read_history(history)) == untimed(tables.read_history(tiny_run.history))
    assert {path.name for path in tmp_path.iterdir()} == {output.name, history.name}


def test_train_starts_from_given_weights(tiny_run, tmp_path):
    given = tmp_path / "given.safetensors"
    weights.write(given, weights.read(tiny_run.weights)[0], {})
    net = TRAINED | {"weights": str(given), "train": LOOP | {"learning_rate": 0, "normalisation": "frozen"}}
    path = tiny_run.yaml("from_weights", net)
    status, output, _ = train(tiny_run, tmp_path, net=path)
    path.unlink()
    assert status == 0
    tensors, expected = weights.read(output)[0], weights.read(given)[0]
    kept = [name for name in tensors if not name.endswith("num_batches_tracked")]
    assert all(torch.equal(tensors[name], expected[name]) for name in kept)


def test_train_starts_from_another_network(tiny_run, tmp_path):
    still = TRAINED | {"init_from": "tiny", "train": LOOP | {"learning_rate": 0, "normalisation": "frozen"}}
    del still["weights"]
    path = net_file(tmp_path, tiny_run, still)
    status, output, _ = train(tiny_run, tmp_path, net=path, start=tiny_run.weights)
    assert status == 0
    (tensors, stamp), (expected, _) = weights.read(output), weights.read(tiny_run.weights)
    kept = [name for name in tensors if not name.endswith("num_batches_tracked")]
    assert all(torch.equal(tensors[name], expected[name]) for name in kept)
    assert stamp["inputs"]["weights"] == files.digest(tiny_run.weights)


def test_train_is_told_where_to_start_if_and_only_if_it_starts_from_a_network(tiny_run, tmp_path, capsys):
    from_net = TRAINED | {"init_from": "tiny"}
    del from_net["weights"]
    assert train(tiny_run, tmp_path, net=net_file(tmp_path, tiny_run, from_net))[0] == 2
    assert "key 'init_from': found 'tiny', expected its weights; give --start FILE" in said(capsys)
    assert train(tiny_run, tmp_path, start=tiny_run.weights)[0] == 2
    assert "expected none; leave it out, or set init_from in" in said(capsys)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (TRAINED | {"init_from": "tiny"}, "key 'weights': found weights and init_from, expected one of weights, init"),
        (TRAINED | {"train": LOOP | {"learns": ["head"]}}, "key 'learns': found 'head', expected the beginning of a"),
        (TRAINED | {"train": LOOP | {"split": "traim"}}, "found no split 'traim', expected one of heldout, train, val"),
        (TRAINED | {"train": LOOP | {"batch": 9}}, "batch: found 9, expected at most the 8 images of the split"),
        (TRAINED | {"weights": "nowhere.pth"}, "nowhere.pth: found no such file"),
        (TUNED, "key 'source': found 'finetune', expected 'train'"),
        (TRAINED | {"network": NETWORK | {"depht": 18}}, "key 'network.depht': found an unknown key"),
    ],
    ids=["two starts", "learns", "split", "batch", "weights", "source", "network"],
)
def test_train_refuses(tiny_run, tmp_path, capsys, values, expected):
    path = net_file(tmp_path, tiny_run, values)
    status, output, _ = train(tiny_run, tmp_path, net=path)
    assert status == 2
    assert expected in said(capsys)
    assert not output.exists()


def test_train_refuses_a_missing_pack(tiny_run, tmp_path, capsys):
    status, _, _ = train(tiny_run, tmp_path, pack=tmp_path / "no.h5")
    assert status == 2
    assert "pipeline.train: " in (line := said(capsys))
    assert "no.h5: found no such file, expected a pack" in line


def test_a_diverging_training_stops(tiny_run, tmp_path, capsys):
    path = net_file(tmp_path, tiny_run, TRAINED | {"train": LOOP | {"learning_rate": 1e30}})
    status, output, _ = train(tiny_run, tmp_path, net=path)
    assert status == 2
    assert "times as large as at first, expected a bounded one; lower the learning rate" in said(capsys)
    assert not output.exists()


def test_two_processes_train_as_one_with_the_joint_batch(tiny_run, tmp_path):
    frozen = TRAINED | {"network": NETWORK | {"dropout": 0.0}, "train": LOOP | {"normalisation": "frozen"}}
    path = net_file(tmp_path, tiny_run, frozen)
    status, alone, _ = train(tiny_run, tmp_path, net=path)
    assert status == 0
    output = tmp_path / "two.safetensors"
    words = together(tiny_run.argv("train", net=path, output=output, history=tmp_path / "two.jsonl"))
    done = subprocess.run(words, env=ONE_THREAD, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    one, two = (weights.read(path)[0] for path in (alone, output))
    assert weights.read(output)[1]["processes"] == 2
    moved = tables.read_history(tmp_path / "two.jsonl")
    assert moved[0]["loss"] != moved[1]["loss"]
    # Gradients are summed in another order; Adam's first steps, whose size is the learning rate whatever the
    # gradient's, turn the rounding of gradients near 0 into at most a share of 2e-3.
    assert all(torch.allclose(one[name], two[name], rtol=0, atol=1e-5) for name in one if one[name].is_floating_point())


def test_both_end_with_a_killed_torchrun(tiny_run, tmp_path):
    """What was left behind would write what the next run of the same command writes too."""
    path = net_file(tmp_path, tiny_run, TRAINED | {"train": LOOP | {"epochs": 5000}})
    output, log = tmp_path / "two.safetensors", tmp_path / "two.log"
    words = together(tiny_run.argv("train", net=path, output=output, history=tmp_path / "two.jsonl", log=log))

    def ranks():
        mine = (
            process for process in psutil.process_iter(["cmdline"]) if str(output) in (process.info["cmdline"] or ())
        )
        return [process for process in mine if process.pid != launcher.pid]

    with subprocess.Popen(words, env=ONE_THREAD, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as launcher:
        end = time.monotonic() + 120
        while not (log.exists() and "epoch" in log.read_text(encoding="utf-8")):
            assert launcher.poll() is None and time.monotonic() < end
            time.sleep(0.1)
        assert len(ranks()) == 2
        launcher.kill()
    end = time.monotonic() + 20
    while ranks():
        assert time.monotonic() < end, "a process was left behind"
        time.sleep(0.1)
