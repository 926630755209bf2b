"""Hold every CUDA kernel to what it must move and work out at least, and to what the GPU does at most.

    python benchmarks/gpu_roofline.py --work DIR [--images DIR] [--minutes 8]

Our contestants of gpu_headline.py are run, with `source.launch` wrapped: each launch is timed by CUDA events, behind a
pause that lets the host run ahead, and its arguments tell what it needs (gpu_needs.py). Told are, by kernel and call of
a system, bytes and operations, time, rates, the ceiling that limits it (gpu_clock.py) and the share of that which is
reached. What is interrupted goes on as gpu_headline.py does; figures and goals go to
benchmarks/results/gpu_roofline.json. With `--device cpu` nothing is timed: no kernel runs, and the needs are printed.
"""

import argparse
import statistics
import sys
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from unittest import mock

import gpu_clock as clock
import gpu_contestants as who
import gpu_goals
import gpu_rows
import record
import torch
from gpu_headline import SIZES, SMALL, about, made_of, sets_of
from gpu_needs import NEEDS, launched, needed

from pipeline.kernels import all_pairs as pairs
from pipeline.kernels import (
    blurred_update,
    lattice_mean_field,
    mean_field_update,
    permutohedral,
    potts_chains,
    source,
    spatial_gaussian,
    window,
)
from pipeline.kernels.permutohedral import reference as lattices

PACKAGES = (
    pairs, blurred_update, lattice_mean_field, mean_field_update, permutohedral, potts_chains, spatial_gaussian, window
)  # fmt: skip
PAUSE = 200_000  # clocks of the GPU before each launch that is timed, about a tenth of a millisecond
CALLS, FEW_CALLS = 20, 2
UNITS = ("bytes", "float32", "tf32", "special")  # those with a ceiling
LEARNT = dict.fromkeys(("appearance_weight", "smoothness_weight", "theta_alpha", "theta_beta", "theta_gamma"), 1)


def main():
    """Measure what is not there yet, or print the needs; when all is there, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--images", type=lambda text: Path(text).resolve())
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--size", action="append", help=f"HxWxC, any number of times; without it {' and '.join(SIZES)}")
    parser.add_argument("--minutes", type=float, default=7.0, help="after which no further row is begun")
    args = parser.parse_args()
    device = clock.chosen(args.device)
    sizes = args.size or SIZES
    if device.type == "cpu":
        for size in sizes:
            for row in needs(size, args.images):
                print(f"{row['name']}: {row['launches']} launches, {row['needs']}")
        return 0
    if args.work is None:
        parser.error("--work is needed to measure")
    rows = {"about": partial(about, device)}
    for size in sizes:
        shape = shape_of(size)
        rows |= {f"{size}, {name}": partial(measured, case, shape, args, device) for name, case in cases(shape).items()}
    gpu_rows.require(args.work, "about", rows["about"], made_of(args))
    if not gpu_rows.measure(rows, args.work, args.minutes):
        return gpu_rows.UNFINISHED
    record.keep("gpu_roofline", assembled({name: gpu_rows.read(args.work, name) for name in rows}))
    return 0


def shape_of(size):
    """Return H, W and C of a size as text."""
    return tuple(map(int, size.split("x")))


def cases(shape):
    """Return calls by name: each takes a device, and gives a function of a Given and whether it takes long."""
    classes, small = shape[2], who.pixels(shape) <= SMALL

    def refining(make, **changed):
        return lambda device: who.refinement(make(classes, device, **changed))

    def training(device):
        model = who.convcrf(classes, device, preset="convcrf", fit={"parameters": LEARNT})
        return who.step(model.train())

    found = {
        "convcrf 11, blur 4": refining(who.convcrf, filter_size=11, blur=4),
        "convcrf 7, blur 1": refining(who.convcrf, filter_size=7, blur=1),
        "convcrf 11, blur 4, a training step": training,
        "fullcrf, two lattices": refining(who.fullcrf, preset="fullcrf_densecrf"),
        "fullcrf, window and separable": refining(
            who.fullcrf, preset="fullcrf_densecrf", filter="window", smoothness="separable"
        ),
        "hybrid, 15 iterations and a sweep": lambda device: who.solution(who.hybrid(classes, device, "hybrid")),
    }
    found |= {f"exact filter, {each}": partial(filtering, classes, each) for each in ("float32", "tf32")}
    return found | ({"exact filter, gradient": partial(filtering, classes, "gradient")} if small else {})


def filtering(classes, precision, device):
    """One filtering with the exact kernel, or its gradient to the features alone."""
    model = who.fullcrf(classes, device, "fullcrf_exact")

    def call(one):
        values, features = who.exactly(model, one)
        if precision != "gradient":
            return pairs.all_pairs(values, features, precision=precision)
        moving = features.clone().requires_grad_()
        return torch.autograd.grad(pairs.all_pairs(values, moving).sum(), moving)

    return call


class Recorder:
    """In the place of `source.launch`: notes every launch; on a GPU runs it, with events around."""

    def __init__(self, device):
        self.launches, self.spans = [], []
        self.device, self.really = device, source.launch

    def __call__(self, file, kernel, grid, block, *arguments, **constants):
        launch = launched(file, kernel, arguments, constants)
        self.launches.append(launch)
        if self.device.type == "cpu":
            pretend(launch, arguments)
            return
        events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        torch.cuda._sleep(PAUSE)  # else the time would be the host's, which asks for events and kernel meanwhile
        events[0].record()
        self.really(file, kernel, grid, block, *arguments, **constants)
        events[1].record()
        self.spans.append(events)

    def by_kernel(self):
        """Return by file and kernel the launches since the last time, and their ms together."""
        if self.device.type == "cuda":
            clock.wait(self.device)
        found = {}
        for number, launch in enumerate(self.launches):
            each = found.setdefault((launch.file, launch.kernel), {"launches": [], "ms": 0.0})
            each["launches"].append(launch)
            if self.spans:
                start, end = self.spans[number]
                each["ms"] += start.elapsed_time(end)
        self.launches, self.spans = [], []
        return found


def pretend(launch, arguments):
    """Fill what a kernel would write: with zeros, but pixels find their vertices, since sizes rest on those."""
    given = dict(zip(launch.arrays, (x for x in arguments if isinstance(x, torch.Tensor)), strict=True))
    for name, array in launch.arrays.items():
        if array.written:
            given[name].zero_()
    if launch.kernel == "embed":
        for keys, features in zip(given["keys"], given["features"], strict=True):
            keys.copy_(lattices.build(features.T).cells.flatten())


@contextmanager
def recorded(device):
    """Give a Recorder that takes the launches; on the CPU calls are led to it as if they ran on a GPU."""
    with ExitStack() as stack:
        recorder = Recorder(device)
        stack.enter_context(mock.patch.object(source, "launch", recorder))
        for package in PACKAGES if device.type == "cpu" else ():
            stack.enter_context(mock.patch.dict(package.REFUSALS, {"cuda": lambda *tensors: None}))
        yield recorder


def needs(size, images=None):
    """Return what every kernel needs in each call of a system, without running any."""
    device, shape = torch.device("cpu"), shape_of(size)
    one = who.on_device(who.source(shape, images), device)
    found = []
    with recorded(device) as recorder:
        for name, case in cases(shape).items():
            case(device)(one)
            kernels = recorder.by_kernel().items()
            found += [summary(f"{size}, {name}", key, each["launches"]) for key, each in kernels]
    return found


def summary(name, key, launches):
    """Return one row: a kernel's launches in one call and what they need together."""
    total = {}
    for launch in launches:
        for unit, amount in needed(launch).items():
            total[unit] = total.get(unit, 0) + amount
    file, kernel = key
    told = {"name": f"{name}: {kernel}", "file": file, "kernel": kernel, "launches": len(launches), "needs": total}
    return told | ({"serial": True} if NEEDS[key].serial else {})


