"""Run every stage, network and system on a GPU, without Snakemake, and keep figures as JSON.

    python benchmarks/gpu_end_to_end.py --camvid DIR --work DIR [--weights RESNET50=resnet50-0676ba61.pth …]

DIR is CamVid in VOC layout; the run table is benchmarks/photographs/runs/gpu.tsv, whose networks have their papers'
schedules, shortened. Without a weight file a network starts from nothing. It takes about twenty minutes of an H200;
where a command may not last that long, --minutes ends it before, with status 3, and the same command goes on with it.
Status 0 says that all is done and kept in benchmarks/results/gpu_end_to_end.json, 2 that a stage failed.

`--quick --backend cpu` tries the same on a CPU, in minutes: images of a quarter of the size, few of them, narrow
networks, few steps. Its figures mean nothing, and stay in the working folder.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import gpu_plan
import keep_run
import numpy as np
import record
import run_photographs as photographs
from PIL import Image

from pipeline.core.settings import ROOT
from pipeline.formats import confusions, tables, weights

RUNS = "gpu"
DONE, FAILED, UNFINISHED = 0, 2, 3
WEIGHTS = ("RESNET50", "RESNET101", "VGG16")  # what stands for a file in the settings of networks
WORKER_ROOM = 128 << 20  # bytes in shared memory that a worker's batches take at most
SCORES_BESIDE = 3  # scores, which take one core, counted while another stage has the GPU
SHOWN = 30  # lines of a failed stage's output
QUICK_IMAGES = {"train": 20, "val": 4}
# What --quick writes into the settings instead, in this order.
QUICK = {
    "nets/gpu_*.yaml": {
        r"width: 1\.0": "width: 0.25",
        r"iterations: \d+": "iterations: 8",
        r"epochs: \d+": "epochs: 2",
        r"batch: \d+": "batch: 2",
        r"crop: \[.*\]": "crop: [72, 96]",
        r"heldout_every: \d+": "heldout_every: 1",
        r"every: \d+": "every: 3",
        r"watched_images: \d+": "watched_images: 2",
    },
    "systems/*.yaml": {
        r"epochs: \d+": "epochs: 1",
        r"images: \d+": "images: 2",
        r"rounds: \d+": "rounds: 1",
        r"halvings: \d+": "halvings: 0",
    },
    "config.yaml": {r"gallery: \d+": "gallery: 2", r"resamples: \d+": "resamples: 100"},
}


def main():
    """Lay out the configuration, run what is left of the plan, collect."""
    args = arguments()
    lay_out(args)
    plan = gpu_plan.Plan(args.work, RUNS, args.backend, args.workers)
    for step in plan.steps:
        print("done " if step.is_done(args.work) else "to do", step.name, flush=True)
    if args.plan:
        return DONE
    status = run(plan.steps, args.work, time.monotonic() + 60 * args.minutes)
    if status == DONE:
        keep(plan, args)
    return status


def arguments():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--camvid", required=True, type=folder)
    parser.add_argument("--work", required=True, type=folder, help="where all is written; another for other settings")
    parser.add_argument("--weights", nargs="+", default=[], type=named_file, metavar="NAME=FILE", help=f"{WEIGHTS}")
    parser.add_argument("--minutes", type=float, default=9, help="after which to stop; the same command goes on")
    parser.add_argument("--backend", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--workers", type=int, default=affordable(), help="that make views; here %(default)s")
    parser.add_argument("--quick", action="store_true", help="only try whether it runs")
    parser.add_argument("--plan", action="store_true", help="only tell what is to be done")
    return parser.parse_args()


def folder(text):
    """Read a path, for an option of the command line."""
    return Path(text).resolve()


def named_file(text):
    """Read NAME=FILE, for an option of the command line."""
    name, _, path = text.partition("=")
    if name not in WEIGHTS or not path:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected NAME=FILE with NAME one of {', '.join(WEIGHTS)}")
    return name, folder(path)


def affordable():
    """Return how many workers to start: one for every core but two, if shared memory holds their batches."""
    return max(0, min(os.cpu_count() - 2, shutil.disk_usage("/dev/shm").free // WORKER_ROOM))


def lay_out(args):
    """Make the working folder's configuration; refuse a folder that has another."""
    args.work.mkdir(parents=True, exist_ok=True)
    camvid = smaller(args.camvid, args.work / "camvid") if args.quick else args.camvid
    photographs.lay_out(argparse.Namespace(camvid=camvid, voc_mini="none", weights="none", work=args.work))
    rewrite(args.work, {"nets/gpu_*.yaml": dict.fromkeys(WEIGHTS, "none") | dict(args.weights)})
    if args.quick:
        rewrite(args.work, QUICK)
    check_same(args)


def rewrite(work, changes):
    """Change settings: of files of a pattern what matches others."""
    for pattern, words in changes.items():
        for path in (work / "config").glob(pattern):
            text = path.read_text(encoding="utf-8")
            for found, new in words.items():
                text = re.sub(rf"\b{found}", str(new), text)
            path.write_text(text, encoding="utf-8")


def check_same(args):
    """End the program if the working folder was begun with other settings: what is there would not be made again."""
    content = hashlib.sha256(args.backend.encode())
    for path in sorted((args.work / "config").rglob("*.*")):
        content.update(path.read_bytes())
    known = args.work / "settings.sha256"
    if known.is_file() and known.read_text(encoding="utf-8") != content.hexdigest():
        print(f"{args.work} was begun with other settings; take another folder", file=sys.stderr)
        sys.exit(FAILED)
    known.write_text(content.hexdigest(), encoding="utf-8")


