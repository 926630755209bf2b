"""`finetune` from its command line: what moves, the same bytes twice, kills, refusals."""

import builders
import numpy as np
import pytest
import torch
from observe import net_file, said, untimed
from tiny import TUNED

from pipeline.core import settings
from pipeline.core.settings import ROOT
from pipeline.formats import fitted, labels, tables, trainings, weights


def finetune(run, folder, **options):
    outputs = {"output": folder / "t.safetensors", "output_system": folder / "t.npz", "history": folder / "t.jsonl"}
    return run("finetune", **outputs, **options), *outputs.values()


def changed(path):
    return fitted.read(path).stamp["change"]


@pytest.fixture(scope="module")
def tuned(tiny_run, tmp_path_factory):
    """The tiny network and system fine-tuned together, once."""
    return finetune(tiny_run, tmp_path_factory.mktemp("tuned"))


def contents(paths):
    """Return the bytes of weights and system, and the history without its seconds."""
    *files, history = paths
    return [path.read_bytes() for path in files] + [untimed(tables.read_history(history))]


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
    assert contents(again[1:]) == contents(tuned[1:])
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in again[1:]}


def test_recomputing_gives_the_same_numbers(tiny_run, tuned, tmp_path):
    net = net_file(tmp_path, tiny_run, TUNED | {"recompute": ["network", "system"]})
    status, output, system, _ = finetune(tiny_run, tmp_path, net=net)
    assert status == 0
    plain, again = (weights.read(path)[0] for path in (tuned[1], output))
    assert all(torch.equal(plain[name], again[name]) for name in plain)
    assert fitted.read(system).state == fitted.read(tuned[2]).state


def test_a_network_is_trained_through_random_walks(tiny_run, tmp_path):
    """The branch has normalisation layers of its own, whose statistics stay those of the fit."""
    walks = settings.read(ROOT / "config/systems/difnet.yaml", "systems").plain()
    walks |= {"width": 0.125, "walks": ["image", "layer4"], "fit": walks["fit"] | {"epochs": 1, "batch": 2}}
    walks["fit"]["parameters"] |= {"similarity": 1}
    fit = tmp_path / "f.npz"
    assert tiny_run("fit", settings=tiny_run.yaml("walks", walks), output=fit) == 0
    status, output, system, _ = finetune(tiny_run, tmp_path, system=fit)
    assert status == 0
    assert changed(system)["network"] > 0 and changed(system)["refiner"] > 0
    before, after = (fitted.read(path).state for path in (fit, system))
    kept = {name for name in before if np.array_equal(before[name], after[name])}
    assert kept == {name for name in before if "running" in name}
    assert all(torch.isfinite(tensor).all() for tensor in weights.read(output)[0].values())


def test_a_tolerance_is_not_dropped_in_silence(tiny_run, tmp_path, capsys):
    fit = tmp_path / "f.npz"
    assert tiny_run("fit", settings=tiny_run.yaml("tolerant", tiny_run.convcrf | {"tolerance": 0.1}), output=fit) == 0
    net = net_file(tmp_path, tiny_run, TUNED | {"recompute": ["system"]})
    assert finetune(tiny_run, tmp_path, net=net, system=fit)[0] == 2
    assert "key 'recompute': found 'system' with a tolerance of 0.1, expected one that runs all" in said(capsys)


def test_statistics_are_not_taken_twice(tiny_run, tmp_path, capsys):
    loop = TUNED["finetune"] | {"normalisation": "trained"}
    net = net_file(tmp_path, tiny_run, TUNED | {"recompute": ["network"], "finetune": loop})
    assert finetune(tiny_run, tmp_path, net=net)[0] == 2
    assert "key 'recompute': found 'network' with batch normalisation that is trained, expected" in said(capsys)


def test_finetune_without_learning_rates_changes_nothing(tiny_run, tmp_path):
    still = TUNED | {"system_learning_rate": 0, "finetune": TUNED["finetune"] | {"learning_rate": 0}}
    net = net_file(tmp_path, tiny_run, still)
    status, output, system, _ = finetune(tiny_run, tmp_path, net=net)
    assert status == 0
    change = changed(system)
    assert change["loss_before"] == change["loss_after"]
    assert (change["network"], change["refiner"]) == (0.0, 0.0)
    start, end = (weights.read(path)[0] for path in (tiny_run.weights, output))
    assert all(torch.equal(start[name], end[name]) for name in start)


def test_finetune_lowers_the_loss_of_whole_images(tiny_run, tmp_path):
    loop = TUNED["finetune"] | {"epochs": 4, "learning_rate": 2e-3, "schedule": {"name": "constant"}}
    net = net_file(tmp_path, tiny_run, TUNED | {"watched_images": 8, "finetune": loop})
    status, _, system, _ = finetune(tiny_run, tmp_path, net=net)
    assert status == 0
    assert changed(system)["loss_after"] < changed(system)["loss_before"]


