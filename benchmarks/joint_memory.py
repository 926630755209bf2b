"""Measure the memory of joint training that keeps all for the backward pass, and of such that works it out again.

    python benchmarks/joint_memory.py [--rounds 3]

A step is one of `finetune`, on an image of 500 × 375 px and 21 classes: networks of the papers at full width, with
CRF-RNN. Told are its seconds; the peak of the process's memory beyond what it held before; how much of that parameters,
gradients and the optimiser hold; and how much the same takes with an image of 33 × 33 px, which is what does not grow
with the image. All that twice: with freed memory kept for the next image, as the pipeline does, and given back at once.
Every measurement is a process of its own. Figures go to benchmarks/results/joint_memory.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import record
import torch

from pipeline import nets, systems
from pipeline.algorithms import backprop
from pipeline.core import settings

NETS = ("fcn8s_paper_crfrnn", "resnet101_paper_crfrnn")  # of config/nets
KEPT = {"all is kept": [], "system": ["system"], "network and system": ["network", "system"]}
FREED = {"kept": {}, "given back": {"EDGEWISE_PLAIN_PROCESS": "1", "MALLOC_MMAP_THRESHOLD_": "4000000"}}
SIZE, SMALL = (375, 500), (33, 33)


def main():
    """Measure in turns, or, as one of the processes, measure one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(steps(*json.loads(args.one))))
        return
    figures = {net: {freed: measured(net, freed, args.rounds) for freed in FREED} for net in NETS}
    record.keep("joint_memory", record.header() | figures)


def measured(net, freed, rounds):
    """Return of every way to keep the medians of a network's figures."""
    runs = {name: [] for name in KEPT}
    for turn in range(rounds):
        for name, parts in KEPT.items():
            found, small = (process(net, parts, size, FREED[freed]) for size in (SIZE, SMALL))
            runs[name].append(found | {"small_peak_mb": small["peak_mb"]})
            print(f"round {turn + 1} of {rounds}, {net}, freed memory {freed}, {name}: {runs[name][-1]}")
    return {
        name: {key: statistics.median(one[key] for one in found) for key in found[0]} for name, found in runs.items()
    }


def process(net, parts, size, environment):
    """Return what another process measures."""
    command = [sys.executable, __file__, "--one", json.dumps([net, parts, size])]
    found = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
    return json.loads(found.stdout)


def steps(net, recompute, size):
    """Take three steps; return the seconds of the last, the peak of memory, and how much of it stays between steps."""
    torch.manual_seed(0)
    before = memory("VmRSS")
    joint = settings.read(settings.ROOT / f"config/nets/{net}.yaml", "nets")
    trained = settings.read(settings.ROOT / f"config/nets/{joint.net}.yaml", "nets")
    network = nets.build(trained.network, 21)
    chosen = settings.read(settings.ROOT / f"config/systems/{joint.system}.yaml", "systems")
    refiner = systems.build(chosen, 21, torch.device("cpu")).module
    network.recompute, refiner.recompute = ("network" in recompute, "system" in recompute)
    module = backprop.Segmenter(network, trained.scaling, refiner)
    groups = backprop.network_groups(network, joint.finetune)
    groups += backprop.groups(refiner, lambda name: joint.system_learning_rate * refiner.rate(name), 0.0)
    training = backprop.Training(module, groups, joint.finetune, steps_per_epoch=100, seed=0)
    images = torch.nn.functional.interpolate(torch.rand(1, 3, 12, 16), size=size, mode="bilinear")
    truth = torch.randint(0, 21, (1, *size))
    for _ in range(3):
        start = time.perf_counter()
        training.step(images, truth)
        seconds = time.perf_counter() - start
    held = [x for one in training.optimiser.state.values() for x in one.values()]
    held += [x for parameter in module.parameters() for x in (parameter, parameter.grad) if x is not None]
    state = sum(x.nbytes for x in held) / 2**20
    return {"s": seconds, "peak_mb": memory("VmHWM") - before, "state_mb": state}


def memory(field):
    """Return a figure of this process's memory, MB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


if __name__ == "__main__":
    main()
