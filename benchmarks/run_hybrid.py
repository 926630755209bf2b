"""Run the hybrid CNN-CRF's Table 1 on CamVid: FCN-32s, FCN-16s, FCN-8s, its CRF, both trained together.

    python benchmarks/run_hybrid.py --camvid DIR --voc-mini DIR --hed WHEEL --work DIR

Command line and working folder are those of run_deeplab.py; figures go to benchmarks/results/hybrid.json: the table,
the course of every training on the held-out images, the search, and what the joint training changed. FCN-8s trained
on by itself for as many steps is the control.
"""

import json

import record
import run_deeplab
import run_photographs as photographs

from pipeline.formats import fitted, tables, weights

NETS = ("fcn32s_camvid", "fcn16s_camvid", "fcn8s_camvid", "fcn8s_camvid_longer")
JOINT = "fcn8s_camvid_hybrid"


def main():
    """Lay out the configuration, run Snakemake, collect."""
    args = run_deeplab.laid_out(__doc__)
    photographs.run_workflow(args, "--config", "runs=hybrid")
    results = args.work / "results"
    result = record.header(args.threads) | {
        "rows": tables.read(results / "aggregate/hybrid.tsv")[0],
        "course": {net: history(results / f"train/camvid/{net}.jsonl") for net in NETS}
        | {JOINT: history(results / f"finetune/camvid/{JOINT}/hybrid.jsonl")},
        "search": fitted.read(results / "fit/camvid/fcn8s_camvid/hybrid.npz").curve,
        "fine-tuning": weights.read(results / f"finetune/camvid/{JOINT}/hybrid.safetensors")[1]["change"],
    }
    record.keep("hybrid", result)


def history(path):
    """The epochs of one training."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    main()
