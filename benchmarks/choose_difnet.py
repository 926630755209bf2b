"""Choose DifNet's settings on given unaries: fit variants on two thirds of the held-out images, score them on the last.

    snakemake --cores 2 results/cache/embedded/resnet18/0.zarr && python benchmarks/choose_difnet.py

Each line is config/systems/difnet.yaml with what is changed in it; no image of val is looked at. Figures go to
benchmarks/results/choose_difnet.json.
"""

import argparse

import record
import torch

from pipeline import systems
from pipeline.core import settings
from pipeline.core.settings import ROOT
from pipeline.fit import Labelled
from pipeline.metrics.overlap import percent

THREADS, CPU = 2, torch.device("cpu")
VARIANTS = {
    "default": {},
    "without positions": {"positions": 0},
    "by product": {"affinity": "product"},
    "seeds at stride 8": {"seed_stride": 8},
    "one walk": {"walks": ["image"]},
    "two walks": {"walks": ["image"] * 2},
    "five walks": {"walks": ["image"] * 5},
    "16 channels": {"feature_channels": 16},
    "64 channels": {"feature_channels": 64},
    "gain 2": {"feature_gain": 2.0},
    "gain 3": {"feature_gain": 3.0},
    "learning rate 0.005": {"fit": {"learning_rate": 0.005}},
    "learning rate 0.01": {"fit": {"learning_rate": 0.01}},
    "cross-entropy": {"fit": {"loss": "cross_entropy"}},
    "importance at the rate of features": {"fit": {"parameters": {"features": 1, "importance": 1, "mixing": 10}}},
    "importance as it was drawn": {"fit": {"parameters": {"features": 1, "mixing": 10}}},
    "published walks": {
        "walks": ["image", "layer1", "layer2", "layer3", "layer4"],
        "affinity": "product",
        "positions": 0,
    },
}


def main():
    """Fit, score and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", default=ROOT / "results", help="folder of the default run's results")
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    pack, shards = f"{args.results}/pack/embedded.h5", [f"{args.results}/cache/embedded/resnet18/0.zarr"]
    names = Labelled(pack, shards).names
    last = set(names[2::3])
    fitted_on, scored = (
        Labelled(pack, shards, [name for name in names if (name in last) == held]) for held in (False, True)
    )
    classes = fitted_on.pack.classes
    unary = settings.read(ROOT / "config/systems/unary.yaml", "systems")
    rows = {"unary": {"miou": miou(systems.build(unary, classes, CPU), scored, classes)}}
    for name, changes in VARIANTS.items():
        rows[name] = run(changed(changes), fitted_on, scored, classes)
        print(name, rows[name], flush=True)
    counts = {"fitted on": len(fitted_on), "scored": len(scored)}
    record.keep("choose_difnet", record.header(THREADS) | counts | {"rows": rows})


def changed(changes):
    """Return the default settings with these changes."""
    values = settings.read(ROOT / "config/systems/difnet.yaml", "systems").plain()
    return settings.check(
        values | changes | {"fit": values["fit"] | changes.get("fit", {})}, "systems", where="a variant"
    )


def run(chosen, fitted_on, scored, classes):
    """Fit; return the loss of the first and the last step, and the mean IoU of what was not fitted on, percent."""
    system = systems.build(chosen, classes, CPU)
    losses = [row["loss"] for row in system.fit(fitted_on, seed=0)]
    return {"first": losses[0], "last": losses[-1], "miou": miou(system, scored, classes)}


def miou(system, samples, classes):
    """Return the mean IoU of a system's labels, percent."""
    return percent(((sample.truth, system.refine(sample.image, unaries)) for sample, unaries in samples), classes)


if __name__ == "__main__":
    main()
