"""Compare DualMM with alpha-expansion: energy, bound, labels and time, on CamVid frames with two kinds of unaries.

    pip install PyMaxflow==1.3.2
    python benchmarks/dual_mm.py --images DIR [--frames 10] [--repeats 5]

DIR is CamVid in VOC layout. Unaries are minus the probabilities of `pixel`, a classifier of each pixel's colour and
place, and of `coarse`, the truth at 8 px with noise, upsampled; the weights are hybrid's at the paper's constants. The
energies are compared with the bound after 250 iterations, in percent of its magnitude. Alpha-expansion is Boykov and
Kolmogorov's maximum flow by PyMaxflow, one thread, from the best labels of each pixel until no class gains; its time is
told whole, and of the flows alone, without the building of graphs. Times are taken by turns, on a frame of each kind.
Figures go to benchmarks/results/dual_mm.json. PyMaxflow is GPL-3: it stands in this comparison only.
"""

import argparse
import statistics
import time
from importlib import metadata
from pathlib import Path

import maxflow
import numpy as np
import record
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from pipeline.algorithms.dual_mm import energy, solve
from pipeline.algorithms.potts_grid import PottsGrid
from pipeline.core import settings

CLASSES, VOID = 11, 255
ROOT = settings.ROOT


def main():
    """Make the problems, solve them, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    chosen = settings.read(ROOT / "config/systems/hybrid.yaml", "systems")
    grid = PottsGrid(chosen, CLASSES, {})
    rows, last = [], {}
    for kind, name, image, truth, probability in problems(args.images, args.frames):
        photograph = torch.from_numpy(image).permute(2, 0, 1)[None].float()
        with torch.no_grad():
            unary, edges = -torch.from_numpy(probability)[None].contiguous(), grid.edges(photograph)
        rows.append({"kind": kind, "frame": name} | compared(unary, edges, truth))
        last[kind] = unary, edges
        print(rows[-1])
    times = timed(last, args.repeats)
    versions = {name: metadata.version(name) for name in ("PyMaxflow", "numba")}
    result = record.header() | {"peer_versions": versions, "summary": summary(rows), "times": times, "problems": rows}
    print(result["summary"], times)
    record.keep("dual_mm", result)


def problems(root, count):
    """Yield kind, frame, image, truth and probabilities (C, H, W) float32."""
    names = (root / "ImageSets/Segmentation/val.txt").read_text(encoding="utf-8").split()
    names = names[:: max(1, len(names) // count)][:count]
    learnt = classifier(root, (root / "ImageSets/Segmentation/train.txt").read_text(encoding="utf-8").split()[::20])
    for number, name in enumerate(names):
        image, truth = read(root, name)
        yield "pixel", name, image, truth, of_pixels(learnt, image)
        yield "coarse", name, image, truth, coarse(truth, np.random.default_rng(number))


def read(root, name):
    """Return image (H, W, 3) and truth (H, W), uint8."""
    path = next(path for path in (root / "JPEGImages").glob(f"{name}.*"))
    truth = Image.open(root / "SegmentationClass" / f"{name}.png")
    return np.asarray(Image.open(path).convert("RGB")), np.asarray(truth)


def features(image):
    """Return what a pixel's class is told from: colours, blurred ones, place; (H·W, 11)."""
    colours = image / 255
    height, width, _ = image.shape
    rows, cols = np.mgrid[:height, :width]
    blurred = [gaussian_filter(colours, (size, size, 0)) for size in (4, 16)]
    place = np.stack([rows / height, np.abs(cols / width - 0.5)], axis=2)
    return np.concatenate([colours, *blurred, place], axis=2).reshape(height * width, -1)


def classifier(root, names):
    """Return the weights of a softmax regression on some pixels of some training images, (features + 1, C)."""
    rng, known, classes = np.random.default_rng(0), [], []
    for name in names:
        image, truth = read(root, name)
        chosen = rng.choice(np.flatnonzero(truth.ravel() != VOID), 1500, replace=False)
        known.append(features(image)[chosen])
        classes.append(truth.ravel()[chosen])
    x, y = torch.from_numpy(np.concatenate(known)).float(), torch.from_numpy(np.concatenate(classes)).long()
    x = torch.cat([x, torch.ones(len(x), 1)], dim=1)
    weights = torch.zeros(x.shape[1], CLASSES, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=300, line_search_fn="strong_wolfe")

    def loss():
        optimiser.zero_grad()
        value = torch.nn.functional.cross_entropy(x @ weights, y) + 1e-5 * weights.square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    return weights.detach().numpy()


def of_pixels(weights, image):
    """Return the regression's probabilities, (C, H, W) float32."""
    scores = torch.from_numpy(features(image) @ weights[:-1] + weights[-1]).float()
    return scores.softmax(dim=1).T.reshape(CLASSES, *image.shape[:2]).contiguous().numpy()


def coarse(truth, rng):
    """Return probabilities as a network of stride 8 gives them: the truth in cells, with noise, upsampled."""
    hot = torch.from_numpy(np.stack([truth == label for label in range(CLASSES)]).astype(np.float32))[None]
    cells = torch.nn.functional.avg_pool2d(hot, 8, ceil_mode=True)
    scores = 3 * cells + 1.2 * torch.from_numpy(rng.standard_normal(cells.shape).astype(np.float32))
    scores = torch.nn.functional.interpolate(scores, size=truth.shape, mode="bilinear", align_corners=False)
    return scores.softmax(dim=1)[0].numpy()


