"""Compare a training step with a plain torch loop over the same network, and the four networks of DeepLab's Table 2.

    python benchmarks/train_step.py [--steps 5]

Full width, 21 classes, one view of the paper's size, float32, two threads. Step and loop take turns. Figures go to
benchmarks/results/train_step.json.
"""

import argparse
import statistics
import time

import numpy as np
import record
import torch
from torch.nn import functional

from pipeline import nets
from pipeline.algorithms import backprop
from pipeline.core import settings
from pipeline.core.settings import ROOT
from pipeline.nets.deeplab_vgg16 import field_of_view

THREADS, CLASSES = 2, 21
NETS = ("deeplab_paper_7x7", "deeplab_paper", "deeplab_paper_4x4", "deeplab_paper_largefov")
PAPER = {"7x7": 1.44, "base": 2.90, "4x4": 2.90, "largefov": 4.84}  # images/s in training, Table 2, on a Titan GPU


def measure(name, steps):
    """Return seconds of both, by taking turns, after one of each that is not counted."""
    chosen = settings.read(ROOT / f"config/nets/{name}.yaml", "nets")
    torch.manual_seed(0)
    network = nets.build(chosen.network, CLASSES)
    module = backprop.Segmenter(network, chosen.scaling, loss_at=chosen.loss_at)
    training = backprop.Training(module, backprop.network_groups(network, chosen.train), chosen.train, 1, 0)
    images = torch.rand(1, 3, *chosen.train.crop)
    truth = torch.randint(0, CLASSES, (1, *chosen.train.crop))
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    mean, std = (torch.tensor(chosen.scaling[key]).view(1, 3, 1, 1) for key in ("mean", "std"))

    def plain():
        optimiser.zero_grad()
        logits = network((images - mean) / std)
        loss = functional.cross_entropy(logits, truth[:, ::8, ::8], ignore_index=255)
        loss.backward()
        optimiser.step()
        return loss.item()

    seconds = {"ours": [], "plain torch": []}
    for count in range(steps + 1):
        for way, step in (("ours", lambda: training.step(images, truth)), ("plain torch", plain)):
            begun = time.perf_counter()
            step()
            if count:
                seconds[way].append(time.perf_counter() - begun)
    ours, theirs = (statistics.median(seconds[way]) for way in ("ours", "plain torch"))
    variant = chosen.network.variant
    return {
        "network": name,
        "crop": chosen.train.crop[0],
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "field of view": field_of_view(variant),
        "time of our step by the loop's": ours / theirs,
        "images/s by 7x7's, paper": PAPER[variant] / PAPER["7x7"],
        "seconds": ours,
        "spread": float(np.max(seconds["ours"]) / np.min(seconds["ours"])),
    }


def main():
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    lines = []
    for name in NETS:
        lines.append(measure(name, args.steps))
        # A time by itself says nothing on a CPU; against the first it does.
        lines[-1]["images/s by 7x7's, here"] = lines[0]["seconds"] / lines[-1]["seconds"]
        print(lines[-1], flush=True)
    for line in lines:
        del line["seconds"]
    record.keep("train_step", record.header(THREADS) | {"steps": args.steps, "classes": CLASSES, "networks": lines})


if __name__ == "__main__":
    main()
