"""Seeds, threads, and one tiny run from pack to fine-tuned network that the tests of the stages share."""

import os
import shutil
from pathlib import Path

# cuBLAS is asked once in a process whether it keeps an order of sums, at its first call, whoever makes that.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import builders
import numpy as np
import pytest
import torch
import yaml
from tiny import EMBEDDED, TRAINED, TUNED

from pipeline import cache, finetune, fit, pack, refine, train
from pipeline.core import settings

MAINS = {"pack": pack, "train": train, "cache": cache, "fit": fit, "refine": refine, "finetune": finetune}


class TinyRun:
    """Files of a tiny run in one folder, and the stages that made them.

    Calling it runs a stage: options are those of the command line, the run's own files where none is given.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.pack = self.folder / "pack.h5"
        self.weights, self.history = self.folder / "net.safetensors", self.folder / "net.jsonl"
        self.unaries, self.system = self.folder / "unaries.zarr", self.folder / "convcrf.npz"
        self.labels = self.folder / "labels.zarr"
        self.net, self.tuned_net = self.yaml("net", TRAINED), self.yaml("tuned", TUNED)
        preset = settings.read(settings.ROOT / "config" / "systems" / "convcrf.yaml", "systems").plain()
        self.convcrf = preset | {"iterations": 2, "fit": preset["fit"] | {"epochs": 1, "batch": 2}}
        self.system_settings = self.yaml("convcrf", self.convcrf)
        self.pack_settings = self.yaml("pack", EMBEDDED)

    def yaml(self, name, values):
        """Write a settings file; return its path."""
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        return path

    def options(self, stage):
        """Return the options of a stage, all but its outputs."""
        where = {"backend": "cpu", "threads": 1}
        training = where | {"workers": 0, "seed": 0}
        return {
            "pack": {"settings": self.pack_settings, "seed": 0, "threads": 1},
            "train": {"pack": self.pack, "net": self.net} | training,
            "cache": {"pack": self.pack, "net": self.net, "weights": self.weights, "shard": "1-of-1"} | where,
            "fit": {"pack": self.pack, "unaries": self.unaries, "settings": self.system_settings} | training,
            "refine": {
                "pack": self.pack,
                "unaries": self.unaries,
                "system": self.system,
                "split": "val",
                "shard": "1-of-1",
                "tile": 0,
                "halo": 8,
            }
            | where,
            "finetune": {"pack": self.pack, "net": self.tuned_net, "weights": self.weights, "system": self.system}
            | training,
        }[stage]

    def argv(self, stage, **options):
        """Return the command line of a stage; an option that is None is left out."""
        merged = self.options(stage) | {name.replace("_", "-"): value for name, value in options.items()}
        given = {name: value for name, value in merged.items() if value is not None}
        return [str(word) for name, value in given.items() for word in (f"--{name}", value)]

    def __call__(self, stage, **options):
        """Run a stage in this process; return its exit status."""
        return MAINS[stage].main(self.argv(stage, **options))


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items):
    """Keep tests that share a run of the workflow in one process; the default run takes both cores and comes last."""
    groups = [group_of(item.path) for item in items]
    for item, group in zip(items, groups, strict=True):
        if group:
            item.add_marker(pytest.mark.xdist_group(group))
    order = ["small run", None, "default run"]
    items[:] = [item for now in order for item, group in zip(items, groups, strict=True) if group == now]


def group_of(path):
    """Return which run the tests of a file share, or None."""
    if path.parent.name != "workflow":
        return None
    return "default run" if path.name == "test_default_run.py" else "small run"


@pytest.fixture(autouse=True)
def _seeded():
    """One thread and the same random numbers for every test."""
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def rng():
    """NumPy's generator, seeded."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """A tiny run, pack to labels, for tests that read its files and write elsewhere."""
    torch.set_num_threads(1)
    run = TinyRun(tmp_path_factory.mktemp("tiny_run"))
    builders.pack(run.pack, splits={"train": 8, "heldout": 2, "val": 2})
    assert run("train", output=run.weights, history=run.history) == 0
    assert run("cache", output=run.unaries) == 0
    assert run("fit", output=run.system) == 0
    assert run("refine", output=run.labels) == 0
    return run


@pytest.fixture
def spoilt_run(tiny_run, tmp_path):
    """A copy of the tiny run, for tests that damage its files."""
    shutil.copytree(tiny_run.folder, tmp_path / "run")
    return TinyRun(tmp_path / "run")
