"""PASCAL VOC 2012 with the labels of SBD, merged here: ready-made merges differ in their void.

ROOT/JPEGImages, SegmentationClass, ImageSets/Segmentation   as `voc` has them
SBD/cls/ID.mat             MATLAB 5; GTcls.Segmentation, H × W, is the class, 0 to 20, without void
SBD/train.txt, val.txt     one ID a line; the IDs are VOC's

Source: Hariharan et al., Semantic Contours from Inverse Detectors, ICCV 2011.
"""

from pathlib import Path

import numpy as np

from pipeline.core.errors import DataError, SettingsError
from pipeline.core.sample import VOID, Sample
from pipeline.core.settings import nearest
from pipeline.datasets import Source, matlab, pictures, splits, voc

# What papers train and score on, made of the lists of VOC's train and val and of all that SBD has.
DERIVED = {
    "train_aug": lambda train, val, sbd: (sbd | train) - val,
    "trainval_aug": lambda train, val, sbd: sbd | train | val,
    "crfrnn_train": lambda train, val, sbd: sbd | train,  # with crfrnn_val: section 6 of arXiv:1502.03240
    "crfrnn_val": lambda train, val, sbd: val - sbd,
}
AGAIN = "take the file from its archive again"


def read(settings, seed):
    """Open both; `settings` as in the reader's schema, `seed` is not used.

    Parameters
    ----------
    settings : Settings
        ``splits`` name lists of VOC or of `DERIVED`. ``label_priority``, "voc" or "sbd", says whose labels an image of
        train has that both know; images of val always have VOC's, as only those are evaluated on.
        With ``val_labels`` "none" val is void everywhere: VOC's list test, whose labels only its server has.
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
    root, folder = Path(settings.root).expanduser(), Path(settings.sbd).expanduser()
    named = {split: _names(root, folder, split, name) for split, name in settings.splits.items()}
    divided, _ = splits.divide(root, named)
    files = {}
    for split, names in divided.items():
        for name in names:
            if split == "val" and settings.val_labels == "none":
                files[name] = voc.image_file(root, name), None
                continue
            choices = [voc.truth_file(root, name)]
            if split != "val":
                choices.append(folder / "cls" / f"{name}.mat")
            if settings.label_priority == "sbd":
                choices.reverse()
            truth = next((path for path in choices if path.is_file()), None)
            if truth is None:
                raise DataError(" or ".join(map(str, choices)), "no such file", "labels of all images", AGAIN)
            files[name] = voc.image_file(root, name), truth
    class_names = tuple(settings.class_names)
    return Source(class_names, divided, lambda name: _sample(name, *files[name], len(class_names)))


def _names(root, folder, split, name):
    """Return the images of one of VOC's lists, or of one that is made of VOC's and SBD's."""
    if name in DERIVED:
        train, val = (frozenset(voc.names_in(root, "Segmentation", each)) for each in ("train", "val"))
        do = "set `sbd` to the folder with cls, train.txt and val.txt"
        sbd = frozenset().union(*(splits.names_of(folder / f"{each}.txt", do) for each in ("train", "val")))
        if not (names := sorted(DERIVED[name](train, val, sbd))):
            raise DataError(f"{root} and {folder}, list {name}", "no image", "at least one", "check the lists of both")
        return names
    lists = [path.stem for path in (root / "ImageSets/Segmentation").glob("*.txt")]
    if lists and name not in lists:
        known = [*DERIVED, *lists]
        raise SettingsError(f"key 'splits.{split}'", f"'{name}'", "a list of VOC's or a made one", nearest(name, known))
    return voc.names_in(root, "Segmentation", name)


def _sample(name, image_path, truth_path, classes):
    image = pictures.photograph(image_path)
    if truth_path is None:
        return Sample(name, image, np.full(image.shape[:2], VOID, dtype=np.uint8))
    if truth_path.suffix == ".mat":
        labels = matlab.labels(truth_path, "GTcls", "Segmentation")
        bad, expected = (labels < 0) | (labels >= classes), f"0 to {classes - 1}; SBD has no void"
        pictures.check_labels(truth_path, labels, bad, "value", expected, AGAIN)
    else:
        labels = pictures.indices(truth_path)
        pictures.check_classes(truth_path, labels, classes, AGAIN)
    pictures.check_size(truth_path, labels, image_path, image)
    return Sample(name, image, labels.astype(np.uint8))
