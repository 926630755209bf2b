"""Measure DifNet's random walk against plain products of matrices: time and memory, in training, beside the branches.

    python benchmarks/random_walk.py [--rounds 5]

Two threads, 64 features, 21 classes, as published. Ways take turns; memory is that of processes of their own. Told are

- one walk over n × n positions, forward, and with gradients: time by that of plain matmul, which stores P; and of a
  version in blocks of 256 rows, worked out again in the backward pass; what each takes beyond inputs and outputs;
- a training step of DifNet-50 on one view of 321 × 321 px, by that of the same with plain matmul (goal: 1 or less);
- at 505 × 505 px the parts of DifNet-50, and Sim-Deeplab-101, by the two branches' time (Table 4; goal for all that the
  diffusion adds, features and importance among it: 0.2).

Figures go to benchmarks/results/random_walk.json, a plot beside it.
"""

import argparse
import functools
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
import record
import torch
from torch.utils.checkpoint import checkpoint

from pipeline import nets
from pipeline.algorithms import backprop, diffusion
from pipeline.core import settings
from pipeline.kernels.random_walk import random_walk

THREADS, FEATURES, CLASSES, BLOCK = 2, 64, 21, 256
SIDES = (16, 32, 41, 64, 128)
STEPS = {"forward": False, "with gradients": True}
PAPER = {"seed branch": 18, "similarity branch": 15, "diffusion": 6, "Sim-Deeplab-101": 36}  # ms, Table 4, GTX 1080
HERE = Path(__file__).resolve().parent


def main():
    """Measure all, or, as one of the processes, the memory of one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    if args.one:
        way, side, step = args.one
        print(memory(WAYS[way], int(side), STEPS[step]))
        return
    found = {step: [size(side, step, args.rounds) for side in SIDES] for step in STEPS}
    for lines in found.values():
        # A time by itself says nothing on a CPU; against the first it does.
        unit = lines[0]["seconds"]
        for line in lines:
            line["plain matmul's by its time at the smallest"] = line.pop("seconds") / unit
    plot(found)
    result = {"walk": found, "training step": training_step(args.rounds), "parts": parts(args.rounds)}
    record.keep("random_walk", record.header(THREADS) | {"rounds": args.rounds} | result)


def blocked(features, values):
    """Walk with a block of rows of P at a time."""
    walkers, sent = features.flatten(2), values.flatten(2).mT

    def some(rows):
        return (rows.mT @ walkers).softmax(dim=2) @ sent

    blocks = [checkpoint(some, rows, use_reentrant=False) for rows in walkers.split(BLOCK, dim=2)]
    return torch.cat(blocks, dim=1).mT.reshape(values.shape)


WAYS = {
    "ours": random_walk,
    "plain matmul": functools.partial(random_walk, backend="reference"),
    "in blocks": blocked,
}


def inputs(side, learns):
    """Draw features as a normalisation makes them, and values."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((1, FEATURES, side, side), (1, CLASSES, side, side))
    return [torch.randn(shape, generator=generator).requires_grad_(learns) for shape in shapes]


def once(way, given, learns):
    """Walk once, back again if gradients are wanted."""
    with torch.set_grad_enabled(learns):
        out = way(*given)
    return torch.autograd.grad(out.sum(), given) if learns else out


def turns(calls, rounds):
    """Return median seconds of each call, by name, after one of each that is not counted."""
    seconds = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            begun = time.perf_counter()
            call()
            if turn:
                seconds[name].append(time.perf_counter() - begun)
    return {name: statistics.median(each) for name, each in seconds.items()}


def size(side, step, rounds):
    """Return the figures of one walk over side × side positions."""
    given = inputs(side, STEPS[step])
    seconds = turns({name: functools.partial(once, way, given, STEPS[step]) for name, way in WAYS.items()}, rounds)
    line = {"positions": side * side, "time by plain matmul's": by(seconds, "plain matmul")}
    line["seconds"] = seconds["plain matmul"]
    line["extra MiB"] = {name: process(name, side, step) for name in WAYS}
    print(step, line, flush=True)
    return line


def by(seconds, name):
    """Return times as multiples of one of them."""
    return {each: value / seconds[name] for each, value in seconds.items()}


