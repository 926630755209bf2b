"""Keep the figures of the default run of this checkout as JSON: table, seconds and memory of every stage.

snakemake --cores 2 && python benchmarks/keep_default_run.py
"""

import csv
from pathlib import Path

import record

from pipeline.formats import fitted, tables, weights

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"


def main():
    """Collect and write."""
    jobs = {}
    for path in sorted(RESULTS.rglob("*.time.tsv")):
        with path.open(encoding="utf-8") as file:
            row = next(csv.DictReader(file, delimiter="\t"))
        # Whole jobs, imports included: seconds, and the largest resident memory in MiB.
        jobs[str(path.relative_to(RESULTS)).removesuffix(".time.tsv")] = {"s": row["s"], "max_rss": row["max_rss"]}
    tuned = RESULTS / "finetune/embedded/resnet18_convcrf/convcrf.safetensors"
    system = fitted.read(RESULTS / "fit/embedded/resnet18/convcrf.npz")
    result = record.header() | {
        "rows": tables.read(RESULTS / "aggregate/embedded.tsv")[0],
        "fitted": {name: float(value) for name, value in system.state.items()},
        "fine-tuning": weights.read(tuned)[1]["change"],
        "jobs": jobs,
    }
    record.keep("default_run", result)


if __name__ == "__main__":
    main()
