"""Run every CUDA kernel, forward and backward, on small images under NVIDIA's compute-sanitizer; keep what it says.

    python benchmarks/gpu_sanitizer.py --work DIR [--minutes 8]

Its four tools look for accesses out of bounds (memcheck), races in shared memory (racecheck), memory that is read
before it is written (initcheck) and barriers that some threads do not reach (synccheck). PyTorch is told to ask the
driver for every tensor by itself, so that memory beyond one is no other's. What a tool said stays in `--work`; what is
interrupted goes on, status 3 says that it must. Errors by tool go to benchmarks/results/gpu_sanitizer.json. `--cases`
runs the cases alone, `--cases --device cpu` our CPU code on them.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import gpu_rows
import record

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
SUMMARY = re.compile(r"(?:ERROR|RACECHECK) SUMMARY: (.*)")
COUNT = re.compile(r"(\d+) (?:error|hazard)")


def main():
    """Run the tools, or as what one of them watches the cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="needed unless the cases are run")
    parser.add_argument("--minutes", type=float, default=8.0, help="after which no further tool is begun")
    parser.add_argument("--cases", action="store_true", help="only run the cases")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="of the cases")
    args = parser.parse_args()
    if args.cases:
        return cases(args.device)
    if args.work is None:
        parser.error("--work is missing")
    if (program := shutil.which("compute-sanitizer")) is None:
        parser.error("compute-sanitizer is not on the PATH; it comes with the CUDA toolkit")
    args.work.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * args.minutes
    for tool in TOOLS:
        if not log(args.work, tool).is_file():
            if time.monotonic() > end:
                return gpu_rows.UNFINISHED
            watch(program, tool, args.work)
    found = {tool: told(log(args.work, tool).read_text(encoding="utf-8")) for tool in TOOLS}
    record.keep("gpu_sanitizer", record.header() | found)
    return int(any(each["errors"] != 0 for each in found.values()))


def log(work, tool):
    """Return where what a tool said is kept."""
    return work / f"{tool}.log"


def watch(program, tool, work):
    """Run the cases under one tool."""
    alone = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1", "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests")))}
    command = [program, "--tool", tool, sys.executable, __file__, "--cases"]
    print(f"{tool} …", flush=True)
    partial = work / f"{tool}.partial"
    with partial.open("w", encoding="utf-8") as out:
        subprocess.run(command, env=os.environ | alone, stdout=out, stderr=subprocess.STDOUT, check=False)
    partial.replace(log(work, tool))
    print(f"{tool}: {told(log(work, tool).read_text(encoding='utf-8'))}", flush=True)


def told(text):
    """Return how many errors a tool counted, None if it came to no end, its summary and the cases that ran."""
    found = SUMMARY.search(text)
    summary = found.group(1) if found else text.strip().splitlines()[-1] if text.strip() else ""
    count = COUNT.search(summary)
    errors = int(count.group(1)) if found and count else None
    ran = re.search(r"(\d+) cases ran", text)
    return {"errors": errors, "summary": summary, "cases": int(ran.group(1)) if ran else 0}


def cases(device):
    """Run every kernel on small images, gradients included."""
    import agreement
    import calls
    import torch

    from pipeline.algorithms import dual_mm
    from pipeline.kernels.all_pairs import all_pairs
    from pipeline.kernels.potts_chains import Edges

    backend, count = ("cuda" if device == "cuda" else "cpu"), 0
    for name, kernel in calls.KERNELS.items():
        for tensors, options, layout in calls.cases(name):
            agreement.run(kernel, backend, tensors, options, dtype=torch.float32, layout=layout)
            count += 1
    values, features = torch.rand(1, 21, 9, 31, device=device), torch.randn(1, 5, 9, 31, device=device)
    edges = Edges(torch.rand(1, 9, 30, device=device), torch.rand(1, 8, 31, device=device))
    dual_mm.solve(values, edges, iterations=2, sweeps=1, backend=backend)
    all_pairs(values.requires_grad_(), features, precision="tf32", backend=backend).sum().backward()
    if device == "cuda":
        torch.cuda.synchronize()
    print(f"{count + 2} cases ran")
    return 0


if __name__ == "__main__":
    sys.exit(main())
