"""PASCAL Context: every pixel of VOC 2010 labelled with 459 names, of which 59 are classes and the rest background.

ROOT/JPEGImages/ID.jpg            photograph
ROOT/ImageSets/Main/SPLIT.txt     one ID a line
LABELS/trainval/ID.mat            MATLAB 5; the array LabelMap, H × W, holds ids of labels.txt
LABELS/labels.txt                 "id: name" a line, 459 of them
LABELS/59_labels.txt              "id: name" a line, the 59 frequent names in the order of the classes

Source: Mottaghi et al., The Role of Context for Object Detection and Semantic Segmentation in the Wild, CVPR 2014.
"""

import re
from pathlib import Path

import numpy as np

from pipeline.core.errors import DataError
from pipeline.core.sample import VOID, Sample
from pipeline.datasets import Source, matlab, pictures, splits, voc

ALIASES = {"diningtable": "table", "bedcloth": "bedclothes", "clothes": "cloth"}  # in 59_labels.txt → in labels.txt
CLASSES = 59
AGAIN = "take the file from the data set's page again"
UNKNOWN = -1  # what becomes of an id that labels.txt lacks


def read(settings, seed):
    """Open PASCAL Context; `settings` as in the reader's schema, `seed` is not used.

    Parameters
    ----------
    settings : Settings
        With ``background: class`` there are 60 classes and no void: 0 is background, 1 to 59 follow 59_labels.txt
        ("pc60"). With ``void`` there are 59, from 0 on, and background is void ("pc59").
    seed : int

    Returns
    -------
    Source
        Held out is the list given, or min(200, a fifth) of the train list as `splits.hold_out` chooses.

    Raises
    ------
    DataError
        If a list, image or label is missing or does not fit; the message names the file.
    """
    root, folder = Path(settings.root).expanduser(), Path(settings.labels).expanduser()
    named = {split: voc.names_in(root, "Main", name) for split, name in settings.splits.items()}
    divided, _ = splits.divide(root, named)
    class_names, table = _classes(folder, settings.background == "class")
    for names in named.values():
        for name in names:
            _files(root, folder, name)
    return Source(class_names, divided, lambda name: _sample(root, folder, name, table))


def _classes(folder, with_background):
    """Return the names of the classes, and as int16 what becomes of every id: its class, VOID or UNKNOWN."""
    ids = {name: number for number, name in _names(folder / "labels.txt").items()}
    frequent = tuple(_names(path := folder / "59_labels.txt").values())
    if len(frequent) != CLASSES:
        raise DataError(path, f"{len(frequent)} names", f"{CLASSES}", AGAIN)
    table = np.full(max(ids.values()) + 1, UNKNOWN, np.int16)
    table[list(ids.values())] = 0 if with_background else VOID
    for place, name in enumerate(frequent):
        number = ids.pop(ALIASES.get(name, name), None)
        if number is None:
            raise DataError(path, f"the name '{name}'", "names of labels.txt, each once", AGAIN)
        table[number] = place + with_background
    return ("background", *frequent) if with_background else frequent, table


def _names(path):
    """Read a list of "id: name" lines as a dict, in the order of the lines."""
    if not path.is_file():
        do = "set `labels` to the folder with trainval, labels.txt and 59_labels.txt"
        raise DataError(path, "no such file", "a list of labels, 'id: name' a line", do)
    names = {}
    # Five digits keep the table of ids small; a name that is not UTF-8 becomes one that matches no other.
    for place, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        match = re.fullmatch(r"\s*([1-9][0-9]{0,4})\s*:\s*(\S.*?)\s*", line, re.ASCII)
        if match and int(match[1]) not in names and match[2] not in names.values():
            names[int(match[1])] = match[2]
        elif line.strip():
            expected = "'id: name', ids from 1 on, each id and each name once"
            raise DataError(f"{path}, line {place}", f"'{line.strip()[:40]}'", expected, AGAIN)
    if not names:
        raise DataError(path, "no names", "a list of labels, 'id: name' a line", AGAIN)
    return names


def _files(root, folder, name):
    """Return the paths of an image and its labels; DataError if one is missing."""
    return voc.image_file(root, name), pictures.first_file(folder / "trainval" / f"{name}.mat")


def _sample(root, folder, name, table):
    image_path, truth_path = _files(root, folder, name)
    image, labels = pictures.photograph(image_path), matlab.labels(truth_path, "LabelMap")
    pictures.check_size(truth_path, labels, image_path, image)
    known = (labels > 0) & (labels < len(table))
    truth = np.where(known, table[np.where(known, labels, 0)], UNKNOWN)
    # A zero gives away the ready-made maps of 59 classes, whose other ids would pass, as other names.
    do = "take both from trainval.tar.gz; the maps of 59_context_labels.tar.gz hold other ids"
    pictures.check_labels(truth_path, labels, truth == UNKNOWN, "id", f"one of {folder.name}/labels.txt", do)
    return Sample(name, image, truth.astype(np.uint8))
