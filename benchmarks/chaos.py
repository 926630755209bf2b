"""Kill the workflow with SIGKILL at random moments, run it again, and compare what it ends with.

    PYTHONPATH=tests:tests/workflow python benchmarks/chaos.py --work DIR [--runs 20] [--seed 0] [--at-once 2]

A run is the small configuration of the tests, all systems of the default table. Each of the killed runs is started in a
folder of its own, killed once to three times at moments drawn over an undisturbed run's time, each time a stage,
Snakemake, or all of them; then the two commands of docs/flow.md follow. One that ended before its moments is made again
with others. It counts if packs, weights, fitted systems, unaries, labels, scores and the table are those of the
undisturbed run, and nothing else is left over. A second call goes on where a first was stopped.

Figures go to benchmarks/results/chaos.json.
"""

import argparse
import json
import shutil
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import record
from driver import small_copy, snakemake
from survival import run_with_kills, same_results

from pipeline.core import stamp


def main():
    """Make the undisturbed run, then the others, and keep what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at-once", type=int, default=2)
    args = parser.parse_args()
    work = args.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    seconds = undisturbed(work)
    with ThreadPoolExecutor(args.at_once) as pool:
        runs = list(pool.map(lambda number: killed(work, number, args.seed, seconds), range(args.runs)))
    kills = [kill for run in runs for kill in run["kills"]]
    stages = Counter(stage for kill in kills for stage in kill["running"])
    result = {
        "runs": len(runs),
        "identical": sum(run["identical"] for run in runs),
        "kills": len(kills),
        "victims": Counter(kill["victim"] for kill in kills),
        "running then": stages | {"nothing": sum(not kill["running"] for kill in kills)},
        "each": runs,
    }
    record.keep("chaos", record.header() | result)
    print(f"{result['identical']} of {len(runs)} runs with {len(kills)} kills ended with identical results")
    sys.exit(result["identical"] < len(runs))


def undisturbed(work):
    """Return the seconds of the run that the others are compared with; it is made once."""
    told = work / "undisturbed.json"
    if not told.exists():
        folder = work / "undisturbed"
        shutil.rmtree(folder, ignore_errors=True)
        started = time.monotonic()
        status, text = snakemake(small_copy(folder))
        assert status == 0, text
        told.write_text(json.dumps(time.monotonic() - started), encoding="utf-8")
    return json.loads(told.read_text(encoding="utf-8"))


def killed(work, number, seed, seconds):
    """Make one run that is killed; return whether it ended as the undisturbed one, and its kills."""
    told, folder = work / f"{number}.json", work / str(number)
    if not told.exists():
        rng, kills = np.random.default_rng([seed, number]), []
        while not kills:  # it may have ended before all of its moments
            shutil.rmtree(folder, ignore_errors=True)
            moments = rng.uniform(0.03 * seconds, seconds, size=rng.integers(1, 4)).tolist()
            kills = run_with_kills(small_copy(folder), moments, rng)
        found = {"run": number, "commit": stamp.commit(), "kills": kills, "identical": True}
        try:
            same_results(work / "undisturbed" / "results", folder / "results")
        except Exception as error:  # a missing or damaged result may raise anything: told as different
            found |= {"identical": False, "differs": repr(error)[:300]}
        else:
            shutil.rmtree(folder)
        told.write_text(json.dumps(found), encoding="utf-8")
        print(f"run {number}: {found}", flush=True)
    return json.loads(told.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