def smaller(source, target):
    """Write the first images of CamVid at a quarter of their size; return the folder."""
    lists = Path("ImageSets/Segmentation")
    for part in ("JPEGImages", "SegmentationClass", lists):
        (target / part).mkdir(parents=True, exist_ok=True)
    shutil.copy(source / "classes.txt", target)
    for split, count in QUICK_IMAGES.items():
        names = (source / lists / f"{split}.txt").read_text(encoding="utf-8").split()[:count]
        (target / lists / f"{split}.txt").write_text("\n".join(names), encoding="utf-8")
        for name in names:
            for path in (f"JPEGImages/{name}.jpg", f"SegmentationClass/{name}.png"):
                with Image.open(source / path) as picture:
                    size = picture.width // 4, picture.height // 4
                    picture.resize(size, Image.Resampling.NEAREST).save(target / path)
    return target


def run(steps, work, end):
    """Take the steps that are left, one at a time and scores beside them, until the clock's `end`; return a status."""
    left, running, status = [step for step in steps if not step.is_done(work)], [], DONE
    while (left or running) and status == DONE:
        for step in startable(left, running, work):
            left.remove(step)
            running.append(Job(step, work))
        time.sleep(0.05)
        for job in [job for job in running if job.has_ended()]:
            running.remove(job)
            job.tell("done" if job.succeeded() else "failed")
            status = status if job.succeeded() else FAILED
        if time.monotonic() > end and (left or running) and status == DONE:
            status = UNFINISHED
    for job in running:
        job.stop()
        job.tell("stopped")
    if status == UNFINISHED:
        print(f"stopped at the limit with {len(left) + len(running)} of {len(steps)} steps left; run the same again")
    return status


def startable(left, running, work):
    """Return the steps that may start now."""
    ready = [step for step in left if step.can_begin(work)]
    beside = [step for step in ready if step.stage == "score"]
    others = [step for step in ready if step.stage != "score"]
    scoring = sum(job.step.stage == "score" for job in running)
    return beside[: SCORES_BESIDE - scoring] + others[: int(scoring == len(running))]


class Job:
    """A step that runs, in a process group of its own, as it may have started others.

    Parameters
    ----------
    step : gpu_plan.Step
    work : Path
        Its folder, where `logs` keeps what it prints and `journal.jsonl` how long it took.
    """

    def __init__(self, step, work):
        self.step, self.work, self.begun = step, work, time.monotonic()
        self.printed = work / f"logs/{step.name}.out"
        self.printed.parent.mkdir(parents=True, exist_ok=True)
        # Of a killed program the stages end by themselves, as those of a killed Snakemake do.
        paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = os.environ | {"PIPELINE_PARENT": str(os.getpid()), "PYTHONPATH": paths}
        with self.printed.open("w", encoding="utf-8") as out:
            self.process = subprocess.Popen(
                step.command, cwd=work, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )

    def has_ended(self):
        """Whether the process has."""
        return self.process.poll() is not None

    def succeeded(self):
        """Whether it did, with all it was to make."""
        return self.process.returncode == 0 and self.step.is_done(self.work)

    def stop(self):
        """End it as Snakemake would; what it can go on with is there the next time."""
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait()

    def tell(self, ended):
        """Write the journal's line and print one; of a failure what the stage printed last."""
        seconds = round(time.monotonic() - self.begun, 1)
        entry = {"step": self.step.name, "seconds": seconds, "ended": ended}
        with (self.work / "journal.jsonl").open("a", encoding="utf-8") as journal:
            journal.write(json.dumps(entry) + "\n")
        print(f"{seconds:7.1f} s  {ended:7}  {self.step.name}", flush=True)
        if ended == "failed":
            print(f"status {self.process.returncode} of: {self.step}")
            lines = self.printed.read_text(encoding="utf-8", errors="replace").splitlines()
            print("\n".join(lines[-SHOWN:]), flush=True)


def keep(plan, args):
    """Write what came out of it: beside the other measurements, or of a quick one into the working folder."""
    results = args.work / "results"
    histories = {name: args.work / path for name, path in plan.histories().items()}
    stamps = {name: weights.read_stamp(path.with_suffix(".safetensors")) for name, path in histories.items()}
    scored = {f"{row.net}/{row.system}": row for row in plan.rows}
    result = record.header() | {
        "device": sorted({stamp["device"] for stamp in stamps.values()}),
        "weights": {name: path.name for name, path in args.weights},
        "workers": args.workers,
        "seconds": seconds(args.work),
        "networks": {name: keep_run.trained(path) for name, path in histories.items()},
        "fine-tuning": {name: stamp["change"] for name, stamp in stamps.items() if "change" in stamp},
        "fitted": {name: keep_run.numbers(row.fitted(results)) for name, row in scored.items()},
        "seconds per image": {name: spread(row.score(results)) for name, row in scored.items()},
        "rows": tables.read(results / f"aggregate/{RUNS}.tsv")[0],
    }
    if args.quick:
        (args.work / "gpu_end_to_end.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    else:
        record.keep("gpu_end_to_end", result)


def seconds(work):
    """Return how long each step took, in all its runs."""
    spent = {}
    for line in (work / "journal.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        spent[entry["step"]] = round(spent.get(entry["step"], 0) + entry["seconds"], 1)
    return spent


def spread(path):
    """Return least, median and greatest seconds that refining took, of the images behind a score."""
    score = confusions.Score(path)
    found = np.quantile(score.per_image("seconds"), [0, 0.5, 1])
    score.close()
    return {name: round(float(value), 5) for name, value in zip(("least", "median", "most"), found, strict=True)}


if __name__ == "__main__":
    sys.exit(main())
