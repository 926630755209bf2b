"""Fitted systems: settings and fitted numbers in one npz file.

Arrays under their own names; `settings`, `curve` and `stamp` as JSON text. Reading never unpickles.
"""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.core.errors import DataError
from pipeline.core.settings import Settings
from pipeline.core.stamp import to_json

FORMAT = "edgewise fitted 1"
_TEXTS = ("format", "settings", "curve", "stamp")


@dataclass(frozen=True)
class Fitted:
    """One system, ready to refine.

    Attributes
    ----------
    settings : Settings
        As in its YAML file.
    state : dict of str to ndarray
        Fitted numbers by name; empty for a system that learns nothing.
    curve : list of dict
        What the fit went through, one entry per step that it reports.
    stamp : dict
    """

    settings: Settings
    state: dict
    curve: list
    stamp: dict


def write(path, fitted):
    """Write to exactly `path`."""
    clash = set(fitted.state) & set(_TEXTS)
    if clash:
        raise ValueError(f"a fitted number may not be called {clash.pop()}")
    texts = {
        "format": FORMAT,
        "settings": to_json(fitted.settings.plain()),
        "curve": json.dumps(fitted.curve),
        "stamp": to_json(fitted.stamp),
    }
    with Path(path).open("wb") as file:
        np.savez(file, **{name: np.array(text) for name, text in texts.items()}, **fitted.state)


def read(path):
    """Read a fitted system; DataError if the file is missing, damaged or something else."""
    try:
        # Opened as the archive it must be: numpy.load would take a bare array too.
        with Path(path).open("rb") as opened, np.lib.npyio.NpzFile(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise DataError(path, "no such file", "a fitted system", "run `fit` first or mend the path") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(path, f"a damaged file ({reason})", "a fitted system", "run `fit` again") from None
    found = str(arrays.get("format", "none"))
    if found != FORMAT or not set(_TEXTS) <= set(arrays):
        raise DataError(path, f"format '{found}'", f"a whole '{FORMAT}'", "run `fit` again")
    texts = {name: str(arrays.pop(name)) for name in _TEXTS}
    return Fitted(
        Settings(json.loads(texts["settings"])),
        arrays,
        json.loads(texts["curve"]),
        json.loads(texts["stamp"]),
    )
