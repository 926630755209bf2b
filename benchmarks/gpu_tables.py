"""Write the tables of docs/gpu.md from the measurements that are there.

    python benchmarks/gpu_tables.py [--check]

Between `<!-- NAME.json -->` and `<!-- end -->` stands what benchmarks/results/NAME.json holds; where there is none, how
to make it, and of the kernels what they need, for which no GPU is needed. With --check nothing is written: exit status
1 says that the page is not what would be.
"""

import argparse
import json
import re
import sys

import gpu_roofline
import record

from pipeline.core.settings import ROOT

PAGE = ROOT / "docs" / "gpu.md"
COMMAND = "python benchmarks/gpu.py --work DIR --camvid DIR"
SECTION = re.compile(r"(<!-- (\w+)\.json -->\n).*?(<!-- end -->)", re.DOTALL)
NEEDS_SIZE = "375x500x21"
MET = {True: "met", False: "**missed**", None: "not measured"}
UNITS = {"float32": "float32", "tf32": "TF32", "special": "exponentials", "float64": "float64"}
LAUNCHES = {"torch_launch_s": "by torch", "own_launch_s": "by `source.launch`"}
END_TO_END = ("net", "system", "miou", "accuracy", "seconds_per_image")
# Whose time a peer's is divided by.
OWN = {
    "exact filter, torch in blocks": "exact filter, float32",
    "exact filter, KeOps": "exact filter, float32",
    "pydensecrf, on the CPU": "fullcrf, two lattices",
    "five walks, torch's attention as it comes": "five walks",
    "five walks, in blocks of rows": "five walks",
}


def main():
    """Write the page, or say whether it is as it would be written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    before = PAGE.read_text(encoding="utf-8")
    after = page(before, record.RESULTS)
    if args.check and before != after:
        print(f"{PAGE.relative_to(ROOT)} is not what the measurements give; run `python benchmarks/gpu_tables.py`")
    elif not args.check:
        PAGE.write_text(after, encoding="utf-8")
        print(PAGE)
    return int(args.check and before != after)


def page(text, results):
    """Return a page's text with its sections as the files of a folder have them."""

    def section(found):
        begin, name, end = found.groups()
        path = results / f"{name}.json"
        told = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        return f"{begin}\n{SECTIONS[name](told)}\n\n{end}"

    return SECTION.sub(section, text)


def headline(told):
    """Return the tables of gpu_headline.json."""
    if told is None:
        return not_yet()
    rows = {row["name"]: row for row in told["rows"]}
    heads = ["", "ms", "alone", "of it the host", "as a graph", "kernels", "a peer by ours", "paper, ms", "checked"]
    parts = [made_on(told)]
    for size in dict.fromkeys(name.partition(", ")[0] for name in rows):
        lines = [headline_line(row, rows) for name, row in rows.items() if name.startswith(f"{size}, ")]
        parts += [f"**{size}** (rows x columns x classes)", table(heads, lines)]
    parts += [goals(told), waiting(rows)]
    return "\n\n".join(part for part in parts if part)


def headline_line(row, rows):
    """Return the cells of one row."""
    size, _, name = row["name"].partition(", ")
    if problem := row.get("missing") or row.get("error"):
        return [name, problem, *[""] * 7]
    images = row.get("images", 1)
    keys = ("back_to_back_ms", "alone_ms", "host_ms", "graph_ms", "kernels_ms")
    times = [short(row[key] / images) if row.get(key) else "" for key in keys]
    if row["calls"] == 1:
        times[0] += " (one call)"
    own = rows.get(f"{size}, {OWN.get(name, name.removeprefix('reference '))}", row)
    ratio = short(row["back_to_back_ms"] / own["back_to_back_ms"]) if own is not row and "calls" in own else ""
    paper = "{ms}, {on}".format(**row["paper"]) if "paper" in row else ""
    return [name, *times, ratio, paper, checked(row)]


def checked(row):
    """Return what a row was compared with, in words: shares of equal labels, and relative errors."""
    told = [f"not checked: {row['unchecked']}"] if "unchecked" in row else []
    for name, value in row.get("checks", {}).items():
        number = f"{100 * value:.3f} %" if name.startswith("labels") else f"{value:.1e}"
        told.append(f"{name.replace('_', ' ')} {number}")
    return "; ".join(told)


def waiting(rows):
    """Return where the host waits, place by place."""
    places = {}
    for name, row in rows.items():
        for place in row.get("waits") or ():
            if place.startswith("pipeline/"):
                places.setdefault(place.split(": ")[0], []).append(name)
    lines = [f"- `{place}`: {'; '.join(names)}" for place, names in places.items()]
    return "Where the host waits for the GPU:\n\n" + "\n".join(lines) if lines else ""


