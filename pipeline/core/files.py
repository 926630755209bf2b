"""Outputs that appear whole or not at all: written beside their place, then renamed into it."""

import hashlib
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

from pipeline.core.errors import DataError


def partial(path):
    """Return where an output is written until it is whole: ``.NAME.partial`` beside it."""
    path = Path(path)
    return path.parent / f".{path.name}.partial"


@contextmanager
def whole_file(path):
    """Yield the path to write to; on success it becomes `path`, on failure nothing of it is left."""
    path, beside = Path(path), partial(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield beside
        with beside.open("rb") as written:
            os.fsync(written.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def move_folder(beside, path):
    """Put a finished folder in its place; the old one is moved aside first and removed last."""
    beside, path = Path(beside), Path(path)
    old = path.parent / f".{path.name}.old"
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        path.replace(old)
    beside.replace(path)
    shutil.rmtree(old, ignore_errors=True)


def digest(path):
    """Return the SHA-256 of a file, as hexadecimal digits."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise DataError(path, "no such file", "a file", "check the path or run the stage that makes it") from None
