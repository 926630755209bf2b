"""Seeds, threads, and one tiny run from pack to fine-tuned network that the tests of the stages share."""

import shutil
from pathlib import Path

import builders
import numpy as np
import pytest
import torch
import yaml

from pipeline import cache, finetune, fit, pack, refine, train
from pipeline.core import settings

MAINS = {"pack": pack, "train": train, "cache": cache, "fit": fit, "refine": refine, "finetune": finetune}
NO_JITTER = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
SCALING = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
CACHE = {"splits": ["heldout", "val"], "dtype": "float32"}
LOOP = {
    "split": "train",
    "loss": "cross_entropy",
    "epochs": 2,
    "batch": 4,
    "crop": [32, 32],
    "learning_rate": 2e-3,
    "schedule": "squared_poly",
    "power": 0.9,
    "weight_decay": 5e-4,
    "precision": "float32",
    "normalisation": "trained",
    "heldout_every": 0,
    "augmentation": {
        "flip": True,
        "rotation": 10,
        "resize": [0.8, 1.25],
        "jitter": {"brightness": 0.1, "contrast": 0.2, "saturation": 0.2, "hue": 0.02},
    },
}
NETWORK = {
    "architecture": "resnet_fcn",
    "depth": 18,
    "width": 0.125,
    "output_stride": 16,
    "stride_in_1x1": False,
    "dropout": 0.1,
}
TRAINED = {
    "source": "train",
    "network": NETWORK,
    "weights": "none",
    "scaling": SCALING,
    "train": LOOP | {"heldout_every": 2},
    "cache": CACHE,
}
TUNED = {
    "source": "finetune",
    "net": "tiny",
    "system": "convcrf",
    "finetune": LOOP
    | {
        "epochs": 1,
        "learning_rate": 1e-4,
        "system_learning_rate": 5e-3,
        "normalisation": "frozen",
        "watched_images": 2,
    },
    "cache": CACHE,
}
EMBEDDED = {
    "reader": "embedded",
    "trimap": "void",
    "train": 2,
    "heldout": 1,
    "val": 1,
    "longest_side": 40,
    "shortest_side": 32,
    "void_band": 1,
}


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
            "pack": {"settings": self.pack_settings, "seed": 0},
            "train": {"pack": self.pack, "net": self.net} | training,
            "cache": {"pack": self.pack, "net": self.net, "weights": self.weights, "shard": "1-of-1"} | where,
            "fit": {"pack": self.pack, "unaries": self.unaries, "settings": self.system_settings, "seed": 0} | where,
            "refine": {"pack": self.pack, "unaries": self.unaries, "system": self.system, "split": "val"} | where,
            "finetune": {"pack": self.pack, "net": self.tuned_net, "weights": self.weights, "system": self.system}
            | training,
        }[stage]

    def argv(self, stage, **options):
        """Return the command line of a stage."""
        merged = self.options(stage) | {name.replace("_", "-"): value for name, value in options.items()}
        return [str(word) for name, value in merged.items() for word in (f"--{name}", value)]

    def __call__(self, stage, **options):
        """Run a stage in this process; return its exit status."""
        return MAINS[stage].main(self.argv(stage, **options))


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
