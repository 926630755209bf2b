"""The table of results: tab-separated text, one line per run, the stamp in a comment at the end.

Spreadsheets see the header first; ``pandas.read_csv(path, sep="\\t", comment="#")`` reads it too.
"""

import csv
import json
from pathlib import Path

from pipeline.core.errors import DataError
from pipeline.core.files import whole_file
from pipeline.core.stamp import to_json

STAMP = "# stamp "


def write(path, rows, stamp):
    """Write rows (dicts of str, all with the same keys, at least one) whole or not at all."""
    with whole_file(path) as beside, beside.open("w", encoding="utf-8", newline="") as file:
        out = csv.DictWriter(file, rows[0].keys(), delimiter="\t", lineterminator="\n")
        out.writeheader()
        out.writerows(rows)
        file.write(STAMP + to_json(stamp) + "\n")


def read(path):
    """Read what `write` wrote; return (rows, stamp), values as text. DataError if it is something else."""
    lines = _lines(path)
    if not lines or not lines[-1].startswith(STAMP):
        raise DataError(path, "no stamp in its last line", "a whole table", "run `aggregate` again")
    try:
        stamp = json.loads(lines[-1].removeprefix(STAMP))
    except ValueError:
        raise DataError(path, "a damaged stamp", "a whole table", "run `aggregate` again") from None
    rows = list(csv.DictReader(lines[:-1], delimiter="\t"))
    if not rows or any(None in row or None in row.values() for row in rows):
        raise DataError(path, "lines of unequal length", "a whole table", "run `aggregate` again")
    return rows, stamp


def read_any(path):
    """Read a tab-separated table of any kind, a run table too: (rows, stamp), the stamp None if it has none."""
    lines = _lines(path)
    if lines and lines[-1].startswith(STAMP):
        return read(path)
    rows = list(csv.DictReader([line for line in lines if line and line[0] != "#"], delimiter="\t"))
    if not rows or any(None in row or None in row.values() for row in rows):
        raise DataError(path, "no lines, or lines of unequal length", "a tab-separated table", "mend the table")
    return rows, None


def read_history(path):
    """Read a training history, one JSON object a line: epoch, steps, loss, lr, heldout_miou, seconds in steps."""
    try:
        return [json.loads(line) for line in _lines(path)]
    except ValueError:
        raise DataError(
            path, "a line that is no JSON", "a training history", "run `train` or `finetune` again"
        ) from None


def peak_memory(paths):
    """Return the greatest memory that jobs held, MiB as text, from Snakemake's benchmark files; None without any."""
    rows = [row for path in paths if path.is_file() for row in csv.DictReader(_lines(path), delimiter="\t")]
    measured = [row.get("max_rss", "-") for row in rows]
    return max((one for one in measured if one.replace(".", "", 1).isdecimal()), key=float, default=None)


def _lines(path):
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise DataError(path, "no such file", "a table", "run the stage that makes it first") from None
    except UnicodeDecodeError:
        raise DataError(path, "bytes that are no text", "a table", "run the stage that makes it") from None
