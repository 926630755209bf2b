"""All that a GPU is measured by, one part after another, with one command.

    python benchmarks/gpu.py --work DIR [--camvid DIR] [--convcrf CHECKOUT] [--weights NAME=FILE …] [--minutes 9]

The parts are the tests on the GPU, compute-sanitizer, the roofline, the headline table, the stages from end to end
(with `--camvid`), and the tables of docs/gpu.md. Each can be run by itself (`--only`). What is done is not done again;
where a command may last so long and no longer, status 3 says that the same command goes on, until 0 says that all is
done. A part that fails is told and the next one tried; the status is then 1.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import gpu_clock as clock
import gpu_rows
import record
import torch

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
LEAST = 0.5  # minutes in which a part is worth beginning
ON_GPU = "(cuda or gpu) and not cpu and not threads and not compile and not source"  # of the tests' names
COUNTS = re.compile(r"(\d+) (passed|failed|skipped|errors?)")


def main():
    """Run the parts that are left."""
    args = arguments()
    args.work.mkdir(parents=True, exist_ok=True)
    end, failed = time.monotonic() + 60 * args.minutes, []
    for name, part in parts(args).items():
        done = args.work / f"{name}.done"
        if done.is_file() or args.only not in ("", name):
            continue
        if (left := (end - time.monotonic()) / 60) < LEAST:
            return gpu_rows.UNFINISHED
        print(f"== {name}", flush=True)
        status = part(left)
        if status == gpu_rows.UNFINISHED:
            return status
        if status:
            print(f"== {name} failed, status {status}", flush=True)
            failed.append(name)
        else:
            done.touch()
    return int(bool(failed))


def arguments():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in ("--work", "--camvid", "--convcrf"):
        parser.add_argument(option, required=option == "--work", type=lambda text: Path(text).resolve())
    parser.add_argument("--weights", nargs="+", default=[], metavar="NAME=FILE", help="as gpu_end_to_end.py has it")
    parser.add_argument("--minutes", type=float, default=9, help="after which to stop; the same command goes on")
    parser.add_argument("--only", default="", choices=("", *PARTS), help="this part alone")
    return parser.parse_args()


def parts(args):
    """Return the parts by name, each a function of the minutes that are left, which returns an exit status."""

    def script(name, *options):
        def run(minutes):
            work = ("--work", args.work / name, "--minutes", f"{minutes:.2f}")
            return subprocess.run([sys.executable, HERE / f"gpu_{name}.py", *work, *options], check=False).returncode

        return run

    images = ("--images", args.camvid) if args.camvid else ()
    peer = ("--convcrf", args.convcrf) if args.convcrf else ()
    weights = ("--weights", *args.weights) if args.weights else ()
    found = {
        "tests": lambda minutes: tests(args.work, minutes),
        "sanitizer": script("sanitizer"),
        "roofline": script("roofline", *images),
        "headline": script("headline", *images, *peer),
        "end_to_end": script("end_to_end", "--camvid", args.camvid, *weights) if args.camvid else untold,
        "tables": lambda minutes: subprocess.run([sys.executable, HERE / "gpu_tables.py"], check=False).returncode,
    }
    return {name: found[name] for name in PARTS}


PARTS = ("tests", "sanitizer", "roofline", "headline", "end_to_end", "tables")


def untold(minutes):
    """Say what is missing."""
    print("no --camvid: the stages are not run")
    return 1


def tests(work, minutes):
    """Run the tests of the kernels, and those of the stages, on the GPU; keep how many passed, and which failed.

    If the time is over they begin anew with the next command, but compiled kernels are kept.
    """
    report = work / "tests.txt"
    chosen = ("-n", str(min(8, os.cpu_count())), "-rf", "-k", ON_GPU)
    command = [sys.executable, "-m", "pytest", "-q", *chosen, "tests/kernels", "tests/gpu"]
    with report.open("w", encoding="utf-8") as out:
        running = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT)
        try:
            status = running.wait(timeout=60 * minutes)
        except subprocess.TimeoutExpired:
            running.terminate()
            return gpu_rows.UNFINISHED
    lines = report.read_text(encoding="utf-8").splitlines()
    counts = {what: int(count) for count, what in COUNTS.findall(lines[-1] if lines else "")}
    told = {"counts": counts, "failed": [line for line in lines if line.startswith("FAILED")], "last": lines[-1:]}
    print(json.dumps(told, indent=1))
    record.keep("gpu_tests", record.header() | {"device": clock.device_facts(torch.device("cuda", 0))} | told)
    return status


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(ROOT))
    sys.exit(main())
