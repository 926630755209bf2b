"""Measure `pack` against a bare loop that decodes the same files, and a pack's reading against training.

    python benchmarks/packing.py --voc-mini DIR --camvid DIR [--images 1500] [--rounds 5]

The photographs of each, a folder in VOC's layout, are packed again and again under new names. Told are

- images a second of `pack` by those of a bare loop, which reads photograph and labels with the same reader in as many
  threads and throws them away (goal 0.9); both timed from their first image;
- how a photograph may be stored, by time and bytes: as it is, compressed, in chunks of rows; what reading takes;
- reading one sample, and making a training view of it, by the step of DeepLab-LargeFOV that it feeds (one thread each).

Figures go to benchmarks/results/packing.json.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import record
import torch

from pipeline import datasets, nets
from pipeline import pack as stage_pack
from pipeline.algorithms import backprop, batches
from pipeline.core import settings, workers
from pipeline.formats import packs

ROOT = Path(__file__).resolve().parents[1]
ROWS = 32  # of a chunk, where photographs are stored in several
STORED = {
    "as it is, one chunk": {},
    "as it is, chunks of 32 rows": {"rows": ROWS},
    "gzip 1, one chunk": {"compression": "gzip", "compression_opts": 1},
    "gzip 1 with shuffle, one chunk": {"compression": "gzip", "compression_opts": 1, "shuffle": True},
    "lzf, one chunk": {"compression": "lzf"},
}


def main():
    """Measure all and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voc-mini", required=True, type=Path, help="photographs in VOC's layout")
    parser.add_argument("--camvid", required=True, type=Path, help="the same, of CamVid")
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        voc_sample, frames = (repeated(str(root), args.images) for root in (args.voc_mini, args.camvid))
        result = {
            "images": args.images,
            "pack by a bare loop, images a second": {
                f"{kind}, {threads} threads": speeds(source, folder / f"{kind}.h5", threads, args.rounds)
                for kind, source in (("VOC sample", voc_sample), ("CamVid", frames))
                for threads in (1, 2)
            },
            "storing photographs": storing(voc_sample, folder / "stored.h5", args.rounds),
            "training": feeding(folder / "VOC sample.h5", args.rounds),
        }
    record.keep("packing", record.header() | result)


def repeated(root, count):
    """Return a Source that has the images of a folder several times, under new names."""
    found = datasets.read(voc(root), 0)
    names = [name for split in found.splits.values() for name in split]
    of = {f"{name}_{number}": name for number, name in zip(range(count), itertools.cycle(names), strict=False)}
    splits = {"train": tuple(of), "heldout": (), "val": ()}
    return datasets.Source(found.class_names, splits, lambda name: renamed(found.sample(of[name]), name))


def renamed(sample, name):
    return type(sample)(name, sample.image, sample.truth, sample.exact, sample.full)


def voc(root):
    values = settings.read(ROOT / "config/packs/voc2012.yaml", "packs").plain()
    del values["counts"], values["categories"]
    values |= {"root": root, "class_names": "classes.txt"}
    return settings.check(values, "packs", "benchmark")


def speeds(source, path, threads, rounds):
    """Return images a second of `pack` by the bare loop's, both in turn: median, smallest, largest ratio."""
    names = source.splits["train"]
    described = {"class_names": source.class_names, "categories": {}, "splits": source.splits, "blocks": {}}
    ratios, bare, packed = [], [], []
    for _ in range(rounds):
        bare.append(timed(workers.in_threads(lambda name: source.sample(name) and None, names, threads), len(names)))
        with packs.writer(path, **described, trimap="void", stamp={}) as put:
            made = workers.in_threads(lambda name: stage_pack.encoded(source, name), names, threads)
            packed.append(timed((put(arrays) for arrays, *_ in made), len(names)))
        ratios.append(bare[-1] / packed[-1])
        print(f"{path.stem}, {threads} threads: {1e3 * bare[-1]:.2f} ms bare, {1e3 * packed[-1]:.2f} ms packed")
    return {"median": statistics.median(bare) / statistics.median(packed), "each round": ratios}


def timed(steps, count):
    """Return seconds an image, the first, which starts processes, not counted."""
    next(steps)
    started = time.perf_counter()
    for _ in steps:
        pass
    return (time.perf_counter() - started) / (count - 1)


def storing(source, path, rounds):
    """Return, for each way, time to write and to read by decoding, and bytes by those of the array."""
    samples = [source.sample(name) for name in source.splits["train"][:100]]
    decoding = statistics.median(clocked(source.sample, name) for name in source.splits["train"][:100])
    found = {}
    for way, options in STORED.items():
        writing, reading = [], []
        for _ in range(rounds):
            path.unlink(missing_ok=True)
            with h5py.File(path, "w") as file:
                writing.append(clocked(write, file, samples, **options))
                size = sum(file[sample.name].id.get_storage_size() for sample in samples)
            with h5py.File(path) as file:
                reading.append(clocked(lambda file=file: [file[sample.name][()] for sample in samples]))
        found[way] = {
            "writing by decoding": statistics.median(writing) / len(samples) / decoding,
            "reading by decoding": statistics.median(reading) / len(samples) / decoding,
            "bytes by the array's": size / sum(sample.image.nbytes for sample in samples),
        }
    return found


def write(file, samples, rows=None, **options):
    for sample in samples:
        chunks = sample.image.shape if rows is None else (rows, *sample.image.shape[1:])
        file.create_dataset(sample.name, data=sample.image, chunks=chunks, fletcher32=True, **options)
    file.flush()


def clocked(call, *arguments, **named):
    started = time.perf_counter()
    call(*arguments, **named)
    return time.perf_counter() - started


def feeding(path, rounds):
    """Return what reading a sample and making a view of it take, by a training step on one view, one thread each."""
    chosen = settings.read(ROOT / "config/nets/deeplab_paper_largefov.yaml", "nets")
    pack = packs.Pack(path)
    views = batches.Views(pack.sample, pack.names("train"), chosen.train, chosen.scaling.mean, 0)
    network = nets.build(chosen.network, pack.classes)
    module = backprop.Segmenter(network, chosen.scaling, loss_at=chosen.loss_at)
    training = backprop.Training(module, backprop.network_groups(network, chosen.train), chosen.train, 1, 0)
    images, truth = (torch.as_tensor(np.asarray(part))[None] for part in views[0, 0])
    step = statistics.median(clocked(training.step, images, truth) for _ in range(rounds))
    reading = statistics.median(clocked(pack.sample, name) for name in pack.names("train")[:200])
    view = statistics.median(clocked(views.__getitem__, (0, place)) for place in range(200))
    return {"network": "deeplab_paper_largefov", "views a second, one process": 1 / view} | {
        "reading by step": reading / step,
        "view by step": view / step,
    }


if __name__ == "__main__":
    main()
