"""What several tests look at: the last line said, a refusal's text, whether two stores are equal, changed settings."""

import numpy as np
import pytest

from pipeline.core.errors import DataError


def said(capsys):
    """Return the last line on stderr."""
    return capsys.readouterr().err.splitlines()[-1]


def same_store(one, other):
    """Whether two stores hold the same arrays under the same names."""
    names = one.names
    return names == other.names and all(np.array_equal(one.read(name)[0], other.read(name)[0]) for name in names)


def net_file(tmp_path, run, values):
    """Write a network's settings beside a test's outputs; return the path."""
    path = run.yaml("changed", values)
    return path.rename(tmp_path / "changed.yaml")


def refusal(call, kind=DataError):
    """Return the one line of the error, of one kind, that a call raises."""
    with pytest.raises(kind) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def untimed(history):
    """Take the seconds out of a training's history: all else is the same again."""
    return [{key: value for key, value in epoch.items() if key != "seconds"} for epoch in history]
