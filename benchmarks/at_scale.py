"""Run pack → cache (noisy truth at stride 8) → refine → score on 1,000 and on 10,000 images of 500 × 375 px.

    python benchmarks/at_scale.py --voc-mini DIR --work DIR [--counts 1000 10000] [--shards 1]

The images are views of the photographs in DIR, a folder in VOC's layout: cut, mirrored and resized at random, as JPEG,
labels as palette PNG. The workflow runs as a user runs it, in a folder of its own, two threads a stage, all images in
val; the system is ConvCRF with a window of 5. Told are, for each stage, the peak of its memory as its log has it, at
10,000 by at 1,000 (goal 1.05), what it held on the way, and milliseconds an image; what the results take on disk; and
the seconds that pass between the jobs, Snakemake's own, for each 1,000 images (goal 1). A second call goes on where a
first was stopped.

Figures go to benchmarks/results/at_scale.json, the curve to at_scale.svg.
"""

import argparse
import csv
import json
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import record
import yaml
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
HEIGHT, WIDTH = 375, 500
TRAIN = 10  # images that no stage here looks at
STAGES = ("pack", "cache", "fit", "refine", "score")
SYSTEM = "convcrf_paper_5"
NOISY = {
    "source": "noisy_truth",
    "kind": "probability",
    "cell": 8,
    "keep_probability": 0.8,
    "stride": 8,
    "cache": {"splits": ["val"], "dtype": "float16"},
}


def main():
    """Make the images, run the workflow on more and more of them, keep what its logs and tables say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voc-mini", required=True, type=Path)
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--shards", type=int, default=1)
    args = parser.parse_args()
    if len(args.counts) < 2:
        parser.error("--counts wants two or more, to compare")
    work = args.work.resolve()
    classes = make_images(args.voc_mini, work / "data", max(args.counts) + TRAIN)
    runs = {count: run(work, count, args.shards, classes) for count in args.counts}
    first, last = runs[min(runs)], runs[max(runs)]
    result = {
        "shards": args.shards,
        "peak memory by that of the fewest": {
            stage: last["stages"][stage]["peak, MB"] / first["stages"][stage]["peak, MB"] for stage in STAGES
        },
        "runs": runs,
    }
    name = "at_scale" if args.shards == 1 else f"at_scale_{args.shards}_shards"
    plot(last["stages"], record.RESULTS / f"{name}.svg")
    record.keep(name, record.header() | result)


def make_images(source, folder, count):
    """Write views of the photographs; return the names of their classes."""
    names = sorted(path.stem for path in (source / "SegmentationClass").glob("*.png"))
    for kind in ("photos", "labels"):
        (folder / kind).mkdir(parents=True, exist_ok=True)

    def view(number):
        if (folder / f"labels/{number:05}.png").exists():
            return
        rng = np.random.default_rng(number)
        name = names[number % len(names)]
        image = Image.open(source / "JPEGImages" / f"{name}.jpg").convert("RGB")
        truth = Image.open(source / "SegmentationClass" / f"{name}.png")
        share = rng.uniform(0.6, 1)
        width, height = share * image.width, share * image.height
        left, top = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
        box, mirrored = (left, top, left + width, top + height), rng.integers(2)
        for picture, way, path, options in (
            (image, Image.Resampling.BILINEAR, f"photos/{number:05}.jpg", {"quality": 92}),
            (truth, Image.Resampling.NEAREST, f"labels/{number:05}.png", {}),
        ):
            made = picture.resize((WIDTH, HEIGHT), way, box)
            made = made.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else made
            made.save(folder / path, **options)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(view, range(count)))
    return (source / "classes.txt").read_text(encoding="utf-8").split()


def run(work, count, shards, classes):
    """Run the workflow on so many images, once; return what was seen."""
    folder = work / f"{count}_{shards}"
    told = folder / "told.json"
    if told.exists():
        return json.loads(told.read_text(encoding="utf-8"))
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "config", folder / "config")
    lists = {"train": range(TRAIN), "val": range(TRAIN, TRAIN + count)}
    for split, numbers in lists.items():
        text = "".join(f"{number:05}\n" for number in numbers)
        (folder / f"{split}.txt").write_text(text, encoding="utf-8")
    paths = {"images": "photos/{name}.jpg", "labels": "labels/{name}.png"}
    pack = {
        "reader": "folder",
        "root": str(work / "data"),
        "class_names": classes,
        "splits": {split: paths | {"list": str(folder / f"{split}.txt")} for split in lists},
        "void": [],
        "colours": "none",
        "block_length": 1,
        "trimap": "void",
    }
    (folder / "config/packs/scale.yaml").write_text(yaml.safe_dump(pack), encoding="utf-8")
    (folder / "config/nets/noisy_8.yaml").write_text(yaml.safe_dump(NOISY), encoding="utf-8")
    lines = "pack\tnet\tsystem\tagainst\n" + f"scale\tnoisy_8\tunary\t-\nscale\tnoisy_8\t{SYSTEM}\t-\n"
    (folder / "config/runs/scale.tsv").write_text(lines, encoding="utf-8")
    words = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    words += ["--cores", "2", "--config", "runs=scale", "system_threads=2", f"shards={shards}"]
    words += ["--", f"results/score/scale/noisy_8/{SYSTEM}.h5"]
    started = time.monotonic()
    subprocess.run(words, check=True)
    wall = time.monotonic() - started
    found = seen(folder, count, wall)
    told.write_text(json.dumps(found), encoding="utf-8")
    shutil.rmtree(folder / "results")
    return found


def seen(folder, count, wall):
    """Return what logs, tables of times and the results' sizes say of one run."""
    stages, jobs = {}, []
    for stage in STAGES:
        peaks = [
            float(re.search(r"at most (\d+) MB", path.read_text(encoding="utf-8"))[1])
            for path in (folder / "logs" / stage).rglob("*.log")
        ]
        seconds = []
        for path in (folder / "results" / stage).rglob("*.time.tsv"):
            with path.open(encoding="utf-8") as file:
                seconds += [float(row["s"]) for row in csv.DictReader(file, delimiter="\t")]
        jobs += seconds
        files = [path for path in (folder / "results" / stage).rglob("*") if path.is_file()]
        stages[stage] = {
            "peak, MB": max(peaks),
            "ms an image": 1e3 * sum(seconds) / count,
            "kB an image": sum(path.stat().st_size for path in files) / count / 1e3,
            "MB held after so many images": held(folder / "logs" / stage),
        }
    return {
        "stages": stages,
        "jobs": len(jobs),
        "seconds": wall,
        "Snakemake's own, seconds for 1,000 images": (wall - sum(jobs)) / count * 1000,
    }


def held(folder):
    """Return [images done, MB held] of every line of progress in the logs of one stage, its first shard's alone."""
    logs = sorted(folder.rglob("*.log"))
    told = re.findall(r"(\d+) of \d+ images, (\d+) MB", logs[0].read_text(encoding="utf-8"))
    return [[int(images), int(size)] for images, size in told]


def plot(stages, path):
    """Draw what the stages held over the images they had done."""
    figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
    for stage, found in stages.items():
        if curve := found["MB held after so many images"]:
            axes.plot(*zip(*curve, strict=True), label=stage)
    axes.set(xlabel="images done", ylabel="MB held", ylim=(0, None))
    axes.legend()
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
