"""A plain folder of photographs and label images.

ROOT/IMAGES, ROOT/LABELS   paths of a split's photographs and labels, with {name} where an image's name stands
ROOT/LIST                  the names of a split, one a line; without it all photographs that are there
"""

import glob
from pathlib import Path, PureWindowsPath

import numpy as np

from pipeline.core.errors import DataError, SettingsError
from pipeline.core.sample import VOID, Sample
from pipeline.datasets import Source, pictures, splits

NAME = "{name}"


def read(settings, seed):
    """Open a folder; `settings` as in the reader's schema, `seed` is not used.

    Parameters
    ----------
    settings : Settings
        Labels are 8-bit values, of which 255 and those of ``void`` are void. Or, with ``colours``, names to (R, G, B),
        they are the colours of classes; those of other names are void.
    seed : int

    Returns
    -------
    Source
        Held out is the split given, or min(200, a fifth) of train as `splits.hold_out` chooses.

    Raises
    ------
    DataError
        If a list, image or label is missing or does not fit; the message names the file.
    SettingsError
        If a path has no {name}, or colours or void values contradict the classes.
    """
    root, class_names = Path(settings.root).expanduser(), tuple(settings.class_names)
    _check(settings, class_names)
    named, files = {}, {}
    for split, chosen in settings.splits.items():
        named[split] = _names(root, chosen)
        for name in named[split]:
            found = _files(root, chosen, name)
            if files.setdefault(name, found) != found:
                do = "rename one of the two, a name stands for one photograph"
                raise DataError(found[0], f"the name {name}, as {files[name][0]} has", "names of their own", do)
    divided, blocks = splits.divide(root, named, settings.block_length)
    colours = None if settings.colours == "none" else settings.colours

    def labels(path):
        return _coloured(path, class_names, colours) if colours else _indexed(path, class_names, settings.void)

    def sample(name):
        image_path, truth_path = files[name]
        image, truth = pictures.photograph(image_path), labels(truth_path)
        pictures.check_size(truth_path, truth, image_path, image)
        return Sample(name, image, truth)

    return Source(class_names, divided, sample, blocks)


def _check(settings, class_names):
    """Refuse paths without a place for the name, and colours or void values that contradict the classes."""
    for split, chosen in settings.splits.items():
        for key in ("images", "labels"):
            if chosen[key].count(NAME) != 1:
                where, expected = f"key 'splits.{split}.{key}'", f"a path with {NAME} in it, once"
                raise SettingsError(where, f"'{chosen[key]}'", expected, "mend the path")
    if settings.colours == "none":
        if classes := [value for value in settings.void if value < len(class_names)]:
            found, expected = f"{classes[0]}, the value of '{class_names[classes[0]]}'", "values that are no class"
            raise SettingsError("key 'void'", found, expected, "take it out")
        return
    if settings.void:
        do = "set [], and give void colours names in `colours` that are no class"
        raise SettingsError("key 'void'", f"{list(settings.void)}", "none where labels are colours", do)
    if missing := [name for name in class_names if name not in settings.colours]:
        raise SettingsError("key 'colours'", f"none for '{missing[0]}'", "one for every class", "add it")
    names = {}
    for name, colour in settings.colours.items():
        if names.setdefault(colour, name) != name:
            found = f"{list(colour)} for '{names[colour]}' and '{name}'"
            raise SettingsError("key 'colours'", found, "a colour of its own for each", "mend one of them")


def _names(root, chosen):
    """Return the names of a split: of its list, whose lines may be paths; or of all its photographs."""
    before, after = str(root / chosen.images).split(NAME)
    if "list" in chosen:
        path = root / chosen.list
        lines = splits.lines_of(path, f"check that {root} is the folder, or leave `list` out")
        # Somebody's paths, perhaps of Windows, which knows both slashes.
        return splits.each_once(path, [PureWindowsPath(line.split()[0]).name.removesuffix(after) for line in lines])
    found = sorted(glob.glob(f"{glob.escape(before)}*{glob.escape(after)}"))  # noqa: PTH207, whole paths are cut
    if not found:
        raise DataError(root, "no photographs", f"some at {chosen.images}", "check `root` and `images`")
    return [path[len(before) : len(path) - len(after)] for path in found]


def _files(root, chosen, name):
    """Return the paths of an image and its labels; DataError if one is missing."""
    return tuple(pictures.first_file(root / chosen[key].replace(NAME, name)) for key in ("images", "labels"))


def _indexed(path, class_names, void):
    """Read labels that are values: (H, W) uint8."""
    labels = pictures.indices(path)
    truth = np.where(np.isin(labels, void), np.uint8(VOID), labels)
    pictures.check_classes(path, truth, len(class_names), "mend the labels or the class names, or name it in `void`")
    return truth


def _coloured(path, class_names, colours):
    """Read labels that are colours: (H, W) uint8."""
    picture = pictures.photograph(path)
    truth, known = np.full(picture.shape[:2], VOID, np.uint8), np.zeros(picture.shape[:2], bool)
    for name, colour in colours.items():
        here = (picture == np.uint8(colour)).all(axis=2)
        known |= here
        if name in class_names:
            truth[here] = class_names.index(name)
    if not known.all():
        row, col = np.argwhere(~known)[0]
        found = "the colour ({}, {}, {})".format(*picture[row, col])
        do = "mend the labels, or give the colour a name there that is no class: void"
        raise DataError(f"{path}, row {row}, col {col}", found, "one of `colours`", do)
    return truth
