"""Run the workflow on real photographs and keep its figures as JSON.

    python benchmarks/run_photographs.py --camvid DIR --voc-mini DIR --weights mobilenet_v2-b0353104.pth --work DIR

The settings are those of benchmarks/photographs; the results stay in the working folder, figures go to
benchmarks/results/photographs.json. Run again, it goes on where it stopped.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import keep_run
import record

from pipeline.formats import tables, weights

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


def main():
    """Lay out the configuration, run Snakemake, collect."""
    args = arguments(__doc__, "--weights")
    lay_out(args)
    run_workflow(args, "--config", "runs=photographs")
    result = record.header(args.threads) | {
        "rows": tables.read(args.work / "results/aggregate/photographs.tsv")[0],
        "fitted": {
            str(path.relative_to(args.work)): keep_run.numbers(path) for path in found(args.work, "fit/*/*/*.npz")
        },
        "fine-tuning": {
            str(path.relative_to(args.work)): weights.read(path)[1]["change"]
            for path in found(args.work, "finetune/*/*/*.safetensors")
        },
    }
    record.keep("photographs", result)


def arguments(description, weights):
    """Read the command line; `weights` is the option of the file to start from."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in ("--camvid", "--voc-mini", weights, "--work"):
        parser.add_argument(option, required=True, type=lambda text: Path(text).resolve())
    parser.add_argument("--threads", type=int, default=2)
    triggers = ["code", "input", "mtime", "params", "software-env"]
    parser.add_argument("--rerun", nargs="+", choices=triggers, default=triggers, help="what makes a job run again")
    return parser.parse_args()


def run_workflow(args, *chosen):
    """Run Snakemake in the working folder, with options of its own."""
    start = (sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", args.work)
    options = ("--cores", str(args.threads), "--rerun-incomplete", "--rerun-triggers", *args.rerun)
    subprocess.run([*start, *options, *chosen], check=True)


def lay_out(args):
    """Make the working folder's configuration: the project's, with these packs, networks and runs."""
    paths = {"CAMVID": args.camvid, "VOC_MINI": args.voc_mini, "WEIGHTS": args.weights}
    for home in (ROOT / "config", HERE / "photographs"):
        for source in home.rglob("*.*"):
            text = source.read_text(encoding="utf-8")
            for word, path in paths.items():
                text = text.replace(word, str(path))
            write_if_new(args.work / "config" / source.relative_to(home), text)


def write_if_new(target, text):
    """Write a file unless it is there already: it keeps its age then, and nothing reruns for it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists() or target.read_text(encoding="utf-8") != text:
        target.write_text(text, encoding="utf-8")


def found(work, pattern):
    """List what a pattern finds in the results."""
    return sorted((work / "results").glob(pattern))


if __name__ == "__main__":
    main()
