"""Compare accuracy: our systems, fitted on held-out images, and every peer that is installed, on the same unaries.

    python benchmarks/peers.py --work DIR [--convcrf CHECKOUT]

DIR is where benchmarks/run_photographs.py ran. Peers run as their own documentation shows, with their own defaults
where they have some and the demonstration values of the C++ library where not. Mean IoU and accuracy are of the val
images, in percent.
Figures go to benchmarks/results/peers.json.
"""

import argparse
from pathlib import Path

import contestants
import numpy as np
import record
import torch

from pipeline import systems
from pipeline.fit import Labelled
from pipeline.formats.packs import Pack
from pipeline.formats.unaries import Cache
from pipeline.metrics import overlap

SETS = {"camvid": "mobilenet", "voc_mini": "mobilenet_voc"}
OURS = {
    "convcrf": ("convcrf", {}),
    "convcrf, blur 1, 7": ("convcrf", {"blur": 1, "filter_size": 7}),
    "convcrf, blur 1, 11": ("convcrf", {"blur": 1, "filter_size": 11}),
    "fullcrf": ("fullcrf", {}),
}
CPU = torch.device("cpu")


def main():
    """Run everyone over every set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True, type=lambda text: Path(text).resolve())
    parser.add_argument("--convcrf", type=lambda text: Path(text).resolve())
    args = parser.parse_args()
    found = record.header() | {"sets": {name: compared(args, name, net) for name, net in SETS.items()}}
    record.keep("peers", found)


def compared(args, name, net):
    """Return one line per contestant."""
    pack = Pack(args.work / f"results/pack/{name}.h5")
    cache = Cache(sorted((args.work / f"results/cache/{name}/{net}").glob("*.zarr")))
    lines = []
    for label, refine in [*ours(pack, cache), *peers(args.convcrf)]:
        confusion = np.zeros((pack.classes, pack.classes), np.int64)
        for image in pack.names("val"):
            sample = pack.sample(image)
            labels = refine(sample.image, cache.unaries(image, sample.image))
            confusion += overlap.confusion(sample.truth, labels, pack.classes)
        scores = {"miou": overlap.mean_iou(confusion), "accuracy": overlap.accuracy(confusion)}
        line = {"name": label} | {score: 100 * float(value) for score, value in scores.items()}
        print(f"{name}: {line}")
        lines.append(line)
    return lines


def ours(pack, cache):
    """Yield our systems, each fitted on the held-out images."""
    yield "unary", systems.build(contestants.system("unary"), pack.classes, CPU).refine
    for label, (system, changed) in OURS.items():
        fitted = systems.build(contestants.system(system, **changed), pack.classes, CPU)
        list(fitted.fit(Labelled(pack.path, [store.path for store in cache.stores]), seed=0))
        yield label, fitted.refine


def peers(checkout):
    """Yield the peers that are there."""
    found = {
        "pydensecrf": (contestants.pydensecrf, {}),
        "pydensecrf, normalised after": (contestants.pydensecrf, {"normalisation": "after"}),
        "pydensecrf, one weight of 3": (contestants.pydensecrf, {"weights": (3.0, 3.0)}),
        "crfseg": (contestants.crfseg, {}),
    }
    if checkout:
        for k in (3, 5, 7, 11):
            found[f"reference {k}, blur 4"] = (contestants.reference, {"checkout": checkout, "filter_size": k})
    for label, (make, options) in found.items():
        yield label, lambda image, unaries, make=make, options=options: labels(make, image, unaries, options)


def labels(make, image, unaries, options):
    """Return a peer's labels of one image."""
    probability = unaries.log_probability(*image.shape[:2]).exp().clamp(1e-5, 1).numpy()
    return make(contestants.Input(image, probability), **options)().argmax(axis=0).astype(np.uint8)


if __name__ == "__main__":
    main()
