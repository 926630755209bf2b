"""Compare ways to search DeepLab's CRF on ten images: every point from scratch, shared lattices, halving over images.

    python benchmarks/search.py --pack H5 --unaries ZARR [ZARR …] [--rounds 3]

Ten images of 500 × 375 px, upright or lying, whose unaries are there; 48 points of the paper's first grid: w1 5 to 10,
theta_alpha 50 and 100, theta_beta 3, 5, 7, 10. The three ways take turns, in this process, on two threads. Figures go
to benchmarks/results/search.json.
"""

import argparse
import statistics
import time
from functools import partial

import numpy as np
import record
import torch

from pipeline.algorithms import coarse_to_fine, searched
from pipeline.core import settings
from pipeline.core.settings import ROOT
from pipeline.fit import Labelled
from pipeline.formats import packs, unaries
from pipeline.systems import deeplab

THREADS, IMAGES, SIZE = 2, 10, {500, 375}
AXES = {
    "theta_alpha": {"first": 50, "last": 100, "step": 50},
    "theta_beta": (3.0, 5.0, 7.0, 10.0),
    "appearance_weight": {"first": 5, "last": 10, "step": 1},
}
FIRST, KEEP = 1, 0.25  # of halving: on one image all points, on four times as many the best quarter, and so on
WHOLE_POINTS, WHOLE_IMAGES, WHOLE_FIRST = 288, 200, 10


def points():
    """Return the 48 points, those of equal bandwidths together."""
    alphas, weights = (coarse_to_fine.values(name, AXES[name]) for name in ("theta_alpha", "appearance_weight"))
    return [(alpha, beta, weight) for alpha in alphas for beta in AXES["theta_beta"] for weight in weights]


def counter(labelled, names, apart, spent):
    """Return what `coarse_to_fine.judge` counts with; `spent` gets the seconds of every task."""
    chosen = settings.read(ROOT / "config/systems/deeplab_paper.yaml", "systems")
    work = deeplab.Counting(chosen, torch.device("cpu"))

    def timed(tasks):
        for name, group in tasks:
            begun = time.perf_counter()
            counts = work(*labelled.of(name), group)
            spent.append(time.perf_counter() - begun)
            yield (name, group), counts

    def count(alive, part):
        single = [(name, (point,)) for name in names[part] for point in alive]
        return searched.summed(alive, timed(single if apart else searched.tasks(names[part], alive)))

    return count


def run(labelled, names, *, apart, first):
    """Judge all points; return seconds, points times images that were counted, and the best."""
    spent, counted = [], []
    count = counter(labelled, names, apart, spent)

    def told(alive, part):
        counted.append(len(alive) * (part.stop - part.start))
        return count(alive, part)

    judged = coarse_to_fine.judge(points(), 1, told, len(names), first, KEEP)
    best = coarse_to_fine.best(judged)
    return {"seconds": sum(spent), "point_images": sum(counted), "miou": 100 * best.miou, "best": best.point}


def point_images(count, images, first):
    """Return how many points times images halving counts."""
    asked = []

    def counts(alive, part):
        asked.append(len(alive) * (part.stop - part.start))
        return np.ones((len(alive), 3, 2), np.int64)

    coarse_to_fine.judge([(float(n),) for n in range(count)], 1, counts, images, first, KEEP)
    return sum(asked)


def main():
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", required=True)
    parser.add_argument("--unaries", required=True, nargs="+")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    pack, cache = packs.Pack(args.pack), unaries.Cache(args.unaries)
    fitting = [name for name in cache.names if set(pack.sample(name).truth.shape) == SIZE]
    names = fitting[:IMAGES]
    if len(names) < IMAGES:
        raise SystemExit(f"{args.pack}: {len(names)} images of 500 × 375 px have unaries, wanted {IMAGES}")
    labelled = Labelled(args.pack, args.unaries, names)
    ways = {
        "every point from scratch": partial(run, apart=True, first=len(names)),
        "shared": partial(run, apart=False, first=len(names)),
        "shared, halving": partial(run, apart=False, first=FIRST),
    }
    found = {name: [] for name in ways}
    run(labelled, names[:1], apart=False, first=1)  # compiles
    for _ in range(args.rounds):
        for name, way in ways.items():
            found[name].append(way(labelled, names))
            print(name, found[name][-1], flush=True)
    lines = {}
    baseline = statistics.median(one["seconds"] for one in found["every point from scratch"])
    for name, rounds in found.items():
        seconds = [one["seconds"] for one in rounds]
        last = {key: value for key, value in rounds[-1].items() if key != "seconds"}
        lines[name] = last | {"ratio": baseline / statistics.median(seconds), "spread": max(seconds) / min(seconds)}
    whole = point_images(WHOLE_POINTS, WHOLE_IMAGES, WHOLE_FIRST)
    share = WHOLE_POINTS * WHOLE_IMAGES / whole
    extrapolated = {
        "points": WHOLE_POINTS,
        "images": WHOLE_IMAGES,
        "hours from scratch": baseline / (len(points()) * IMAGES) * WHOLE_POINTS * WHOLE_IMAGES / 3600,
        "ratio, shared": lines["shared"]["ratio"],
        "ratio, shared, halving from 10 images": lines["shared"]["ratio"] * share,
    }
    gap = max(one["miou"] for one in lines.values()) - lines["shared, halving"]["miou"]
    result = record.header(THREADS) | {"points": len(points()), "images": IMAGES, "classes": pack.classes}
    result |= {"rounds": args.rounds, "ways": lines, "miou lost by halving": gap, "extrapolated": extrapolated}
    record.keep("search", result)


if __name__ == "__main__":
    main()
