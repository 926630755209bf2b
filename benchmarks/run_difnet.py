"""Fit DifNet's walks to MobileNetV2's unaries of real photographs, beside ConvCRF and FullCRF; keep figures as JSON.

    python benchmarks/run_difnet.py --camvid DIR --voc-mini DIR --weights mobilenet_v2-b0353104.pth --work DIR

Command line and working folder are those of run_photographs.py, whose networks and unaries are used; figures go to
benchmarks/results/difnet.json: the table, and of every fit its loss and its mixing weights.
"""

import keep_run
import record
import run_photographs as photographs

from pipeline.formats import fitted, tables


def main():
    """Lay out the configuration, run Snakemake, collect."""
    args = photographs.arguments(__doc__, "--weights")
    photographs.lay_out(args)
    photographs.run_workflow(args, "--config", "runs=difnet")
    rows = tables.read(args.work / "results/aggregate/difnet.tsv")[0]
    walked = [row for row in rows if row["system"].startswith("difnet")]
    result = {"rows": rows, "fits": {f"{row['pack']}/{row['system']}": told(args.work, row) for row in walked}}
    record.keep("difnet", record.header(args.threads) | result)


def told(work, row):
    """Return the mean loss of a fit's first and last epoch, and what came out."""
    path = work / "results/fit" / row["pack"] / row["net"] / f"{row['system']}.npz"
    found = fitted.read(path)
    losses = [entry["loss"] for entry in found.curve]
    part = len(losses) // found.settings.fit.epochs
    return {"first": sum(losses[:part]) / part, "last": sum(losses[-part:]) / part} | keep_run.numbers(path)


if __name__ == "__main__":
    main()
