"""All that a GPU is measured by, one part after another, with one command.

    python benchmarks/gpu.py --work DIR --camvid DIR [--convcrf CHECKOUT] [--weights NAME=FILE …] [--minutes 7]

The parts are the tests on the GPU, compute-sanitizer, the roofline, the headline table, and the stages from end to end,
for which `--camvid` is needed; after them the tables of docs/gpu.md are written. Each can be run by itself (`--only`).
What is done, or has failed, is not done again by a further command. Where a command may last so long and no longer
(two minutes more than `--minutes`), status 3 says that the same one goes on. In the end the status is 0, or 1 if a part
failed.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
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
    end = time.monotonic() + 60 * args.minutes
    wanted = {name: part for name, part in parts(args).items() if args.only in ("", name)}
    for name, part in wanted.items():
        status = ended(args.work, name)
        if status.is_file() and not args.only:
            continue
        if (left := (end - time.monotonic()) / 60) < LEAST:
            return gpu_rows.UNFINISHED
        print(f"== {name}", flush=True)
        if (code := part(left)) == gpu_rows.UNFINISHED:
            return code
        status.write_text(str(code), encoding="ascii")
    subprocess.run([sys.executable, HERE / "gpu_tables.py"], check=True)
    failed = [name for name in wanted if ended(args.work, name).read_text(encoding="ascii") != "0"]
    if failed:
        print(f"failed: {', '.join(failed)}; again with --only")
    return int(bool(failed))


def arguments():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in ("--work", "--camvid", "--convcrf"):
        parser.add_argument(option, required=option != "--convcrf", type=lambda text: Path(text).resolve())
    parser.add_argument("--weights", nargs="+", default=[], metavar="NAME=FILE", help="as gpu_end_to_end.py has it")
    parser.add_argument("--minutes", type=float, default=7, help="after which nothing further is begun")
    parser.add_argument("--only", default="", choices=("", *PARTS), help="this part alone")
    return parser.parse_args()


PARTS = ("tests", "sanitizer", "roofline", "headline", "end_to_end")


def parts(args):
    """Return the parts by name, each a function of the minutes that are left, which returns an exit status."""
    images, camvid = ("--images", args.camvid), ("--camvid", args.camvid)
    options = {
        "sanitizer": (),
        "roofline": images,
        "headline": (*images, *(("--convcrf", args.convcrf) if args.convcrf else ())),
        "end_to_end": (*camvid, *(("--weights", *args.weights) if args.weights else ())),
    }
    scripts = {name: partial(script, args.work, name, given) for name, given in options.items()}
    return {"tests": partial(tests, args.work)} | scripts


def ended(work, name):
    """Return the file that holds with which status a part ended."""
    return work / f"{name}.status"


def script(work, name, options, minutes):
    """Run one of the other scripts in a folder of its own."""
    command = [sys.executable, HERE / f"gpu_{name}.py", "--work", work / name, "--minutes", f"{minutes:.2f}", *options]
    return subprocess.run(command, check=False).returncode


def tests(work, minutes):
    """Run the tests of the kernels, and those of the stages, on the GPU; keep how many passed, and which failed."""
    report = work / "tests.txt"
    chosen = ("-n", str(min(8, os.cpu_count())), "-rf", "-k", ON_GPU)
    command = [sys.executable, "-m", "pytest", "-q", *chosen, "tests/kernels", "tests/gpu"]
    with report.open("w", encoding="utf-8") as out:
        running = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            status = running.wait(timeout=60 * minutes)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
            print(f"the tests took more than {minutes:.1f} minutes; kernels that were compiled are kept")
            return 1
    lines = report.read_text(encoding="utf-8").splitlines()
    counts = {what: int(count) for count, what in COUNTS.findall(lines[-1] if lines else "")}
    told = {"counts": counts, "failed": [line for line in lines if line.startswith("FAILED")], "last": lines[-1:]}
    print(json.dumps(told, indent=1))
    record.keep("gpu_tests", record.header() | {"device": clock.device_facts(torch.device("cuda", 0))} | told)
    return status


if __name__ == "__main__":
    sys.exit(main())
