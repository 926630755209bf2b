"""Keep the figures of a run as JSON: its table, fitted numbers, and seconds and memory of every job it rests on.

    snakemake --cores 2 && python benchmarks/keep_run.py
    snakemake --cores 2 table_convcrf_2 && python benchmarks/keep_run.py table_convcrf_2

The first of each in a checkout without results, so that all jobs are this run's.
"""

import argparse
import csv
from pathlib import Path

import record
import torch

from pipeline import nets
from pipeline.core import layout, settings
from pipeline.formats import fitted, tables, weights

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"


def main():
    """Collect and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="?", default="embedded", help="a run table, without .tsv")
    runs = parser.parse_args().runs
    rows = layout.read_runs(ROOT / f"config/runs/{runs}.tsv")
    files = dict(files_of(runs, rows))
    jobs = {name: job(path) for name, path in files.items()}
    networks = {(f"{row.pack}/{row.net}", path) for row in rows for path in row.histories(RESULTS)}
    walks = {net: mixing(path.with_suffix(".safetensors")) for net, path in sorted(networks)}
    told = {net: trained(path) for net, path in sorted(networks)}
    result = record.header() | {
        "rows": tables.read(RESULTS / f"aggregate/{runs}.tsv")[0],
        "fitted": {f"{row.net}/{row.system}": numbers(row.fitted(RESULTS)) for row in rows if row.system != "unary"},
        "networks": told,
        "walks": {net: found for net, found in walks.items() if found},
        "fine-tuning": changes(rows),
        "seconds": round(span(files, jobs), 1),
        "seconds of all jobs": round(sum(float(one["s"]) for one in jobs.values()), 1),
        "jobs": jobs,
    }
    record.keep("default_run" if runs == "embedded" else runs, result)


def trained(path):
    """Return how a network's training ended, and how large it is."""
    stamp = weights.read_stamp(path.with_suffix(".safetensors"))
    last = tables.read_history(path)[-1]
    chosen = settings.Settings(stamp["settings"])
    facts = nets.facts(chosen.network, len(stamp["class_names"])) if "network" in chosen else {}
    return {key: last[key] for key in ("steps", "loss", "heldout_miou") if key in last} | facts


def files_of(runs, rows):
    """Yield name and benchmark file of every job that a run table rests on, networks it starts from included."""
    packs, nets, systems = {row.pack for row in rows}, {row.net for row in rows}, set()
    while missing := {before(net) for net in nets} - nets - {None}:
        nets |= missing
    for row in rows:
        systems |= {(row.net, row.system), (before(row.net), row.system)}
    for path in sorted(RESULTS.rglob("*.time.tsv")):
        name = str(path.relative_to(RESULTS)).removesuffix(".time.tsv")
        stage, where, *rest = name.split("/")
        if stage in ("aggregate", "report"):
            ours = where == runs
        elif stage in ("fit", "refine", "score"):
            ours = where in packs and tuple(rest[:2]) in systems  # what follows is the shard
        else:
            ours = where in packs and (not rest or rest[0] in nets)
        if ours:
            yield name, path


def before(net):
    """Return the network that one starts from, or None."""
    chosen = settings.read(ROOT / f"config/nets/{net}.yaml", "nets")
    return chosen.get("net") or chosen.get("init_from")


def job(path):
    """Read one of Snakemake's benchmark files: imports included; seconds, and the largest resident memory in MiB."""
    with path.open(encoding="utf-8") as file:
        row = next(csv.DictReader(file, delimiter="\t"))
    return {"s": row["s"], "max_rss": row["max_rss"]}


def span(files, jobs):
    """Return the seconds from the first job's start to the last one's end: their files are written as they end."""
    ends = {name: path.stat().st_mtime for name, path in files.items()}
    return max(ends.values()) - min(end - float(jobs[name]["s"]) for name, end in ends.items())


def numbers(path):
    """Return the fitted numbers of one system: of arrays their range, of DifNet's μ and β what their logits mean."""
    found = fitted.read(path)
    logits = ("mu", "beta") if found.settings.system == "difnet" else ()
    return {
        name: share(value) if name in logits else float(value) if value.size == 1 else ends(value)
        for name, value in found.state.items()
    }


def ends(array):
    """Return the least and the largest of an array."""
    return [float(array.min()), float(array.max())]


def share(logits):
    """Return the sigmoid of an array or a tensor."""
    return torch.as_tensor(logits).sigmoid().tolist()


def mixing(path):
    """Return μ and β of a network's walks, {} if it has none."""
    tensors, _ = weights.read(path)
    found = {name: tensors.get(f"diffusion.{name}") for name in ("mu", "beta")}
    return {name: share(x) for name, x in found.items() if x is not None}


def changes(rows):
    """Return what every joint training changed."""
    found = {}
    for row in rows:
        path = RESULTS / f"finetune/{row.pack}/{row.net}/{row.system}.safetensors"
        if path.is_file():
            found[f"{row.net}/{row.system}"] = weights.read(path)[1]["change"]
    return found


if __name__ == "__main__":
    main()