def measured(case, shape, args, device):
    """Time one call's kernels on sets of inputs that no cache holds."""
    sets = sets_of(1, shape, args, device)
    call = case(device)
    call(sets[0])  # compiles
    clock.wait(device)
    with recorded(device) as recorder:
        call(sets[0])
        first = recorder.by_kernel()
        long = sum(each["ms"] for each in first.values()) > 200
        runs = {key: [] for key in first}
        for number in range(FEW_CALLS if long else CALLS):
            call(sets[number % len(sets)])
            for key, each in recorder.by_kernel().items():
                runs[key].append(each["ms"])
    rows = []
    for key, each in first.items():
        low, median, high = statistics.quantiles(runs[key], n=4, method="inclusive")
        rows.append(summary("", key, each["launches"]) | {"ms": median, "quartiles_ms": [low, high]})
    return {"kernels": rows}


def assembled(found):
    """Return the result: what it was made with, a row for each kernel and call with its share of the ceiling, goals."""
    header = {key: value for key, value in found["about"].items() if key not in ("name", "row_s")}
    rows = []
    for name, row in found.items():
        if "error" in row:
            rows.append({"name": name, "error": row["error"]})
        for kernel in row.get("kernels", ()):
            rows.append(kernel | {"name": f"{name}: {kernel['kernel']}"} | held(kernel, header["ceilings"]))
    return header | {"goals": gpu_goals.judged(gpu_goals.ROOFLINE, rows), "rows": rows}


def held(row, ceilings):
    """Return the rates of a row, the unit whose ceiling takes the longest for its needs, and the share reached."""
    rates = {unit: 1e3 * amount / row["ms"] for unit, amount in row["needs"].items()}
    least = {
        unit: 1e3 * row["needs"][unit] / ceilings[unit] for unit in UNITS if row["needs"].get(unit) and ceilings[unit]
    }
    unit = max(least, key=least.get)
    limit = "chain" if row.get("serial") else unit
    return {"per_s": rates, "limit": limit, "needed_ms": least[unit], "share": least[unit] / row["ms"]}


if __name__ == "__main__":
    sys.exit(main())
