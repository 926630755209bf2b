"""Time the refinements on one GPU, beside their peers there and beside what the papers state, and check what they give.

    python benchmarks/gpu_headline.py --work DIR [--convcrf CHECKOUT] [--images DIR] [--minutes 8]

CHECKOUT is the ConvCRF authors' repository; `--images` a folder in VOC layout with a classes.txt, without which a made
picture is taken. Unaries are labels, blurred and spoilt with noise (arXiv:1805.04777); a call goes from image and log p
on the device to scores there. Every row is kept in `--work` as soon as it is there; exit status 3 says that the time is
over, and that the same command goes on. When all rows are there, figures and goals go to
benchmarks/results/gpu_headline.json; with `--device cpu`, which tries the script out, into `--work`. How times are
taken is told in gpu_clock.py, who is timed in gpu_contestants.py, what is hoped for in gpu_goals.py.
"""

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

import gpu_clock as clock
import gpu_contestants as who
import gpu_difnet
import gpu_goals
import gpu_rows
import record
import torch

from pipeline.core import closure
from pipeline.kernels.all_pairs import all_pairs

SIZES = ("375x500x21", "1024x2048x19")  # rows x columns x classes: PASCAL VOC, Cityscapes
WINDOWS = (5, 7, 11, 13, 15)
IN_A_BATCH = 8
LEAST_CALLS = 20
SMALL = 250_000  # pixels, beyond which what is quadratic is timed once, and little is compared with float64
MODULES = tuple(f"pipeline.systems.{name}" for name in ("convcrf", "fullcrf", "crfrnn", "hybrid")) + (
    "pipeline.nets.difnet",
)


class Ours(NamedTuple):
    """One of our contestants at one size."""

    make: callable  # () -> model
    run: callable = who.refinement  # model -> function of a Given
    check: callable = who.against_double  # model, run, Given, whether it is small -> figures
    images: int = 1  # a call
    once: bool = False


def main():
    """Measure what is not there yet; when all is there, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in ("--work", "--convcrf", "--images"):
        parser.add_argument(option, type=lambda text: Path(text).resolve(), required=option == "--work")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--size", action="append", help=f"HxWxC, any number of times; without it {' and '.join(SIZES)}")
    parser.add_argument("--difnet", type=int, default=gpu_difnet.SIDE, help="side of DifNet's image, px")
    parser.add_argument("--only", default="", help="only rows whose name holds this")
    parser.add_argument("--seconds", type=float, default=0.3, help="of each way to time a row")
    parser.add_argument("--minutes", type=float, default=7.0, help="after which no further row is begun")
    args = parser.parse_args()
    device = clock.chosen(args.device)
    every = rows(args, device)
    gpu_rows.require(args.work, "about", every["about"], made_of(args))
    wanted = {name: row for name, row in every.items() if args.only in name or name == "about"}
    if not gpu_rows.measure(wanted, args.work, args.minutes):
        return gpu_rows.UNFINISHED
    found = {name: gpu_rows.read(args.work, name) for name in every}
    if missing := [name for name, row in found.items() if row is None]:
        print(f"{len(missing)} rows are not there yet; without --only they are measured, and all are put together")
        return 0
    keep(assembled(found), args.work, device)
    return 0


def rows(args, device):
    """Return every row by name: the timed ones first, since launches may be slower once the profiler has run."""
    timing, kernels = {"about": partial(about, device)}, {}
    for size in args.size or SIZES:
        shape = tuple(map(int, size.split("x")))
        for name, one in ours(shape, device).items():
            timing[f"{size}, {name}"] = partial(timed, one, shape, args, device)
            if not one.once:
                kernels[f"kernels of {size}, {name}"] = partial(profiled, one, shape, args, device)
        for name, row in (filters(shape, args, device) | peers(shape, args, device)).items():
            timing[f"{size}, {name}"] = row
    walks, their_kernels = gpu_difnet.rows(args.difnet, device, args.seconds)
    return timing | walks | kernels | their_kernels


def about(device):
    """Return date, versions, the device and what it does at most."""
    return record.header() | {"device": clock.device_facts(device), "ceilings": clock.ceilings(device)}


def made_of(args):
    """Return what all rows of a folder share."""
    return {
        "source": closure.source_hash(*MODULES),
        "images": args.images.name if args.images else None,
    }


def ours(shape, device):
    """Return our contestants by name."""
    classes, found = shape[2], {}
    of = {"classes": classes, "device": device}
    for blur in (4, 1):
        for window in WINDOWS:
            make = partial(who.convcrf, **of, filter_size=window, blur=blur)
            found[f"convcrf {window}, blur {blur}"] = Ours(make, check=who.against_double_and_cpu)
    lattices = partial(who.fullcrf, **of, preset="fullcrf_densecrf")
    separable = partial(lattices, smoothness="separable")
    found |= {"fullcrf, two lattices": Ours(lattices), "fullcrf, lattice and separable": Ours(separable)}
    for name in ("convcrf 11, blur 4", "convcrf 7, blur 1", "fullcrf, lattice and separable"):
        found[f"{name}, {IN_A_BATCH} images a call"] = found[name]._replace(images=IN_A_BATCH, check=who.unchecked)
    once = who.pixels(shape) > SMALL
    for precision, kind in (("float32", "exact"), ("tf32", "exact_tf32")):
        make = partial(who.fullcrf, **of, preset="fullcrf_exact", filter=kind)
        found[f"fullcrf, exact, {precision}"] = Ours(
            make, check=who.unchecked if once else who.against_double, once=once
        )
    found["crfrnn, training step"] = Ours(partial(who.crfrnn, **of), who.step, who.gradient_against_double)
    for name, preset in (("", "hybrid_paper"), (" and a sweep", "hybrid")):
        make = partial(who.hybrid, **of, preset=preset)
        found[f"hybrid, 15 iterations{name}"] = Ours(make, who.solution, who.solved)
    return found


def filters(shape, args, device):
    """Return the rows of one filtering with the exact kernel, ours and the peers', by name."""
    ways = {f"exact filter, {each}": partial(all_pairs, precision=each) for each in ("float32", "tf32")}
    ways |= {"exact filter, torch in blocks": who.in_blocks, "exact filter, KeOps": who.keops}
    return {name: partial(filtered, way, shape, args, device) for name, way in ways.items()}


