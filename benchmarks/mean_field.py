"""Compare the mean-field engines with what people use today: seconds, memory, equality of results, growth.

    python benchmarks/mean_field.py --images DIR [--convcrf CHECKOUT] [--rounds 5]

DIR holds photographs in VOC layout with a classes.txt; their labels, blurred and spoilt with noise (the synthetic
benchmark of arXiv:1805.04777), are the unary. CHECKOUT is the ConvCRF authors' repository. Every measurement is a
process of its own; contestants take turns, so that a slow minute of the machine falls on all of them. Figures go to
benchmarks/results/mean_field.json, a plot of the growth beside it.
"""

import argparse
import functools
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import contestants
import matplotlib.pyplot as plt
import numpy as np
import record
import torch
from PIL import Image

from pipeline.algorithms.noisy_truth import noisy_truth

HERE = Path(__file__).resolve().parent
SIZES = {"480x360x12": (360, 480, 12), "500x375x21": (375, 500, 21)}
LEAST_SECONDS, LEAST_CALLS = 1.5, 3  # of one process, after a first call that is not counted
IMAGES = 2
# A process in which `pipeline` is imported waits and keeps memory in another way than torch by itself (see its
# __init__.py). Peers run without that, as their users run them; 300000 is what OpenMP itself takes.
UNTOUCHED = {"GOMP_SPINCOUNT": "300000", "EDGEWISE_PLAIN_PROCESS": "1"}
BLURRED = (3, 7, 11, 15)
SHARP = (7, 11)


class Entry(NamedTuple):
    """One contestant: a function of `contestants`, its arguments, how many threads it is tried with."""

    name: str
    function: str
    options: dict
    threads: tuple = (1, 2)
    environment: dict | None = None


def entries(convcrf):
    """Return every contestant."""
    lattice = {"smoothness": "lattice"}
    found = [
        Entry("pydensecrf", "pydensecrf", {}, (1,), UNTOUCHED),
        Entry("crfseg", "crfseg", {}, (1, 2), UNTOUCHED),
        Entry("fullcrf, lattice smoothness", "fullcrf", lattice),
        Entry("fullcrf, separable smoothness", "fullcrf", {"smoothness": "separable"}),
    ]
    for k in BLURRED:
        found.append(Entry(f"convcrf {k}, blur 4", "convcrf", {"filter_size": k, "blur": 4}))
    for k in SHARP:
        found.append(Entry(f"convcrf {k}, blur 1", "convcrf", {"filter_size": k, "blur": 1}))
    found.append(Entry("convcrf 11, blur 4, training", "convcrf_training", {"filter_size": 11, "blur": 4}))
    if convcrf:
        peer = {"checkout": str(convcrf)}
        eleven = peer | {"filter_size": 11}
        for k in BLURRED:
            found.append(Entry(f"reference {k}, blur 4", "reference", peer | {"filter_size": k}, (1, 2), UNTOUCHED))
        for k in SHARP:
            options = peer | {"filter_size": k, "blur": 1}
            found.append(Entry(f"reference {k}, blur 1", "reference", options, (1, 2), UNTOUCHED))
        trained = eleven | {"train": True}
        found.append(Entry("reference 11, blur 4, training", "reference", trained, (1, 2), UNTOUCHED))
        found.append(Entry("reference 11, blur 4, our settings of the process", "reference", eleven))
    return found


def main():
    """Measure in turns, or, as one of the processes, measure one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, type=lambda text: Path(text).resolve())
    parser.add_argument("--convcrf", type=lambda text: Path(text).resolve())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="only contestants whose name holds this")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.images, **json.loads(args.one))))
        return
    result = record.header() | {
        "times": timed([entry for entry in entries(args.convcrf) if args.only in entry.name], SIZES, args),
        "equality": equality(args.images),
        "growth": growth(args.images),
    }
    record.keep("mean_field", result)


def timed(chosen, sizes, args):
    """Return per size and contestant: median ms, their quartiles, extra memory, threads at its best."""
    found = {}
    for size in sizes:
        jobs = [(entry, threads) for entry in chosen for threads in entry.threads]
        runs = {(entry.name, threads): [] for entry, threads in jobs}
        for turn in range(args.rounds):
            for (name, function, options, _, settings), threads in jobs:
                one = {"function": function, "options": options, "size": size, "threads": threads}
                command = [sys.executable, __file__, "--images", args.images, "--one", json.dumps(one)]
                count = {"OMP_NUM_THREADS": str(threads), "NUMBA_NUM_THREADS": str(threads)}
                environment = os.environ | count | (settings or {})
                done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
                if done.returncode:
                    print(f"{name}: {done.stderr.splitlines()[-1]}")
                    continue
                runs[name, threads].append(json.loads(done.stdout))
                median = statistics.median(runs[name, threads][-1]["ms"])
                print(f"round {turn + 1} of {args.rounds}, {size}, {name}, {threads} threads: {median:.1f} ms")
        found[size] = summary(runs)
    return found


def summary(runs):
    """Return one line per contestant and number of threads."""
    lines = []
    for (name, threads), rounds in runs.items():
        if rounds:
            times = [ms for one in rounds for ms in one["ms"]]
            low, median, high = statistics.quantiles(times, n=4) if len(times) > 1 else times * 3
            extra = statistics.median(one["extra_mb"] for one in rounds)
            first = statistics.median(one["first_s"] for one in rounds)
            lines.append(
                {"name": name, "threads": threads, "median_ms": median, "quartiles_ms": [low, high]}
                | {"calls": len(times), "extra_mb": extra, "first_call_s": first}
            )
    return lines


def measure(images, function, options, size, threads):
    """Time calls in this process: ms of each, extra memory of all, seconds of the first."""
    torch.set_num_threads(threads)
    calls = [getattr(contestants, function)(source, **options) for source in inputs(images, size)]
    before = peak_mb()
    start = time.perf_counter()
    calls[0]()
    first = time.perf_counter() - start
    times = []
    while len(times) < LEAST_CALLS or sum(times) < LEAST_SECONDS:
        start = time.perf_counter()
        calls[len(times) % IMAGES]()
        times.append(time.perf_counter() - start)
    return {"ms": [1e3 * seconds for seconds in times], "extra_mb": peak_mb() - before, "first_s": first}


def peak_mb():
    """Return the largest resident memory so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@functools.cache
