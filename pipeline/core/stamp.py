"""What an output came from: code, versions, device, seed, settings and the inputs' digests.

A stamp holds no time and no path but those of the settings, so that the same work gives the same stamp.
"""

import json
import platform
import subprocess
from importlib import metadata

from pipeline.core import closure
from pipeline.core.settings import ROOT

LIBRARIES = ("torch", "numpy", "numba", "pillow", "h5py", "zarr", "scipy", "kornia")


def make(stage, *, inputs, settings=None, modules=(), **more):
    """Return the stamp of one output.

    Parameters
    ----------
    stage : str
        The stage's name, "refine" for example.
    inputs : dict of str to str
        Digest of each input, by the name of its option.
    settings : Settings, optional
        All settings the output depends on.
    modules : sequence of str
        Modules found by name at run time, whose sources count beside the stage's own.
    **more
        Anything else the output depends on: seed, threads, device.

    Returns
    -------
    dict
        Plain values, ready for JSON.
    """
    return {
        "stage": stage,
        "project": f"edgewise {metadata.version('edgewise')}",
        "commit": commit(),
        "source": closure.source_hash(f"pipeline.{stage}", *modules),
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in LIBRARIES},
        "inputs": dict(inputs),
        "settings": settings.plain() if settings is not None else {},
        **more,
    }


def same_work(one, other):
    """Tell whether two stamps describe the same work; a commit that leaves the sources alone does not count."""
    return {**one, "commit": None} == {**other, "commit": None}


def commit():
    """Return the commit of the checkout, with "+" if tracked files differ from it, or "unknown" outside git."""
    run = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def to_json(stamp):
    """Write a stamp as one line of JSON with sorted keys."""
    return json.dumps(stamp, sort_keys=True, ensure_ascii=False)
