"""Fitted systems: settings and fitted numbers in one npz file.

Arrays under their own names; `settings`, `curve` and `stamp` as JSON text. Reading never unpickles.
"""

import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.core import settings
from pipeline.core.errors import DataError
from pipeline.core.settings import Settings
from pipeline.core.stamp import to_json

FORMAT = "edgewise fitted 1"
_TEXTS = ("format", "settings", "curve", "stamp", "state_names")


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
        "state_names": json.dumps(sorted(fitted.state)),
    }
    with Path(path).open("wb") as file:
        np.savez(file, **{name: np.array(text) for name, text in texts.items()}, **fitted.state)


def read(path):
    """Read a fitted system.

    Raises
    ------
    DataError
        If the file is missing, damaged or something else.
    SettingsError
        If the system of today has other settings; `fit` makes the file anew.
    """
    try:
        # Opened as the archive it must be: numpy.load would take a bare array too.
        with Path(path).open("rb") as opened, np.lib.npyio.NpzFile(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        texts = {name: str(arrays.pop(name)) for name in _TEXTS if name in arrays}
        if texts.get("format") == FORMAT:
            if json.loads(texts["state_names"]) != sorted(arrays):
                raise ValueError("other numbers than were written")
            values, curve, stamp = (json.loads(texts[name]) for name in ("settings", "curve", "stamp"))
            # A version of the code that knows other keys wrote them, perhaps.
            return Fitted(settings.check(values, "systems", f"{path}, its settings"), arrays, curve, stamp)
    except FileNotFoundError:
        raise DataError(path, "no such file", "a fitted system", "run `fit` first or mend the path") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError, RuntimeError, zlib.error) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(path, f"a damaged file ({reason})", "a fitted system", "run `fit` again") from None
    raise DataError(path, f"format '{texts.get('format', 'none')}'", f"'{FORMAT}'", "run `fit` again")