def inputs(folder, size):
    """Return some Inputs of one size: photographs, and their labels spoilt with noise."""
    height, width, classes = SIZES[size]
    names = sorted(path.stem for path in (folder / "SegmentationClass").glob("*.png"))
    found = []
    for name in names[:: len(names) // IMAGES][:IMAGES]:
        image = Image.open(next((folder / "JPEGImages").glob(f"{name}.*"))).convert("RGB")
        labels = Image.open(folder / "SegmentationClass" / f"{name}.png")
        image = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
        truth = np.asarray(labels.resize((width, height), Image.Resampling.NEAREST))
        truth = np.where(truth < classes, truth, 0).astype(np.uint8)
        noise = {"cell": 8, "keep_probability": 0.8, "kind": "probability", "stride": 1, "seed": 0}
        scores = noisy_truth(truth, classes, name=name, **noise)
        found.append(contestants.Input(image, scores.clip(1e-5, 1).astype(np.float32)))
    return found


def equality(images):
    """Compare our Q with pydensecrf's, both lattices, in each normalisation."""
    found = {}
    for size in SIZES:
        for mode in ("symmetric", "after", "before"):
            same, mean, tail = [], [], []
            for source in inputs(images, size):
                try:
                    peer = contestants.pydensecrf(source, mode)()
                except ImportError:
                    return "pydensecrf is not installed"
                q = contestants.fullcrf(source, smoothness="lattice", normalisation=mode)()
                difference = np.abs(q - peer)
                same.append((q.argmax(axis=0) == peer.argmax(axis=0)).mean())
                mean.append(difference.mean())
                tail.append(np.percentile(difference.max(axis=0), 99))
            figures = {"equal_labels": same, "mean_difference": mean, "percentile_99": tail}
            found[f"{size}, {mode}"] = {name: float(np.mean(values)) for name, values in figures.items()}
    return found


def growth(images):
    """Time our systems over pixels, classes and window; return figures and log–log slopes, and plot them."""
    torch.set_num_threads(1)
    source = inputs(images, "500x375x21")[0]
    large = contestants.Input(np.tile(source.image, (2, 2, 1)), np.tile(source.probability, (1, 2, 2)))
    kinds = {
        "fullcrf, lattice": functools.partial(contestants.fullcrf, smoothness="lattice"),
        "fullcrf, separable": functools.partial(contestants.fullcrf, smoothness="separable"),
        "convcrf 7, blur 1": functools.partial(contestants.convcrf, filter_size=7, blur=1),
        "convcrf 11, blur 4": functools.partial(contestants.convcrf, filter_size=11, blur=4),
    }
    found = {}
    for name, make in kinds.items():
        pixels = [(rows * 1000, best(make(cut(large, rows, 1000, 21)))) for rows in (90, 180, 360, 720)]
        classes = [(count, best(make(cut(large, 375, 500, count)))) for count in (8, 16, 32, 64)]
        found[f"{name}: pixels"], found[f"{name}: classes"] = line(pixels), line(classes)
    window = [(k * k, best(contestants.convcrf(source, filter_size=k, blur=1))) for k in (7, 9, 11, 15, 21)]
    found["convcrf, blur 1: window"] = line(window)
    plot(found)
    return found


def cut(source, rows, cols, classes):
    """Return a part of an Input with so many classes, repeated where it has fewer."""
    repeated = np.concatenate([source.probability] * -(-classes // source.probability.shape[0]))[:classes]
    return contestants.Input(
        np.ascontiguousarray(source.image[:rows, :cols]), np.ascontiguousarray(repeated[:, :rows, :cols])
    )


def best(call, calls=5):
    """Return the median ms of some calls after a first one."""
    call()
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def line(points):
    """Return points (size, ms) and the slope of their straight line in logarithms."""
    sizes, times = np.log(np.array(points)).T
    return {"points": points, "slope": float(np.polyfit(sizes, times, 1)[0])}


def plot(found):
    """Draw every growth beside the line of slope 1."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 4), constrained_layout=True)
    for axis, unit in zip(axes, ("pixels", "classes", "window"), strict=True):
        for name, figures in found.items():
            if name.endswith(unit):
                sizes, times = np.array(figures["points"]).T
                axis.loglog(sizes, times, marker="o", label=f"{name.split(':')[0]} ({figures['slope']:.2f})")
        axis.loglog(sizes, times[0] * sizes / sizes[0], color="black", linestyle=":", label="slope 1")
        axis.set(xlabel={"window": "cells of the window"}.get(unit, unit), ylabel="ms, one thread")
        axis.legend(fontsize="small")
    figure.savefig(HERE / "results" / "mean_field_growth.svg")


if __name__ == "__main__":
    main()
