"""Every stage from its command line on tiny data: outputs, exit status, error text, the same twice over."""

import os
import socket
import subprocess
import sys

import builders
import numpy as np
import pytest
import torch
from tiny import CACHE, LOOP, NETWORK, SCALING, TRAINED, TUNED

from pipeline.algorithms import backprop
from pipeline.core import files
from pipeline.core.settings import ROOT
from pipeline.formats import fitted, labels, packs, tables, trainings, unaries, weights


def said(capsys):
    """Return the last line on stderr."""
    return capsys.readouterr().err.splitlines()[-1]


def same_store(one, other):
    names = one.names
    return names == other.names and all(np.array_equal(one.read(name)[0], other.read(name)[0]) for name in names)


# The run as a whole


def test_the_run_leaves_what_it_says(tiny_run):
    pack = packs.Pack(tiny_run.pack)
    tensors, stamp = weights.read(tiny_run.weights)
    assert stamp["class_names"] == list(pack.class_names)
    assert tensors["classifier.4.weight"].shape[0] == 4
    history = tables.read_history(tiny_run.history)
    assert [entry["steps"] for entry in history] == [2, 4]
    assert history[0]["heldout_miou"] is None
    assert 0 <= history[1]["heldout_miou"] <= 100
    cache = unaries.Cache([tiny_run.unaries])
    assert (cache.kind, cache.stride) == ("logits", 16)
    assert cache.names == pack.names("heldout") + pack.names("val")
    result = fitted.read(tiny_run.system)
    assert len(result.curve) == 1
    assert result.settings.plain() == tiny_run.convcrf
    refined = labels.Labels(tiny_run.labels)
    assert refined.names == pack.names("val")
    for name in refined.names:
        found = refined.labels(name, pack.sample(name).truth)
        assert set(np.unique(found)) <= set(range(4))
        assert refined.attributes_of(name)["seconds"] > 0
        assert 0 <= refined.attributes_of(name)["changed"] <= 1


def test_stamps_tie_each_output_to_its_inputs(tiny_run):
    pack, cache = packs.Pack(tiny_run.pack), unaries.Cache([tiny_run.unaries])
    assert weights.read(tiny_run.weights)[1]["inputs"] == {"pack": pack.digest}
    assert cache.stores[0].stamp["inputs"] == {"pack": pack.digest, "weights": files.digest(tiny_run.weights)}
    assert fitted.read(tiny_run.system).stamp["inputs"] == {"pack": pack.digest, "unaries": cache.digest}
    refined = labels.Labels(tiny_run.labels).stamp["inputs"]
    assert refined == {"pack": pack.digest, "unaries": cache.digest, "system": files.digest(tiny_run.system)}


def test_nothing_hidden_stays(tiny_run):
    assert [path.name for path in tiny_run.folder.iterdir() if path.name.startswith(".")] == []


# pack


def test_pack_makes_the_same_bytes_twice(tiny_run, tmp_path):
    paths = [tmp_path / "1.h5", tmp_path / "2.h5"]
    assert [tiny_run("pack", output=path) for path in paths] == [0, 0]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    pack = packs.Pack(paths[0])
    assert {split: len(pack.names(split)) for split in pack.splits} == {"train": 2, "heldout": 1, "val": 1}
    assert tiny_run("pack", seed=1, output=paths[1]) == 0
    assert packs.Pack(paths[1]).digest != pack.digest


def test_pack_refuses_unknown_settings(tiny_run, tmp_path, capsys):
    assert tiny_run("pack", settings=tmp_path / "no.yaml", output=tmp_path / "a.h5") == 2
    assert "no.yaml: found no such file" in said(capsys)
    assert list(tmp_path.iterdir()) == []


# train


def train(run, folder, **options):
    output, history = folder / "w.safetensors", folder / "w.jsonl"
    return run("train", output=output, history=history, **options), output, history


def test_train_gives_the_same_bytes_twice(tiny_run, tmp_path):
    status, output, history = train(tiny_run, tmp_path)
    assert status == 0
    assert output.read_bytes() == tiny_run.weights.read_bytes()
    assert history.read_bytes() == tiny_run.history.read_bytes()


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
    assert history.read_bytes() == tiny_run.history.read_bytes()
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


