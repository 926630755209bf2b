"""The stages on each kind of device: equal bits twice, the other device's answers, every network and system."""

import numpy as np
import pytest
import torch
from tiny import TRAINED

from pipeline import systems
from pipeline.core import settings
from pipeline.formats import fitted, labels, unaries, weights

NETWORKS = {
    "resnet18": "resnet18",
    "fcn8s": "fcn8s",
    "largefov": "deeplab_largefov",
    "largefov, several scales": "deeplab_largefov_msc",
    "difnet": "difnet18",
    "difnet by distance": "difnet18_distance",
}
FITTED = (
    "convcrf",
    "convcrf_sharp",
    "fullcrf",
    "crfrnn",
    "difnet",
    "hybrid_svm",
    "hybrid_network",
    "deeplab",
    "hybrid",
)


def trained(run, folder, **options):
    """Train; return status, weights and history."""
    folder.mkdir()
    output = folder / "w.safetensors"
    return run("train", output=output, history=folder / "w.jsonl", **options), output


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_network_is_trained_alike_twice(tiny_run, tmp_path, backend, name, precision):
    """PyTorch is told to refuse what has no fixed order of sums."""
    chosen = settings.read(settings.ROOT / f"config/nets/{NETWORKS[name]}.yaml", "nets").plain()
    loop = TRAINED["train"] | {"precision": precision, "learns": chosen["train"]["learns"]}
    network = chosen["network"] | {"width": 0.125}
    net = TRAINED | {"network": network, "loss_at": chosen["loss_at"], "scaling": chosen["scaling"], "train": loop}
    given = tiny_run.yaml(f"{name}_{backend}_{precision}", net)
    found = [trained(tiny_run, tmp_path / turn, net=given, backend=backend) for turn in ("one", "other")]
    assert [status for status, _ in found] == [0, 0]
    one, other = (output for _, output in found)
    assert one.read_bytes() == other.read_bytes()
    assert all(torch.isfinite(tensor).all() for tensor in weights.read(one)[0].values())


def test_all_stages_run(tiny_run, tmp_path, backend):
    """From training to joint training; what is refined there is what the CPU says of nearly every pixel."""
    status, output = trained(tiny_run, tmp_path / "train", backend=backend)
    assert status == 0
    cached, system, refined = tmp_path / "u.zarr", tmp_path / "s.npz", tmp_path / "l.zarr"
    assert tiny_run("cache", backend=backend, output=cached) == 0
    assert tiny_run("fit", backend=backend, unaries=cached, output=system) == 0
    assert tiny_run("refine", backend=backend, output=refined) == 0
    tuned = {"output": tmp_path / "t.safetensors", "output_system": tmp_path / "t.npz", "history": tmp_path / "t.jsonl"}
    assert tiny_run("finetune", backend=backend, weights=output, system=system, **tuned) == 0
    here, there = unaries.Cache([tiny_run.unaries]), unaries.Cache([cached])
    for name in here.names:
        one, other = (store.read(name)[0].astype(np.float32) for store in (here, there))
        assert np.abs(one - other).max() <= 1e-2 * np.abs(one).max()
    one, other = labels.Labels([tiny_run.labels]), labels.Labels([refined])
    equal = [(one.read(name)[0] == other.read(name)[0]).mean() for name in one.names]
    assert np.mean(equal) >= 0.99
    assert all(np.isfinite(value).all() for value in fitted.read(system).state.values())


@pytest.mark.parametrize("name", FITTED)
def test_every_system_is_fitted_alike_twice(tiny_run, tmp_path, backend, name):
    where = settings.ROOT / "config" / "systems" / f"{name}.yaml"
    chosen = settings.read(where, "systems").plain()
    if "epochs" in chosen.get("fit", {}):
        chosen["fit"] |= {"epochs": 1, "batch": 1}
    given = tiny_run.yaml(f"{name}_{backend}", chosen)
    found = []
    for turn in range(2):
        output = tmp_path / f"{turn}.npz"
        options = {"settings": given, "backend": backend, "output": output, "journal": tmp_path / f"{turn}.search"}
        assert tiny_run("fit", **options) == 0
        found.append(fitted.read(output).state)
    assert found[0].keys() == found[1].keys()
    assert all(np.array_equal(found[0][key], found[1][key]) for key in found[0])
    system = systems.build(settings.check(chosen, "systems", where=str(where)), 4, torch.device("cpu"), found[0])
    assert system.state().keys() == found[0].keys()