def roofline(told):
    """Return the tables of gpu_roofline.json, or without it what the kernels need."""
    if told is None:
        return f"{not_yet()}\n\n{needs_table()}"
    heads = ["", "kernel", "launches", "MB", "ms", "GB/s", "limited by", "needs, ms", "share"]
    parts = [made_on(told), ceilings(told["ceilings"])]
    for size in dict.fromkeys(row["name"].partition(", ")[0] for row in told["rows"]):
        rows = [row for row in told["rows"] if row["name"].startswith(f"{size}, ")]
        parts += [f"**{size}**", table(heads, map(roofline_line, rows))]
    return "\n\n".join([*parts, goals(told)])


def roofline_line(row):
    """Return the cells of one kernel in one call."""
    call = row["name"].partition(", ")[2]
    if "error" in row:
        return [call, row["error"], *[""] * 7]
    moved = [short(row["needs"]["bytes"] / 1e6), short(row["ms"]), short(row["per_s"]["bytes"] / 1e9)]
    limit = {"bytes": "memory", "chain": "the chains' length"} | UNITS
    reached = [limit[row["limit"]], short(row["needed_ms"]), f"{100 * row['share']:.0f} %"]
    return [call.rpartition(": ")[0], f"`{row['kernel']}`", row["launches"], *moved, *reached]


def needs_table():
    """Return what the kernels need, with two digits, as whatever rests on a lattice's vertices is."""
    lines = []
    for row in gpu_roofline.needs(NEEDS_SIZE):
        amounts = [
            f"{short(amount / 1e6, 2)} {UNITS[unit]}" for unit, amount in row["needs"].items() if unit != "bytes"
        ]
        call = row["name"].partition(", ")[2].rpartition(": ")[0]
        bytes_ = short(row["needs"]["bytes"] / 1e6, 2)
        lines.append([call, f"`{row['kernel']}`", row["launches"], bytes_, ", ".join(amounts)])
    heads = ["", "kernel", "launches", "MB", "million operations"]
    return f"What each kernel must move and work out at least, in one call at {NEEDS_SIZE}:\n\n{table(heads, lines)}"


def end_to_end(told):
    """Return the table of gpu_end_to_end.json."""
    if told is None:
        return not_yet()
    lines = [[row.get(key, "") for key in END_TO_END] for row in told["rows"]]
    return f"{made_on(told)}\n\n{table([key.replace('_', ' ') for key in END_TO_END], lines)}"


SECTIONS = {"gpu_headline": headline, "gpu_roofline": roofline, "gpu_end_to_end": end_to_end}


def not_yet():
    """Say that there is no measurement."""
    return f"Not measured yet: run `{COMMAND}`."


def made_on(told):
    """Say where and when."""
    device = told.get("device")
    name = device["name"] if isinstance(device, dict) else ", ".join(device or ())
    versions = ", ".join(f"{key} {told['versions'][key]}" for key in ("torch", "numpy"))
    return f"{told['date']}, {name}; {versions}; commit {told['commit']}."


def ceilings(told):
    """Say what the device does at most."""
    rates = [f"{short(told[unit] / 1e12)} T {words}/s" for unit, words in UNITS.items() if told.get(unit)]
    launch = [f"{short(1e6 * told[key])} µs {of}" for key, of in LAUNCHES.items() if told.get(key)]
    return f"Ceilings: a copy {short(told['bytes'] / 1e9)} GB/s; {', '.join(rates)}; a launch {', '.join(launch)}."


def goals(told):
    """Return every goal, what was measured, and whether it is met."""
    lines = []
    for goal in told["goals"]:
        limit = f"below {goal['below']:g}" if "below" in goal else f"at least {goal['at_least']:g}"
        measured = "" if goal["measured"] is None else f"{goal['measured']:.3g}"
        lines.append([goal["goal"], limit, measured, MET[goal["met"]], goal["of"]])
    return table(["goal", "to be", "is", "", "of"], lines)


def table(heads, lines):
    """Return a table in Markdown."""
    rows = [heads, ["---"] * len(heads), *lines]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows)


def short(number, digits=3):
    """Return a number with so many digits that count, without an exponent."""
    if number == 0:
        return "0"
    text = f"{float(f'{number:.{digits}g}'):,.10f}"
    return text.rstrip("0").rstrip(".")


if __name__ == "__main__":
    sys.exit(main())
