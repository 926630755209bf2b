"""Running the workflow in a folder of its own, on a small data set and small networks."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    "packs/embedded.yaml": {"train": "24", "heldout": "8", "val": "12", "longest_side": "64", "shortest_side": "48"},
    "nets/resnet18.yaml": {"width": "0.25", "epochs": "2", "batch": "8", "crop": "[48, 48]", "heldout_every": "1"},
    "nets/resnet18_convcrf.yaml": {"epochs": "1", "batch": "8", "crop": "[48, 48]", "watched_images": "4"},
    "systems/convcrf.yaml": {"epochs": "1", "iterations": "2", "filter_size": "3"},
    "config.yaml": {"gallery": "3", "resamples": "200", "threads": "1"},
}


def small_copy(folder):
    """Copy the configuration into `folder`, made small; return the folder."""
    shutil.copytree(ROOT / "config", folder / "config")
    for name, changes in SMALL.items():
        edit(folder / "config" / name, **changes)
    return folder


def edit(path, **changes):
    """Change values of a YAML file in place, comments kept; every key must be there."""
    text = path.read_text(encoding="utf-8")
    for key, value in changes.items():
        text, count = re.subn(rf"^(\s*{key}:\s*)(\[[^]]*\]|[^\s#]+)", rf"\g<1>{value}", text, flags=re.M)
        assert count, f"no key {key} in {path}"
    path.write_text(text, encoding="utf-8")


def environment():
    """The environment of a child: this interpreter's programs first, one thread."""
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }


def command(folder, *options):
    """The command line of Snakemake in `folder`."""
    return [
        sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"),
        "--directory", str(folder), "--cores", "2", *options,
    ]  # fmt: skip


def snakemake(folder, *options):
    """Run Snakemake in `folder` to its end; return (exit status, all it printed)."""
    done = subprocess.run(command(folder, *options), env=environment(), capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def planned(folder, *targets):
    """The rules that would run, as a sorted list of "rule wildcards"."""
    status, text = snakemake(folder, "-n", *targets)
    assert status == 0, text
    jobs = re.findall(r"^(?:local)?rule (\w+):\n((?:    .*\n)*)", text, flags=re.M)
    found = ((rule, re.search("wildcards: (.*)", body)) for rule, body in jobs)
    return sorted(f"{rule} {wildcards.group(1)}" if wildcards else rule for rule, wildcards in found)
