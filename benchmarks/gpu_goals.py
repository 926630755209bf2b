"""What the papers state, what is hoped for on an NVIDIA H200, and whether the rows of a measurement meet it."""

from typing import NamedTuple

TABLE_1 = "arXiv:1805.04777, Table 1"
TABLE_4 = "DifNet (NeurIPS 2018), Table 4"
PASCAL, DIFNET = "375x500x21", "505x505x21"
# ms: images of PASCAL VOC in full resolution, five iterations; ConvCRF with its blur of 4, as the text has it.
PAPER = {
    f"{PASCAL}, convcrf {window}, blur 4": {"ms": ms, "on": "GeForce GTX 1080 Ti", "source": TABLE_1}
    for window, ms in {5: 7, 7: 13, 11: 26, 13: 34, 15: 45}.items()
}
PAPER[f"{PASCAL}, fullcrf, two lattices"] = {"ms": 647, "on": "Xeon E5-2630", "source": TABLE_1}
PAPER |= {
    f"{DIFNET}, {part}": {"ms": ms, "on": "GeForce GTX 1080", "source": TABLE_4}
    for part, ms in {"seed branch": 18, "similarity branch": 15, "five walks": 6, "Sim-Deeplab-101": 36}.items()
}
REFINEMENTS = ("convcrf", "fullcrf", "hybrid")
ENOUGH_MS = 0.01  # of a kernel at the ceilings: what is shorter says more about launches than about memory


class Goal(NamedTuple):
    """One goal: a figure of the rows, and what it is to be."""

    text: str
    figure: callable  # rows by name -> number, or None where it was not measured; and what it is of
    most: float | None = None  # to be below it
    least: float | None = None  # to be this or more


def judged(goals, rows):
    """Return every goal with the figure found: met is None where there is none."""
    named = {row["name"]: row for row in rows}
    told = []
    for goal in goals:
        found, by = goal.figure(named)
        met = None if found is None else found < goal.most if goal.most is not None else found >= goal.least
        limit = {"below": goal.most} if goal.most is not None else {"at_least": goal.least}
        told.append({"goal": goal.text} | limit | {"measured": found, "of": by, "met": met})
    return told


def of(name, key):
    """One figure of one row."""
    return lambda rows: (rows.get(name, {}).get(key), name)


def error_of(name):
    """How far a row is from float64."""
    return lambda rows: (rows.get(name, {}).get("checks", {}).get("far_from_float64"), name)


def times(name, peer):
    """How many times as long a peer takes, back to back."""

    def ratio(rows):
        both = [rows.get(each, {}).get("back_to_back_ms") for each in (peer, name)]
        return (None if None in both else both[0] / both[1]), f"{name} against {peer}"

    return ratio


def waiting(rows):
    """How many refinements make the host wait, and which."""
    known = {name: row.get("waits") for name, row in _refinements(rows).items()}
    known = {name: waits for name, waits in known.items() if waits is not None}
    some = [name for name, waits in known.items() if waits]
    return (len(some) if known else None), "; ".join(some)


def kernel_share(rows):
    """The least share of a refinement's time, back to back, that its kernels take."""
    shares = {
        name: row["kernels_ms"] / row["back_to_back_ms"]
        for name, row in _refinements(rows).items()
        if row.get("kernels_ms") and row.get("back_to_back_ms")
    }
    return _least(shares)


def memory_share(rows):
    """The least share of the copy's bandwidth among kernels that memory limits, of which one launch takes a while."""
    limited = [row for row in rows.values() if row.get("limit") == "bytes"]
    return _least({row["name"]: row["share"] for row in limited if row["needed_ms"] / row["launches"] >= ENOUGH_MS})


def exact_share(rows):
    """The least share of the limiting unit's rate that the exact filter reaches."""
    return _least({name: row["share"] for name, row in rows.items() if "all_pairs" in name and row.get("share")})


def _refinements(rows):
    return {name: row for name, row in rows.items() if name.partition(", ")[2].startswith(REFINEMENTS)}


def _least(shares):
    name = min(shares, key=shares.get, default="")
    return shares.get(name), name


FAST, WINDOW_7 = f"{PASCAL}, convcrf 11, blur 4", f"{PASCAL}, convcrf 7, blur 1"
LATTICES = (f"{PASCAL}, fullcrf, two lattices", f"{PASCAL}, fullcrf, lattice and separable")
EXACT, EXACT_TF32 = (f"{PASCAL}, fullcrf, exact, {each}" for each in ("float32", "tf32"))
HYBRID = f"{PASCAL}, hybrid, 15 iterations"
HEADLINE = (
    Goal("ConvCRF 11, blur 4: ms an image, back to back", of(FAST, "back_to_back_ms"), most=0.5),
    Goal("ConvCRF 11, blur 4: ms of an image alone", of(FAST, "alone_ms"), most=1.0),
    Goal(
        "ConvCRF 11, blur 4: times as fast as the authors' code",
        times(FAST, FAST.replace("conv", "reference conv")),
        least=20,
    ),
    Goal("ConvCRF 7, blur 1: ms an image, back to back", of(WINDOW_7, "back_to_back_ms"), most=1.0),
    *(
        Goal(f"FullCRF, {name.split(', ', 2)[2]}: ms an image", of(name, "back_to_back_ms"), most=5.0)
        for name in LATTICES
    ),
    Goal("FullCRF, exact, float32: ms an image", of(EXACT, "back_to_back_ms"), most=400),
    Goal("FullCRF, exact, TF32: ms an image", of(EXACT_TF32, "back_to_back_ms"), most=150),
    Goal("Exact filter, TF32: relative error", error_of(f"{PASCAL}, exact filter, tf32"), most=1e-3),
    Goal("DualMM, 15 iterations: ms an image", of(HYBRID, "back_to_back_ms"), most=5.0),
    Goal("Refinements in which the host waits for the GPU", waiting, most=1),
    Goal("Kernels' share of the time back to back, the least", kernel_share, least=0.9),
)
ROOFLINE = (
    Goal("Kernels that memory limits: share of the copy's bandwidth, the least", memory_share, least=0.6),
    Goal("Exact filter: share of the rate of the unit that limits it, the least", exact_share, least=0.4),
)
