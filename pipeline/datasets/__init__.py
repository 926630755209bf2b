"""Raw data sets. A reader is a file of this folder, found by the name that a pack's settings give.

Every reader has ``read(settings, seed)`` and returns a `Source`; ``settings`` is the frozen form of
``config/packs/<pack>.yaml``.
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.core.errors import SettingsError
from pipeline.core.sample import Sample
from pipeline.core.settings import nearest


@dataclass(frozen=True)
class Source:
    """A data set before it is packed.

    Attributes
    ----------
    class_names : tuple of str
        In the order of the indices in the truth.
    splits : dict of str to tuple of str
        Sample names of "train", "heldout" and "val"; no name stands in two of them.
    sample : callable
        Reads or makes the `Sample` of one name.
    blocks : dict of str to str
        For video, the block of neighbouring frames that a name belongs to; empty for single photographs.
    """

    class_names: tuple[str, ...]
    splits: dict[str, tuple[str, ...]]
    sample: Callable[[str], Sample]
    blocks: dict[str, str] = field(default_factory=dict)


def read(settings, seed):
    """Open the data set that the settings name.

    Parameters
    ----------
    settings : object
        ``settings.reader`` is the reader's file name without ``.py``; the other keys are the reader's.
    seed : int
        Passed on to the reader.

    Returns
    -------
    Source

    Raises
    ------
    SettingsError
        If there is no such reader; the message names the nearest one, or all.
    """
    files = sorted(module.name for module in pkgutil.iter_modules(__path__))
    if settings.reader in files:
        module = _module(settings.reader)
        if hasattr(module, "read"):
            return module.read(settings, seed)
    known = [name for name in files if hasattr(_module(name), "read")]  # the others are parts of a reader
    raise SettingsError("reader", f"'{settings.reader}'", "a known reader", nearest(settings.reader, known))


def _module(name):
    return importlib.import_module(f"{__name__}.{name}")
