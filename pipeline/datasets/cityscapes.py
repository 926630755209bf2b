"""Cityscapes with fine labels, 19 classes.

ROOT/leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png         photograph
ROOT/gtFine/SPLIT/CITY/NAME_gtFine_labelIds.png          ids 0 to 33, as shipped; or
ROOT/gtFine/SPLIT/CITY/NAME_gtFine_labelTrainIds.png     classes 0 to 18 and 255, as the authors' scripts make them

Source: Cordts et al., The Cityscapes Dataset for Semantic Urban Scene Understanding, CVPR 2016.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.core.errors import DataError
from pipeline.core.sample import VOID, Sample
from pipeline.datasets import Source, pictures, splits

# Classes in their order, with their ids; every other id is void.
CLASSES = {
    "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17, "traffic light": 19,
    "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23, "person": 24, "rider": 25, "car": 26, "truck": 27,
    "bus": 28, "train": 31, "motorcycle": 32, "bicycle": 33,
}  # fmt: skip
IDS = 34
AGAIN = "take the file from gtFine_trainvaltest.zip"
PHOTOGRAPH, LABELS, TRAIN_LABELS = "_leftImg8bit.png", "_gtFine_labelIds.png", "_gtFine_labelTrainIds.png"
SPLITS = ("train", "val")  # the labels of test are kept back


def read(settings, seed):
    """Open Cityscapes; `settings` as in the reader's schema, `seed` is not used.

    Returns
    -------
    Source
        Held out are min(200, a fifth) of the images of train, as `splits.hold_out` chooses. At half resolution images
        are averaged over 2 × 2 px, of labels the lower right of each four is taken; `full` has them all.

    Raises
    ------
    DataError
        If a folder, image or label is missing or does not fit; the message names the file.
    """
    root = Path(settings.root).expanduser()
    photographs = {split: _photographs(root, split) for split in SPLITS}
    files = {
        name: (path, _labels_file(root, split, path))
        for split, paths in photographs.items()
        for name, path in paths.items()
    }
    divided, _ = splits.divide(root, photographs)
    half = settings.resolution == "half"
    return Source(tuple(CLASSES), divided, lambda name: _sample(name, *files[name], half))


def _photographs(root, split):
    """Return the paths of a split's photographs by name, in the order of names."""
    folder = root / "leftImg8bit" / split
    found = {path.name.removesuffix(PHOTOGRAPH): path for path in sorted(folder.glob(f"*/*{PHOTOGRAPH}"))}
    if not found:
        do = "unpack leftImg8bit_trainvaltest.zip there, or set `root` to the folder with leftImg8bit and gtFine"
        raise DataError(folder, "no photograph", f"CITY/NAME{PHOTOGRAPH}", do)
    return found


def _labels_file(root, split, photograph):
    """Return the path of a photograph's labels, ids before classes."""
    folder = root / "gtFine"
    if not folder.is_dir():
        raise DataError(folder, "no such folder", "fine labels", "unpack gtFine_trainvaltest.zip beside leftImg8bit")
    stem = photograph.name.removesuffix(PHOTOGRAPH)
    beside = folder / split / photograph.parent.name
    return pictures.first_file(beside / f"{stem}{LABELS}", beside / f"{stem}{TRAIN_LABELS}")


def _sample(name, image_path, truth_path, half):
    image, labels = pictures.photograph(image_path), pictures.indices(truth_path)
    pictures.check_size(truth_path, labels, image_path, image)
    if truth_path.name.endswith(TRAIN_LABELS):
        pictures.check_classes(truth_path, labels, len(CLASSES), AGAIN)
        truth = labels
    else:
        pictures.check_labels(truth_path, labels, labels >= IDS, "value", f"ids from 0 to {IDS - 1}", AGAIN)
        table = np.full(256, VOID, np.uint8)
        table[list(CLASSES.values())] = np.arange(len(CLASSES))
        truth = table[labels]
    if not half:
        return Sample(name, image, truth)
    small = truth[1::2, 1::2]
    image = np.asarray(Image.fromarray(image).reduce(2))[: small.shape[0], : small.shape[1]]
    return Sample(name, image, np.ascontiguousarray(small), full=truth)
