"""Compare training through CRFs with the peers', and joint training that keeps all with one that works it out again.

    python benchmarks/crf_training.py --images DIR --convcrf CHECKOUT --crfasrnn CHECKOUT [--rounds 3]

DIR as for mean_field.py; the checkouts are the ConvCRF authors' repository and crfasrnn_pytorch, built as it asks.
A call is forward and backward through five iterations at 500 × 375 px and 21 classes, to the unary and to all that is
learnt. The memory is that of one step of FCN-8s at full width with CRF-RNN, on one such image, beyond parameters and
gradients. Every measurement is a process of its own. Figures go to benchmarks/results/crf_training.json.
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
from mean_field import UNTOUCHED, Entry, timed

from pipeline import nets, systems
from pipeline.algorithms.backprop import Segmenter
from pipeline.algorithms.losses import cross_entropy
from pipeline.core import settings

SIZE = {"500x375x21": (375, 500, 21)}
KEPT = {"all is kept": [], "system": ["system"], "network and system": ["network", "system"]}


def main():
    """Measure in turns, or, as one of the processes, measure one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in ("--images", "--convcrf", "--crfasrnn"):
        parser.add_argument(option, type=lambda text: Path(text).resolve())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--joint", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.joint is not None:
        print(json.dumps(joint_step(args.joint.split())))
        return
    result = record.header() | {"times": timed(entries(args), SIZE, args), "joint": joint(args.rounds)}
    record.keep("crf_training", result)


def entries(args):
    """Return every contestant, ours before the peer of each."""
    eleven = {"filter_size": 11, "blur": 4}
    peer = {"checkout": str(args.convcrf), "train": True} | eleven
    compatible = {"compatibility": "asymmetric"}
    rnn = {"checkout": str(args.crfasrnn)}
    return [
        Entry("convcrf", "convcrf_training", eleven),
        Entry("convcrf, reference", "reference", peer, (1, 2), UNTOUCHED),
        Entry("convcrf +C", "convcrf_training", eleven | compatible),
        Entry("convcrf +C, reference", "reference", peer | {"compatibility": True}, (1, 2), UNTOUCHED),
        Entry("crfrnn, matrices", "crfrnn_training", {}),
        Entry("crfrnn, weights by class", "crfrnn_training", {"kernel_weights": "diag"}),
        Entry("crfrnn, crfasrnn_pytorch", "crfasrnn_training", rnn, (1, 2), UNTOUCHED),
    ]


def joint(rounds):
    """Return, of every way to keep, the median seconds of a step and its extra memory in MB."""
    runs = {name: [] for name in KEPT}
    for turn in range(rounds):
        for name, parts in KEPT.items():
            command = [sys.executable, __file__, "--joint", " ".join(parts)]
            done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=True)
            runs[name].append(json.loads(done.stdout))
            print(f"round {turn + 1} of {rounds}, {name}: {runs[name][-1]}")
    return {
        name: {key: statistics.median(one[key] for one in found) for key in ("s", "extra_mb")}
        for name, found in runs.items()
    }


def joint_step(recompute):
    """Take two steps of joint training; return the seconds of the second and the memory both took at most."""
    torch.manual_seed(0)
    net = settings.read(settings.ROOT / "config/nets/fcn8s_paper.yaml", "nets")
    network = nets.build(net.network, 21)
    chosen = settings.read(settings.ROOT / "config/systems/crfrnn_paper.yaml", "systems")
    refiner = systems.build(chosen, 21, torch.device("cpu")).module
    network.recompute, refiner.recompute = ("network" in recompute, "system" in recompute)
    module = Segmenter(network, net.scaling, refiner).train()
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    coarse = torch.rand(1, 3, 12, 16)
    images = torch.nn.functional.interpolate(coarse, size=(375, 500), mode="bilinear")
    truth = torch.randint(0, 21, (1, 375, 500))
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is held now
    for _ in range(2):
        start = time.perf_counter()
        total, count = cross_entropy(module(images), truth)
        (total / count).backward()
        seconds = time.perf_counter() - start
    return {"s": seconds, "extra_mb": memory("VmHWM") - before}


def memory(field):
    """Return a figure of this process's memory, MB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


if __name__ == "__main__":
    main()
