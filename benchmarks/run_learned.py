"""Fit the CRFs with learnt parts to DeepLab-LargeFOV's unaries of real photographs; keep figures as JSON.

    python benchmarks/run_learned.py --camvid DIR --voc-mini DIR --hed WHEEL --work DIR

Command line and working folder are those of run_deeplab.py, whose networks and unaries are used; figures go to
benchmarks/results/learned.json: the table, and of every fit its loss, its mean IoU on the way, and what moved.
"""

import record
import run_deeplab
import run_photographs as photographs

from pipeline.formats import fitted, tables


def main():
    """Lay out the configuration, run Snakemake, collect."""
    args = run_deeplab.laid_out(__doc__)
    photographs.run_workflow(args, "--config", "runs=learned")
    rows = tables.read(args.work / "results/aggregate/learned.tsv")[0]
    result = record.header(args.threads) | {
        "rows": rows,
        "fits": {f"{row['pack']}/{row['system']}": told(args.work, row) for row in rows if row["system"] != "unary"},
    }
    record.keep("learned", result)


def told(work, row):
    """Return the mean loss of a fit's first and last epoch, its looks, and the parameters before its last step."""
    found = fitted.read(work / "results/fit" / row["pack"] / row["net"] / f"{row['system']}.npz")
    losses = [entry["loss"] for entry in found.curve if "loss" in entry]
    part = len(losses) // found.settings.fit.epochs
    looks = [
        {key: entry[key] for key in ("step", "heldout_miou", "val_miou")}
        for entry in found.curve
        if "val_miou" in entry
    ]
    last = {key: value for key, value in found.curve[-1].items() if key not in ("steps", "heldout_miou", "val_miou")}
    return {"first": sum(losses[:part]) / part, "last": sum(losses[-part:]) / part, "looks": looks, "parameters": last}


if __name__ == "__main__":
    main()