def net_file(tmp_path, run, values):
    path = run.yaml("changed", values)
    return path.rename(tmp_path / "changed.yaml")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (TRAINED | {"train": LOOP | {"split": "traim"}}, "found no split 'traim', expected one of heldout, train, val"),
        (TRAINED | {"train": LOOP | {"batch": 9}}, "batch: found 9, expected at most the 8 images of the split"),
        (TRAINED | {"weights": "nowhere.pth"}, "nowhere.pth: found no such file"),
        (TUNED, "key 'source': found 'finetune', expected 'train'"),
        (TRAINED | {"network": NETWORK | {"depht": 18}}, "key 'network.depht': found an unknown key"),
    ],
    ids=["split", "batch", "weights", "source", "network"],
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
    assert "expected a finite one; lower the learning rate" in said(capsys)
    assert not output.exists()


def test_two_processes_train_as_one_with_the_joint_batch(tiny_run, tmp_path):
    frozen = TRAINED | {"network": NETWORK | {"dropout": 0.0}, "train": LOOP | {"normalisation": "frozen"}}
    path = net_file(tmp_path, tiny_run, frozen)
    status, alone, _ = train(tiny_run, tmp_path, net=path)
    assert status == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    output = tmp_path / "two.safetensors"
    argv = tiny_run.argv("train", net=path, output=output, history=tmp_path / "two.jsonl")
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port)]
    done = subprocess.run(
        [sys.executable, *launch, "-m", "pipeline.train", *argv],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    one, two = (weights.read(path)[0] for path in (alone, output))
    assert weights.read(output)[1]["processes"] == 2
    moved = tables.read_history(tmp_path / "two.jsonl")
    assert moved[0]["loss"] != moved[1]["loss"]
    # Gradients are summed in another order; Adam's first steps, whose size is the learning rate whatever the
    # gradient's, turn the rounding of gradients near 0 into at most a share of 2e-3.
    assert all(torch.allclose(one[name], two[name], rtol=0, atol=1e-5) for name in one if one[name].is_floating_point())


# cache


def test_cache_gives_the_same_arrays_twice(tiny_run, tmp_path):
    assert tiny_run("cache", output=tmp_path / "u.zarr") == 0
    one, other = unaries.Cache([tmp_path / "u.zarr"]), unaries.Cache([tiny_run.unaries])
    assert same_store(one.stores[0], other.stores[0])
    assert one.digest == other.digest


def test_shards_hold_each_image_once(tiny_run, tmp_path):
    paths = [tmp_path / "1.zarr", tmp_path / "2.zarr"]
    assert [tiny_run("cache", shard=f"{k}-of-2", output=path) for k, path in enumerate(paths, 1)] == [0, 0]
    cache, whole, pack = unaries.Cache(paths), unaries.Cache([tiny_run.unaries]), packs.Pack(tiny_run.pack)
    assert sorted(cache.names) == sorted(whole.names)
    assert all(store.names for store in cache.stores)
    for name in whole.names:
        image = pack.sample(name).image
        assert torch.equal(cache.unaries(name, image).scores, whole.unaries(name, image).scores)


def spoil_weights(run, value):
    tensors, stamp = weights.read(run.weights)
    tensors["classifier.4.bias"][1] = value
    weights.write(run.weights, tensors, stamp)


def test_cache_names_the_image_of_a_bad_score(spoilt_run, tmp_path, capsys):
    spoil_weights(spoilt_run, float("nan"))
    assert spoilt_run("cache", output=tmp_path / "u.zarr") == 2
    line = said(capsys)
    assert "image heldout_0, class 1, row 0, col 0: found the score nan" in line
    assert str(spoilt_run.weights) in line
    assert not (tmp_path / "u.zarr").exists()


def test_cache_refuses_scores_too_large_for_float16(spoilt_run, tmp_path, capsys):
    spoil_weights(spoilt_run, 1e6)
    net = net_file(tmp_path, spoilt_run, TRAINED | {"cache": CACHE | {"dtype": "float16"}})
    assert spoilt_run("cache", net=net, output=tmp_path / "u.zarr") == 2
    assert "heldout_0: found a score of 1e+06, expected at most 65504" in said(capsys)


def test_cache_refuses_weights_for_other_classes(tiny_run, tmp_path, capsys):
    other = builders.pack(tmp_path / "other.h5", classes=3)
    assert tiny_run("cache", pack=other, output=tmp_path / "u.zarr") == 2
    assert "expected those of the pack; train on this pack" in said(capsys)


def given_net(weights_path, **changed):
    given = {"source": "given", "network": NETWORK | changed, "weights": str(weights_path)}
    return given | {"scaling": SCALING, "cache": CACHE}


def test_cache_runs_given_weights(tiny_run, tmp_path):
    net = net_file(tmp_path, tiny_run, given_net(tiny_run.weights))
    assert tiny_run("cache", net=net, output=tmp_path / "u.zarr") == 0
    one, other = unaries.Cache([tmp_path / "u.zarr"]), unaries.Cache([tiny_run.unaries])
    assert same_store(one.stores[0], other.stores[0])


def test_cache_refuses_given_weights_for_other_classes(tiny_run, tmp_path, capsys):
    net = net_file(tmp_path, tiny_run, given_net(tiny_run.weights))
    other = builders.pack(tmp_path / "other.h5", classes=3)
    assert tiny_run("cache", net=net, pack=other, output=tmp_path / "u.zarr") == 2
    assert "2 mismatched (classifier.4.weight, classifier.4.bias)" in (line := said(capsys))
    assert "every tensor of the network with 3 classes" in line


def test_cache_refuses_given_weights_of_another_network(tiny_run, tmp_path, capsys):
    net = net_file(tmp_path, tiny_run, given_net(tiny_run.weights, depth=34))
    assert tiny_run("cache", net=net, output=tmp_path / "u.zarr") == 2
    assert "set architecture, depth and width as the file needs them" in said(capsys)


@pytest.mark.parametrize("splits", [["heldout", "test"], ["valid"]])
def test_cache_refuses_an_unknown_split(tiny_run, tmp_path, capsys, splits):
    net = net_file(tmp_path, tiny_run, TRAINED | {"cache": CACHE | {"splits": splits}})
    assert tiny_run("cache", net=net, output=tmp_path / "u.zarr") == 2
    assert f"found no split '{splits[-1]}'" in said(capsys)


# fit


def test_fit_gives_the_same_bytes_twice(tiny_run, tmp_path):
    assert tiny_run("fit", output=tmp_path / "f.npz") == 0
    assert (tmp_path / "f.npz").read_bytes() == tiny_run.system.read_bytes()


@pytest.mark.parametrize("name", ["unary", "convcrf_released"])
def test_fit_passes_settings_through(tiny_run, tmp_path, name):
    path = ROOT / "config" / "systems" / f"{name}.yaml"
    assert tiny_run("fit", settings=path, output=tmp_path / "f.npz") == 0
    assert fitted.read(tmp_path / "f.npz").curve == []
    assert tiny_run("refine", system=tmp_path / "f.npz", output=tmp_path / "l.zarr") == 0


def test_fit_refuses_unaries_of_another_pack(tiny_run, tmp_path, capsys):
    other = builders.pack(tmp_path / "other.h5", seed=1)
    assert tiny_run("fit", pack=other, output=tmp_path / "f.npz") == 2
    assert f"found unaries of another pack, expected those of {other}" in said(capsys)


def test_fit_refuses_a_pack_that_holds_nothing_out(tiny_run, tmp_path, capsys):
    pack = builders.pack(tmp_path / "all.h5", splits={"train": 1, "heldout": 0, "val": 1})
    cached = builders.unaries(tmp_path / "u.zarr", pack, splits=("val",))
    assert tiny_run("fit", pack=pack, unaries=cached, output=tmp_path / "f.npz") == 2
    assert "found no held-out images" in said(capsys)


def test_fit_refuses_unaries_without_the_held_out_images(tiny_run, tmp_path, capsys):
    cached = builders.unaries(tmp_path / "u.zarr", tiny_run.pack, splits=("val",))
    assert tiny_run("fit", unaries=cached, output=tmp_path / "f.npz") == 2
    assert "found no image heldout_" in said(capsys)


# refine


def test_refine_gives_the_same_labels_twice(tiny_run, tmp_path):
    assert tiny_run("refine", output=tmp_path / "l.zarr") == 0
    assert same_store(labels.Labels(tmp_path / "l.zarr"), labels.Labels(tiny_run.labels))


def test_refine_refuses_a_truncated_system(spoilt_run, tmp_path, capsys):
    content = spoilt_run.system.read_bytes()
    spoilt_run.system.write_bytes(content[: len(content) // 2])
    assert spoilt_run("refine", output=tmp_path / "l.zarr") == 2
    assert f"pipeline.refine: {spoilt_run.system}: found a damaged file" in said(capsys)


def test_refine_refuses_a_damaged_array(spoilt_run, tmp_path, capsys):
    (chunk,) = [path for path in (spoilt_run.unaries / "val_1").rglob("0") if path.is_file()]
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"?")
    assert spoilt_run("refine", output=tmp_path / "l.zarr") == 2
    assert f"{spoilt_run.unaries}, image val_1: found a damaged array" in said(capsys)
    assert not (tmp_path / "l.zarr").exists()


def test_refine_refuses_an_unknown_split(tiny_run, tmp_path, capsys):
    assert tiny_run("refine", split="test", output=tmp_path / "l.zarr") == 2
    assert "found no split 'test', expected one of heldout, train, val" in said(capsys)


def test_refine_refuses_unaries_of_another_pack(tiny_run, tmp_path, capsys):
    other = builders.pack(tmp_path / "other.h5", seed=1)
    assert tiny_run("refine", pack=other, output=tmp_path / "l.zarr") == 2
    assert "found unaries of another pack" in said(capsys)


def test_refine_keeps_what_a_kill_left(spoilt_run, tmp_path, capsys, monkeypatch):
    from pipeline.systems.convcrf import System  # found by name in the stage

    whole, seen = System.refine, []

    def killed(self, image, unaries):
        seen.append(image.shape)
        if len(seen) == 3:  # once to warm up, then once for each image
            raise KeyboardInterrupt
        return whole(self, image, unaries)

    monkeypatch.setattr(System, "refine", killed)
    assert spoilt_run("refine", output=tmp_path / "l.zarr") == 130
    monkeypatch.setattr(System, "refine", whole)
    assert spoilt_run("refine", output=tmp_path / "l.zarr") == 0
    assert "1 of 2 images are there already" in capsys.readouterr().err
    assert same_store(labels.Labels(tmp_path / "l.zarr"), labels.Labels(spoilt_run.labels))


# finetune


def finetune(run, folder, **options):
    outputs = {"output": folder / "t.safetensors", "output_system": folder / "t.npz", "history": folder / "t.jsonl"}
    return run("finetune", **outputs, **options), *outputs.values()


def changed(path):
    return fitted.read(path).stamp["change"]


@pytest.fixture(scope="module")
def tuned(tiny_run, tmp_path_factory):
    """The tiny network and system fine-tuned together, once."""
    return finetune(tiny_run, tmp_path_factory.mktemp("tuned"))


def test_finetune_moves_network_and_system(tiny_run, tuned):
    status, output, system, history = tuned
    assert status == 0
    change = changed(system)
    assert change["loss_before"] != change["loss_after"]
    assert change["network"] > 0
    assert change["refiner"] > 0
    before, after = fitted.read(tiny_run.system), fitted.read(system)
    assert any(before.state[name] != after.state[name] for name in before.settings.fit.parameters)
    assert before.state["unary_weight"] == pytest.approx(after.state["unary_weight"])
    assert [entry["steps"] for entry in tables.read_history(history)] == [2]
    tensors, stamp = weights.read(output)
    assert stamp["change"] == change
    start = weights.read(tiny_run.weights)[0]
    # Frozen normalisation keeps its statistics.
    assert torch.equal(tensors["backbone.bn1.running_mean"], start["backbone.bn1.running_mean"])
    assert not torch.equal(tensors["backbone.conv1.weight"], start["backbone.conv1.weight"])


def test_finetune_gives_the_same_bytes_twice(tiny_run, tuned, tmp_path):
    again = finetune(tiny_run, tmp_path)
    assert [path.read_bytes() for path in again[1:]] == [path.read_bytes() for path in tuned[1:]]
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in again[1:]}


def test_finetune_without_learning_rates_changes_nothing(tiny_run, tmp_path):
    still = TUNED["finetune"] | {"learning_rate": 0, "system_learning_rate": 0}
    net = net_file(tmp_path, tiny_run, TUNED | {"finetune": still})
    status, output, system, _ = finetune(tiny_run, tmp_path, net=net)
    assert status == 0
    change = changed(system)
    assert change["loss_before"] == change["loss_after"]
    assert (change["network"], change["refiner"]) == (0.0, 0.0)
    start, end = (weights.read(path)[0] for path in (tiny_run.weights, output))
    assert all(torch.equal(start[name], end[name]) for name in start)


def test_finetune_lowers_the_loss_of_whole_images(tiny_run, tmp_path):
    loop = TUNED["finetune"] | {"epochs": 4, "learning_rate": 2e-3, "schedule": "constant", "watched_images": 8}
    net = net_file(tmp_path, tiny_run, TUNED | {"finetune": loop})
    status, _, system, _ = finetune(tiny_run, tmp_path, net=net)
    assert status == 0
    assert changed(system)["loss_after"] < changed(system)["loss_before"]


def test_a_tuned_pair_is_cached_and_refined_like_any_other(tiny_run, tuned, tmp_path):
    _, output, system, _ = tuned
    cached, refined = tmp_path / "u.zarr", tmp_path / "l.zarr"
    assert tiny_run("cache", net=tiny_run.tuned_net, weights=output, output=cached) == 0
    assert tiny_run("refine", unaries=cached, system=system, output=refined) == 0
    assert labels.Labels(refined).names == ("val_0", "val_1")


def test_finetune_goes_on_where_it_was_killed(tiny_run, tuned, tmp_path, monkeypatch):
    # Killed after the last step, before anything was written.
    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(trainings, "write", killed)
        assert finetune(tiny_run, tmp_path)[0] == 130
    status, *outputs = finetune(tiny_run, tmp_path)
    assert status == 0
    assert [path.read_bytes() for path in outputs] == [path.read_bytes() for path in tuned[1:]]


def test_finetune_refuses_a_net_of_another_source(tiny_run, tmp_path, capsys):
    assert finetune(tiny_run, tmp_path, net=tiny_run.net)[0] == 2
    assert "key 'source': found 'train', expected 'finetune'" in said(capsys)


def test_finetune_refuses_a_system_without_gradient(tiny_run, tmp_path, capsys):
    unary = ROOT / "config" / "systems" / "unary.yaml"
    assert tiny_run("fit", settings=unary, output=tmp_path / "f.npz") == 0
    assert finetune(tiny_run, tmp_path, system=tmp_path / "f.npz")[0] == 2
    assert "found 'unary', expected a differentiable system" in said(capsys)


def test_finetune_refuses_weights_for_other_classes(tiny_run, tmp_path, capsys):
    other = builders.pack(tmp_path / "other.h5", classes=3)
    assert finetune(tiny_run, tmp_path, pack=other)[0] == 2
    assert str(tiny_run.weights) in said(capsys)


def test_finetune_refuses_truncated_weights(spoilt_run, tmp_path, capsys):
    content = spoilt_run.weights.read_bytes()
    spoilt_run.weights.write_bytes(content[: len(content) // 2])
    assert finetune(spoilt_run, tmp_path)[0] == 2
    assert f"{spoilt_run.weights}: found a damaged or foreign file" in said(capsys)


# A stage as a process


def test_a_stage_is_a_command(tiny_run, tmp_path):
    log = tmp_path / "refine.log"
    argv = tiny_run.argv("refine", split="test", output=tmp_path / "l.zarr", log=log)
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.refine", *argv], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "found no split 'test'" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert log.read_text(encoding="utf-8").splitlines()[-1].endswith(done.stderr.splitlines()[-1])
