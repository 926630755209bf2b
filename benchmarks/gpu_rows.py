"""Rows of a measurement that may be interrupted: each is kept in a file of its own as soon as it is there.

A row that fails is kept too, with what it said, and is not measured again; one during which the process ended gets one
more try. To measure a row anew, delete its file.
"""

import faulthandler
import json
import re
import sys
import time
import traceback

import torch

UNFINISHED = 3  # exit status: some rows are not there yet; run the same command again
# Seconds of one row, after which the process ends itself: what is left of the time and some more, but so many at least.
LONGEST, LEAST, AFTER = 420, 60, 120
TRIES = 2


class Missing(Exception):
    """What a row needs and this machine does not have; its words are the row."""


def path(work, name):
    """Return the file of a row."""
    return work / (re.sub(r"[^A-Za-z0-9.]+", "_", name).strip("_") + ".json")


def read(work, name):
    """Return a row that is there, or None."""
    file = path(work, name)
    found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
    return None if found is None or 0 < found.get("tries", 0) < TRIES else found


def measure(rows, work, minutes):
    """Measure rows, a dict of str to callable that returns a dict, in order, until the time is over.

    Returns
    -------
    bool
        Whether all of them are there.
    """
    work.mkdir(parents=True, exist_ok=True)
    stop = time.monotonic() + 60 * minutes
    for name, row in rows.items():
        if read(work, name) is not None:
            continue
        if time.monotonic() > stop:
            print("not finished: run the same command again")
            return False
        begun = time.monotonic()
        found = _measured(row, work, name, min(LONGEST, max(LEAST, stop + AFTER - begun)))
        _write(path(work, name), {"name": name} | found | {"row_s": round(time.monotonic() - begun, 2)})
        print(f"{name}: {_told(found)}", flush=True)
        if not _alive():
            print("the GPU's context is lost: run the same command again, for a new process")
            return False
    return True


def require(work, name, row, same):
    """Measure a row that all others rest on, unless it is there; a failure ends the program, and nothing is kept.

    `same`, a dict, is kept with it; a folder in which it was another has rows of other work and is refused.
    """
    work.mkdir(parents=True, exist_ok=True)
    found = read(work, name)
    if found is None:
        _write(path(work, name), {"name": name} | row() | same)
    elif any(found.get(key) != value for key, value in same.items()):
        raise SystemExit(f"{work}: found rows of other code or images, expected {same}; take another folder")


def checks(compare):
    """Return what a comparison told, or what it said when it failed: the row's times are kept all the same."""
    try:
        return {"checks": compare()}
    except Exception as error:
        traceback.print_exc()
        return {"unchecked": _words(error)}


def _measured(row, work, name, longest):
    file = path(work, name)
    tries = json.loads(file.read_text(encoding="utf-8"))["tries"] + 1 if file.exists() else 1
    # What stays behind if the process does not.
    _write(file, {"name": name, "tries": tries, "error": "the process ended while this was measured"})
    faulthandler.dump_traceback_later(longest, exit=True, file=sys.__stderr__)
    try:
        return row()
    except Missing as missing:
        return {"missing": str(missing)}
    except Exception as error:  # of one row; the others go on
        traceback.print_exc()
        return {"error": _words(error)}
    finally:
        faulthandler.cancel_dump_traceback_later()
        if torch.cuda.is_available() and _alive():
            torch.cuda.empty_cache()


def _words(error):
    """Return an exception as one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _alive():
    """Whether the GPU still answers; after some errors it does not within the same process."""
    if not torch.cuda.is_available():
        return True
    try:
        return float(torch.ones(1, device="cuda")) == 1
    except RuntimeError:
        return False


def _write(file, row):
    """Write a whole file or none."""
    beside = file.with_suffix(".part")
    beside.write_text(json.dumps(row, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    beside.replace(file)


def _told(row):
    """Return what is printed of a row."""
    for name in ("missing", "error"):
        if name in row:
            return f"{name}: {row[name]}"
    return ", ".join(f"{name} {value:.4g}" for name, value in row.items() if isinstance(value, float)) or "kept"
