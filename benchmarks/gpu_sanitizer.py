"""Run every CUDA kernel, forward and backward, on small images under NVIDIA's compute-sanitizer; keep what it says.

    python benchmarks/gpu_sanitizer.py --work DIR [--minutes 8]

Its four tools look for accesses out of bounds (memcheck), races in shared memory (racecheck), memory that is read
before it is written (initcheck) and barriers that some threads do not reach (synccheck). PyTorch is told to ask the
driver for every tensor by itself, so that memory beyond one is no other's. Tool by tool and kernel by kernel; what was
said stays in `--work`, what is interrupted goes on, status 3 says that it must. Errors go to
benchmarks/results/gpu_sanitizer.json. `--cases NAME` runs one kernel's cases by themselves, with `--device cpu` by our
CPU code.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import gpu_rows
import record
import torch

from pipeline.algorithms import dual_mm
from pipeline.kernels.all_pairs import all_pairs
from pipeline.kernels.potts_chains import Edges

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests"))  # whose calls of the kernels these are
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
SUMMARY = re.compile(r"(?:ERROR|RACECHECK) SUMMARY: (.*)")
COUNT = re.compile(r"(\d+) (?:error|hazard)")


def main():
    """Run the tools, or as what one of them watches the cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="needed unless the cases are run")
    parser.add_argument("--minutes", type=float, default=8.0, help="after which nothing further is begun")
    parser.add_argument("--cases", metavar="NAME", help="only run the cases of one kernel")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="of the cases")
    args = parser.parse_args()
    if args.cases:
        return run(args.cases, args.device)
    if args.work is None:
        parser.error("--work is missing")
    if (program := shutil.which("compute-sanitizer")) is None:
        parser.error("compute-sanitizer is not on the PATH; it comes with the CUDA toolkit")
    args.work.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * args.minutes
    found = {}
    for tool in TOOLS:
        for name in cases():
            log = args.work / f"{tool}, {name}.log"
            if not log.is_file():
                if time.monotonic() > end:
                    return gpu_rows.UNFINISHED
                watch(program, tool, name, log)
            found.setdefault(tool, {})[name] = told(log.read_text(encoding="utf-8"))
    record.keep("gpu_sanitizer", record.header() | found)
    every = [each for tool in found.values() for each in tool.values()]
    return int(any(each["errors"] != 0 or not each["cases"] for each in every))


def watch(program, tool, name, log):
    """Run a kernel's cases under one tool."""
    paths = (str(ROOT), str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")]))
    alone = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1", "PYTHONPATH": os.pathsep.join(paths)}
    command = [program, "--tool", tool, sys.executable, __file__, "--cases", name]
    beside = log.with_suffix(".partial")
    with beside.open("w", encoding="utf-8") as out:
        subprocess.run(command, env=os.environ | alone, stdout=out, stderr=subprocess.STDOUT, check=False)
    beside.replace(log)
    print(f"{tool}, {name}: {told(log.read_text(encoding='utf-8'))}", flush=True)


def told(text):
    """Return how many errors a tool counted, None if it came to no end, its summary and the cases that ran."""
    found = SUMMARY.search(text)
    summary = found.group(1) if found else text.strip().splitlines()[-1] if text.strip() else ""
    count = COUNT.search(summary)
    errors = int(count.group(1)) if found and count else None
    ran = re.search(r"(\d+) cases ran", text)
    return {"errors": errors, "summary": summary, "cases": int(ran.group(1)) if ran else 0}


def cases():
    """Return all cases by name, each a function of a backend's name and its device."""
    import calls  # of the tests

    return {name: partial(called, name) for name in calls.KERNELS} | {"DualMM": solved, "all_pairs in ten bits": short}


def called(name, backend, device):
    """Run one of the tests' kernels, and its gradients, on all its usual shapes."""
    import agreement
    import calls

    for tensors, options, layout in calls.cases(name):
        agreement.run(calls.KERNELS[name], backend, tensors, options, dtype=torch.float32, layout=layout)
        yield


def solved(backend, device):
    """Solve a small Potts grid."""
    edges = Edges(torch.rand(1, 9, 30, device=device), torch.rand(1, 8, 31, device=device))
    dual_mm.solve(torch.rand(1, 21, 9, 31, device=device), edges, iterations=2, sweeps=1, backend=backend)
    yield


def short(backend, device):
    """Filter exactly on tensor cores."""
    values, features = torch.rand(1, 21, 9, 31, device=device), torch.randn(1, 5, 9, 31, device=device)
    all_pairs(values.requires_grad_(), features, precision="tf32", backend=backend).sum().backward()
    yield


def run(name, device):
    """Run the cases of one name and count them."""
    count = sum(1 for _ in cases()[name](device, device))
    if device == "cuda":
        torch.cuda.synchronize()
    print(f"{count} cases ran")
    return 0


if __name__ == "__main__":
    sys.exit(main())