def process(way, side, step):
    """Return the extra memory of one walk, MiB: the least of three processes."""
    command = [sys.executable, __file__, "--one", way, str(side), step]
    runs = (subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(3))
    return min(float(json.loads(run.stdout)) for run in runs)


def memory(way, side, learns):
    """Return the peak beyond what is held before, MiB; a small walk before it loads the code."""
    once(way, inputs(8, learns), learns)
    given = inputs(side, learns)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    once(way, given, learns)
    return (resident("VmHWM") - before) / 1024


def resident(field):
    """Return a figure of this process's memory, KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])


def plot(found):
    """Draw time and memory over the number of positions."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), constrained_layout=True)
    for step, lines in found.items():
        positions = [line["positions"] for line in lines]
        for name in WAYS:
            style = "--" if STEPS[step] else "-"
            unit = [line["plain matmul's by its time at the smallest"] for line in lines]
            times = [line["time by plain matmul's"][name] * one for line, one in zip(lines, unit, strict=True)]
            axes[0].loglog(positions, times, style, marker="o", label=f"{name}, {step}")
            extra = [max(line["extra MiB"][name], 0.1) for line in lines]
            axes[1].loglog(positions, extra, style, marker="o", label=f"{name}, {step}")
    axes[0].set(xlabel="positions", ylabel="time, plain matmul's of the smallest = 1")
    axes[1].set(xlabel="positions", ylabel="MiB beyond inputs")
    axes[1].axhline(256, color="black", linestyle=":", label="256 MiB")
    for axis in axes:
        axis.legend(fontsize="x-small")
    figure.savefig(HERE / "results" / "random_walk.svg")


def training_step(rounds):
    """Return the time of a training step by that with plain products of matrices."""
    chosen = settings.read(settings.ROOT / "config/nets/difnet_voc_50.yaml", "nets")
    torch.manual_seed(0)
    network = nets.build(chosen.network, CLASSES)
    module = backprop.Segmenter(network, chosen.scaling, loss_at=chosen.loss_at)
    groups = backprop.network_groups(network, chosen.train)
    training = backprop.Training(module, groups, chosen.train, 1_000_000, 0)
    images, truth = torch.rand(1, 3, 321, 321), torch.randint(0, CLASSES, (1, 321, 321))

    def step(way):
        diffusion.random_walk = lambda features, values, *, affinity: WAYS[way](features, values)
        training.step(images, truth)

    ways = ("ours", "plain matmul")
    try:
        found = by(turns({way: functools.partial(step, way) for way in ways}, rounds), "plain matmul")
    finally:
        diffusion.random_walk = random_walk
    print(found, flush=True)
    return found


def parts(rounds):
    """Return the times of DifNet-50's parts at 505 × 505 px, and of Sim-Deeplab-101, by the two branches'."""
    built = {}
    for name in ("difnet_voc_50", "difnet_voc_101_seed"):
        chosen = settings.read(settings.ROOT / f"config/nets/{name}.yaml", "nets")
        torch.manual_seed(0)
        built[name] = nets.build(chosen.network, CLASSES).eval()
    network, deep = built.values()
    images = torch.rand(1, 3, 505, 505)
    with torch.inference_mode():
        scores, part = network.classifier(network.backbone(images)), network.diffusion
        levels = part.levels(images, scores.shape[2:])
        calls = {
            "seed branch": lambda: network.classifier(network.backbone(images)),
            "similarity branch": lambda: part.similarity(images),
            "similarity branch, features": lambda: part.levels(images, scores.shape[2:]),
            "importance": lambda: part.importance(scores),
            "walks": lambda: list(diffusion.cascade(scores, levels, *part.mixing(), part.affinity)),
            "DifNet-50": lambda: network(images),
            "Sim-Deeplab-101": lambda: deep(images),
        }
        seconds = turns(calls, rounds)
    branches = seconds["seed branch"] + seconds["similarity branch"]
    seconds["diffusion"] = seconds["DifNet-50"] - branches
    found = {name: value / branches for name, value in seconds.items()}
    print(found, flush=True)
    whole = PAPER["seed branch"] + PAPER["similarity branch"]
    return {"here": found, "paper": {name: value / whole for name, value in PAPER.items()}}


if __name__ == "__main__":
    main()
