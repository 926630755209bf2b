"""Keep the figures of the default run of this checkout as JSON: table, seconds and memory of every stage.

snakemake --cores 2 && python benchmarks/keep_default_run.py
"""

import csv
import datetime
import json
import os
import platform
from pathlib import Path

from pipeline.core import stamp
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
    result = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "commit": stamp.commit(),
        "versions": stamp.make("report", inputs={})["versions"],
        "rows": tables.read(RESULTS / "aggregate/embedded.tsv")[0],
        "fitted": {name: float(value) for name, value in system.state.items()},
        "fine-tuning": weights.read(tuned)[1]["change"],
        "jobs": jobs,
    }
    output = ROOT / "benchmarks/results/default_run.json"
    output.parent.mkdir(exist_ok=True)
    output.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(output)


if __name__ == "__main__":
    main()