@pytest.mark.parametrize(
    "name",
    ["convcrf_sharp", "convcrf_ct", "fullcrf", "deeplab", "crfrnn", "crfrnn_untied", "hybrid", "hybrid_svm"],
)
def test_every_differentiable_system_trains_with_a_network(tiny_run, tmp_path, name):
    fit = builders.fitted(tmp_path / "f.npz", system=name, state={}, curve=[])
    loop = TUNED["finetune"] | ({"loss": "system"} if name.startswith("hybrid") else {})
    learnt = "fit" in fitted.read(fit).settings  # what was searched for brings nothing that a gradient moves
    changes = {"recompute": ["system"], "finetune": loop} | ({} if learnt else {"system_learning_rate": 0})
    net = net_file(tmp_path, tiny_run, TUNED | changes)
    status, output, system, _ = finetune(tiny_run, tmp_path, net=net, system=fit)
    assert status == 0
    change = changed(system)
    assert change["network"] > 0
    assert (change["refiner"] > 0) == learnt
    assert ("loss_bound_after" in change) == name.startswith("hybrid")
    if name.startswith("hybrid"):
        assert all(change[f"loss_{when}"] <= change[f"loss_bound_{when}"] + 1e-6 for when in ("before", "after"))
    cached, refined = tmp_path / "u.zarr", tmp_path / "l.zarr"
    assert tiny_run("cache", net=net, weights=output, output=cached) == 0
    assert tiny_run("refine", unaries=cached, system=system, output=refined) == 0


def test_a_rate_for_a_system_that_has_nothing_to_learn_is_refused(tiny_run, tmp_path, capsys):
    fit = builders.fitted(tmp_path / "f.npz", system="deeplab", state={}, curve=[])
    assert finetune(tiny_run, tmp_path, system=fit)[0] == 2
    assert "key 'system_learning_rate': found 0.005, expected 0: this system has no parameter that" in said(capsys)


def test_a_system_that_is_to_stay_as_it_is_does(tiny_run, tmp_path):
    """The structured SVM then counts void for nothing: no weight is learnt."""
    fit = builders.fitted(tmp_path / "f.npz", system="hybrid_svm", state={}, curve=[])
    loop = TUNED["finetune"] | {"loss": "system"}
    net = net_file(tmp_path, tiny_run, TUNED | {"system_learning_rate": 0, "finetune": loop})
    status, _, system, _ = finetune(tiny_run, tmp_path, net=net, system=fit)
    assert status == 0
    assert changed(system)["refiner"] == 0


def test_the_history_begins_with_the_system_before_the_training(tiny_run, tmp_path):
    net = net_file(
        tmp_path, tiny_run, TUNED | {"finetune": TUNED["finetune"] | {"heldout_every": 1, "learning_rate": 0}}
    )
    status, _, _, history = finetune(tiny_run, tmp_path, net=net)
    assert status == 0
    first, last = tables.read_history(history)
    assert (first["epoch"], first["steps"], first["loss"]) == (0, 0, None)
    assert first["heldout_miou"] is not None
    assert (last["epoch"], last["steps"]) == (1, 2)


@pytest.mark.parametrize("every", [2, 3])
def test_finetune_says_what_blew_up_and_keeps_the_last_checkpoint(tiny_run, tmp_path, capsys, every):
    """The steps of the second epoch, or its last one, are 1e30 times those before."""
    wild = {"epochs": 3, "schedule": {"name": "step", "every": every, "factor": 1e30}}
    net = net_file(tmp_path, tiny_run, TUNED | {"finetune": TUNED["finetune"] | wild})
    status, output, system, history = finetune(tiny_run, tmp_path, net=net)
    assert status == 2
    line = said(capsys)
    assert "training, step " in line and "times as large as at first" in line
    assert "network." in line or "refiner." in line
    assert not any(path.exists() for path in (output, system, history))
    kept = torch.load(output.with_name(f".{output.name}.checkpoint"), weights_only=True)["state"]
    assert kept["done"] == 2
    assert all(torch.isfinite(value).all() for value in kept["module"].values())


def test_a_tuned_pair_is_cached_and_refined_like_any_other(tiny_run, tuned, tmp_path):
    _, output, system, _ = tuned
    cached, refined = tmp_path / "u.zarr", tmp_path / "l.zarr"
    assert tiny_run("cache", net=tiny_run.tuned_net, weights=output, output=cached) == 0
    assert tiny_run("refine", unaries=cached, system=system, output=refined) == 0
    assert labels.Labels([refined]).names == ("val_0", "val_1")


def test_finetune_goes_on_where_it_was_killed(tiny_run, tuned, tmp_path, monkeypatch):
    # Killed after the last step, before anything was written.
    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(trainings, "write", killed)
        assert finetune(tiny_run, tmp_path)[0] == 130
    status, *outputs = finetune(tiny_run, tmp_path)
    assert status == 0
    assert contents(outputs) == contents(tuned[1:])


def test_finetune_refuses_a_net_of_another_source(tiny_run, tmp_path, capsys):
    assert finetune(tiny_run, tmp_path, net=tiny_run.net)[0] == 2
    assert "key 'source': found 'train', expected 'finetune'" in said(capsys)


@pytest.mark.parametrize(("name", "loss"), [("hybrid", "cross_entropy"), ("convcrf", "system")])
def test_finetune_refuses_a_loss_that_is_not_the_system_s(tiny_run, tmp_path, capsys, name, loss):
    fit = builders.fitted(tmp_path / "f.npz", system=name, state={}, curve=[])
    net = net_file(tmp_path, tiny_run, TUNED | {"finetune": TUNED["finetune"] | {"loss": loss}})
    assert finetune(tiny_run, tmp_path, net=net, system=fit)[0] == 2
    assert f"key 'finetune.loss': found '{loss}', expected " in said(capsys)


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