def peers(shape, args, device):
    """Return the rows of the other peers by name."""
    found = {}
    for blur in (4, 1):
        for window in WINDOWS:
            sizes = {"filter_size": window, "blur": blur}
            found[f"reference convcrf {window}, blur {blur}"] = partial(released, sizes, shape, args, device)
    return found | {"pydensecrf, on the CPU": partial(dense, shape, args, device)}


def sets_of(images, shape, args, device, count=None):
    """Return so many sets of inputs; without a number so many that no cache holds them."""
    one = who.batch(who.on_device(who.source(shape, args.images), device), images)
    count = count or clock.input_sets(sum(tensor.nbytes for tensor in one), device)
    return [who.moved(one, number) for number in range(count)]


def timed(one, shape, args, device):
    """Time one of ours, and check what it gives for the first input."""
    model = one.make()
    call = one.run(model)
    sets = sets_of(one.images, shape, args, device, 1 if one.once else None)
    if one.once:
        call(who.corner(sets[0]))  # compiles what the call needs
    calls = [partial(call, given) for given in sets]
    found = clock.timed(calls, device, args.seconds, LEAST_CALLS, once=one.once)
    found |= gpu_rows.checks(lambda: one.check(model, one.run, sets[0], who.pixels(shape) <= SMALL))
    return found | {"images": one.images}


def profiled(one, shape, args, device):
    """Return the time of one contestant's kernels."""
    call = one.run(one.make())
    return clock.kernels([partial(call, given) for given in sets_of(one.images, shape, args, device)], device)


def filtered(way, shape, args, device):
    """Time one filtering with the appearance kernel of `fullcrf_exact`, and tell how far it is from float64."""
    once = who.pixels(shape) > SMALL
    model = who.fullcrf(shape[2], device, "fullcrf_exact")
    sets = [who.exactly(model, given) for given in sets_of(1, shape, args, device, 1 if once else None)]
    if once:
        way(*(tensor[..., :64, :64].contiguous() for tensor in sets[0]))
    with torch.inference_mode():
        found = clock.timed([partial(way, *each) for each in sets], device, args.seconds, LEAST_CALLS, once=once)
        return found | gpu_rows.checks(lambda: {"far_from_float64": who.exact_error(*sets[0], way(*sets[0]))})


def released(sizes, shape, args, device):
    """Time the ConvCRF authors' code, and compare its labels with ours."""
    call = who.reference(args.convcrf, shape, device, **sizes)
    sets = sets_of(1, shape, args, device)
    found = clock.timed([partial(call, given) for given in sets], device, args.seconds, LEAST_CALLS)
    own = who.refinement(who.convcrf(shape[2], device, **sizes))
    return found | gpu_rows.checks(lambda: {"labels_as_ours": who.equal_labels(call(sets[0]), own(sets[0]))})


def dense(shape, args, device):
    """Time pydensecrf, on one thread of the CPU as always, and compare its labels with ours."""
    source = who.source(shape, args.images)
    call = who.pydensecrf(source)
    found = clock.timed([call], torch.device("cpu"), args.seconds, 3, once=who.pixels(shape) > SMALL)
    own = who.refinement(who.fullcrf(shape[2], device, "fullcrf_densecrf"))

    def compared():
        theirs = torch.from_numpy(call())[None]
        return {"labels_as_ours": who.equal_labels(theirs, own(who.on_device(source, device)))}

    return found | gpu_rows.checks(compared)


def assembled(found):
    """Return the result of all rows: what it was made with, the rows with their kernels, the goals."""
    kernels = {name.removeprefix("kernels of "): row for name, row in found.items() if name.startswith("kernels of ")}
    told = []
    for name, row in found.items():
        if name == "about" or name.startswith("kernels of "):
            continue
        profiled = kernels.get(name, {})
        more = {} if "error" in profiled else profiled
        more = {key: value for key, value in more.items() if key not in ("name", "row_s", "tries")}
        paper = gpu_goals.PAPER.get(name)
        told.append(row | more | ({"paper": paper} if paper else {}))
    header = {key: value for key, value in found["about"].items() if key not in ("name", "row_s")}
    return header | {"goals": gpu_goals.judged(gpu_goals.HEADLINE, told), "rows": told}


def keep(result, work, device):
    """Write the result where it belongs."""
    if device.type == "cuda":
        record.keep("gpu_headline", result)
        return
    path = work / "gpu_headline.json"
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(path)


if __name__ == "__main__":
    sys.exit(main())
