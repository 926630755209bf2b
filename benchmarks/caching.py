"""Measure what caching unaries costs beside the network that makes them, how they may be stored, and reading them.

    python benchmarks/caching.py --voc-mini DIR --weights results/train/embedded/resnet18.safetensors [--rounds 3]

Two threads. The logits are those of the default run's ResNet-18 for photographs at twice their size, so that they stand
8 px apart in the photograph: classes of the embedded data, on images it was not trained for. Told are

- storing one image's logits by the time of the network that made them (goal 0.1), of ResNet-18 and of ResNet-101;
- bytes and time of other ways to compress, by the bytes and the time of ours, Zstandard 1 with its bytes shuffled;
- opening a store of 2,000 images, and reading one image of it, by the time of ResNet-18's network;
- bytes of the caches of VOC's val and train_aug with 21 classes, at stride 8 and at full size, from these shares.

Figures go to benchmarks/results/caching.json.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import record
import torch
from numcodecs import Blosc
from PIL import Image

from pipeline import nets
from pipeline.algorithms import prediction
from pipeline.core import device, settings
from pipeline.core.settings import Settings
from pipeline.formats import unaries, weights

ROOT = Path(__file__).resolve().parents[1]
THREADS, IMAGES, MANY = 2, 40, 2000
WAYS = {
    "Zstandard 1, bytes shuffled (ours)": ("zstd", 1, Blosc.SHUFFLE),
    "Zstandard 1, bits shuffled": ("zstd", 1, Blosc.BITSHUFFLE),
    "Zstandard 5, bytes shuffled": ("zstd", 5, Blosc.SHUFFLE),
    "LZ4, bytes shuffled": ("lz4", 5, Blosc.SHUFFLE),
    "LZ4, bits shuffled": ("lz4", 5, Blosc.BITSHUFFLE),
    "Zstandard 1, not shuffled": ("zstd", 1, Blosc.NOSHUFFLE),
}
VOC = {"val": 1449, "train_aug": 10582}


def main():
    """Measure all and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voc-mini", required=True, type=Path)
    parser.add_argument("--weights", required=True, type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    where = device.setup("cpu", THREADS)
    tensors, made = weights.read(args.weights)
    trained = Settings(made["settings"])
    small = nets.build(trained.network, len(made["class_names"]))
    small.load_state_dict(tensors)
    large = nets.build(settings.read(ROOT / "config/nets/resnet101_paper.yaml", "nets").network, 21)
    images = [photograph(path) for path in sorted((args.voc_mini / "JPEGImages").glob("*.jpg"))[:IMAGES]]
    doubled = [np.asarray(Image.fromarray(one).resize((2 * one.shape[1], 2 * one.shape[0]))) for one in images]
    coarse = [prediction.logits(small, one, trained.scaling, where)[0].numpy() for one in doubled]
    with tempfile.TemporaryDirectory() as folder:
        storing = stored(Path(folder) / "few.zarr", coarse, images, small.grid)
        reading = opened(Path(folder) / "many.zarr", coarse, images, small.grid, args.rounds)
    networks = {
        "resnet18": clocked(lambda one: prediction.logits(small, one, trained.scaling, where), images),
        "resnet101": clocked(lambda one: prediction.logits(large, one, trained.scaling, where), images[:6]),
    }
    full = [small.grid.resize(torch.from_numpy(one)[None], *image.shape[:2])[0].numpy() for one, image in
            zip(coarse[:6], images[:6], strict=True)]  # fmt: skip
    tables = {"stride 8": ways(coarse, args.rounds), "full size": ways(full, args.rounds)}
    shares = {size: found[next(iter(WAYS))]["bytes by the array's"] for size, found in tables.items()}
    numbers = {
        "stride 8": np.mean([one[0].size for one in coarse]),
        "full size": np.mean([one[0].size for one in full]),
    }
    result = {
        "storing by the network": {name: storing / seconds for name, seconds in networks.items()},
        "compressing": tables,
        "opening and reading by the network": {
            name: seconds / networks["resnet18"] for name, seconds in reading.items()
        },
        "GB of VOC with 21 classes, float16": {
            f"{split}, {size}": count * 21 * 2 * numbers[size] * shares[size] / 1e9
            for split, count in VOC.items()
            for size in shares
        },
    }
    record.keep("caching", record.header(THREADS) | result)


def photograph(path):
    return np.asarray(Image.open(path).convert("RGB"))


def stored(path, scores, images, grid):
    """Return seconds that storing one image takes."""
    names = [f"image {place}" for place in range(len(scores))]
    seconds = []
    with writer(path, names, grid, len(scores[0])) as out:
        for name, one, image in zip(names, scores, images, strict=True):
            begun = time.perf_counter()
            unaries.put(out, name, one, image, "float16")
            seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


def writer(path, names, grid, classes):
    described = {
        "class_names": [str(number) for number in range(classes)],
        "kind": "logits",
        "dtype": "float16",
        "pack_digest": "",
        "stamp": {},
    }
    return unaries.writer(path, names=names, grid=grid, **described)


def opened(path, scores, images, grid, rounds):
    """Return seconds that opening a store of many images takes, and reading one of them."""
    names = [f"image {place}" for place in range(MANY)]
    with writer(path, names, grid, len(scores[0])) as out:
        for place, name in enumerate(names):
            unaries.put(out, name, scores[place % IMAGES], images[place % IMAGES], "float16")
    opening, reading = [], []
    for _ in range(rounds):
        begun = time.perf_counter()
        cache = unaries.Cache([path])
        opening.append(time.perf_counter() - begun)
        for place in range(0, MANY, 37):
            begun = time.perf_counter()
            cache.unaries(names[place], images[place % IMAGES])
            reading.append(time.perf_counter() - begun)
    return {"opening 2,000 images": statistics.median(opening), "reading one": statistics.median(reading)}


def ways(scores, rounds):
    """Return, for each way to compress, bytes by the array's, and packing and unpacking by our way's time."""
    arrays, found = [one.astype(np.float16) for one in scores], {}
    for way, (name, level, shuffle) in WAYS.items():
        codec = Blosc(cname=name, clevel=level, shuffle=shuffle)
        packed = [codec.encode(one) for one in arrays]
        times = [
            statistics.median(clocked(call, items) for _ in range(rounds))
            for call, items in ((codec.encode, arrays), (codec.decode, packed))
        ]
        size = sum(map(len, packed)) / sum(one.nbytes for one in arrays)
        found[way] = {"bytes by the array's": size, "packing by ours": times[0], "unpacking by ours": times[1]}
    ours = found[next(iter(WAYS))].copy()
    for line in found.values():
        for key in ("packing by ours", "unpacking by ours"):
            line[key] /= ours[key]
    return found


def clocked(call, items):
    """Return the median seconds of a call."""
    seconds = []
    for item in items:
        begun = time.perf_counter()
        call(item)
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