def compared(unary, edges, truth):
    """Return gaps in percent of the best bound's magnitude, accuracies, and how many pixels differ."""
    best = float(solve(unary, edges, 250, 0).bound)
    known = truth != VOID

    def gap(number):
        return 100 * (number - best) / abs(best)

    def accuracy(labels):
        return 100 * float((labels[known] == truth[known]).mean())

    plain, ours = solve(unary, edges, 15, 0), solve(unary, edges, 15, 1)
    theirs = torch.from_numpy(expanded(unary, edges).astype(np.uint8))[None]
    alone = unary.argmin(dim=1).byte()
    assert float(ours.bound) <= min(float(ours.energy), float(energy(unary, edges, theirs)))
    return {
        "bound_gap": -gap(float(ours.bound)),
        "energy_gap_argmin": gap(float(plain.energy)),
        "energy_gap": gap(float(ours.energy)),
        "certified_gap": 100 * float(ours.gap),
        "energy_gap_expansion": gap(float(energy(unary, edges, theirs))),
        "different": 100 * float((theirs != ours.labels).float().mean()),
        "accuracy_unary": accuracy(alone[0].numpy()),
        "accuracy": accuracy(ours.labels[0].numpy()),
        "accuracy_expansion": accuracy(theirs[0].numpy()),
    }


def expanded(unary, edges, spent=None):
    """Return the labels of alpha-expansion to convergence, (H, W); `spent`, a list, gets the seconds of every flow."""
    costs = np.ascontiguousarray(unary[0].double().permute(1, 2, 0).numpy())
    weights = [
        np.pad(w[0].double().numpy(), pad) for w, pad in zip(edges, (((0, 0), (0, 1)), ((0, 1), (0, 0))), strict=True)
    ]
    labels, idle, label = costs.argmin(axis=2), 0, 0
    while idle < costs.shape[2]:
        graph = maxflow.Graph[float](labels.size, 2 * labels.size)
        nodes = graph.add_grid_nodes(labels.shape)
        # A pixel on the source's side keeps its label, on the sink's side it takes the new one.
        keep, take = np.take_along_axis(costs, labels[..., None], axis=2)[..., 0], costs[..., label].copy()
        for axis, weight in ((1, weights[0]), (0, weights[1])):
            beside = np.roll(labels, -1, axis)
            both, new, old = (weight * (x != y) for x, y in ((labels, beside), (labels, label), (label, beside)))
            take += old - both - np.roll(old, 1, axis)  # the last weight of a row or column is 0
            structure = np.zeros((3, 3))
            structure[(1, 2) if axis == 1 else (2, 1)] = 1
            graph.add_grid_edges(nodes, np.maximum(new + old - both, 0), structure=structure)
        least = np.minimum(keep, take)
        graph.add_grid_tedges(nodes, take - least, keep - least)
        begun = time.perf_counter()
        graph.maxflow()
        if spent is not None:
            spent.append(time.perf_counter() - begun)
        moved = np.where(graph.get_grid_segments(nodes), label, labels)
        better = total(costs, weights, moved) < total(costs, weights, labels) - 1e-9
        labels, idle, label = (moved, 0, label) if better else (labels, idle + 1, label)
        label = (label + 1) % costs.shape[2]
    return labels


def total(costs, weights, labels):
    """Return the energy of labels (H, W); the last weights of rows and columns are 0."""
    own = np.take_along_axis(costs, labels[..., None], axis=2).sum()
    return own + sum((w * (labels != np.roll(labels, -1, axis))).sum() for axis, w in zip((1, 0), weights, strict=True))


def summary(rows):
    """Return mean and worst of every figure, of all problems and by kind."""
    told = {}
    keys = [key for key in rows[0] if key not in ("kind", "frame")]
    for kind in ("all", "pixel", "coarse"):
        some = [row for row in rows if kind in ("all", row["kind"])]
        told[kind] = {
            key: {
                "mean": statistics.mean(row[key] for row in some),
                "worst": (min if key.startswith("accuracy") else max)(row[key] for row in some),
            }
            for key in keys
        }
    return told


def timed(problems, repeats):
    """Return medians of seconds by kind: ours with two threads and one, wall and CPU, and alpha-expansion's."""
    found = {}
    for kind, (unary, edges) in problems.items():
        runs = {name: [] for name in ("two threads", "two threads, CPU", "one thread", "expansion", "expansion, flows")}
        for _ in range(repeats):
            for threads, name in ((2, "two threads"), (1, "one thread")):
                torch.set_num_threads(threads)
                wall, cpu = time.perf_counter(), time.process_time()
                solve(unary, edges, 15, 1)
                runs[name].append(time.perf_counter() - wall)
                if threads == 2:
                    runs["two threads, CPU"].append(time.process_time() - cpu)
            flows, wall = [], time.perf_counter()
            expanded(unary, edges, flows)
            runs["expansion"].append(time.perf_counter() - wall)
            runs["expansion, flows"].append(sum(flows))
        torch.set_num_threads(2)
        medians = {name: statistics.median(values) for name, values in runs.items()}
        ratios = {
            f"{theirs} / {ours}": medians[theirs] / medians[ours]
            for theirs in ("expansion", "expansion, flows")
            for ours in ("two threads", "one thread")
        }
        found[kind] = medians | ratios
    return found


if __name__ == "__main__":
    main()
