"""How a measurement is kept: what it was made with, then its figures, as JSON under benchmarks/results."""

import datetime
import json
import os
import platform
from pathlib import Path

from pipeline.core import stamp
from pipeline.core.files import whole_file

RESULTS = Path(__file__).resolve().parent / "results"


def header(threads=None):
    """Return date, machine, commit and versions."""
    size = f"{os.cpu_count()} cores" if threads is None else f"{threads} threads"
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {size}",
        "commit": stamp.commit(),
        "versions": stamp.make("refine", inputs={})["versions"],
    }


def keep(name, result):
    """Write one result and say where."""
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    with whole_file(path) as beside:
        Path(beside).write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(path)
