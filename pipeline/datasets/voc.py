"""Any folder in PASCAL VOC layout.

ROOT/JPEGImages/ID.jpg (or .png)     photograph
ROOT/SegmentationClass/ID.png        8-bit palette or grey PNG; the pixel's value is its class, 255 is void
ROOT/ImageSets/Segmentation/SPLIT.txt  one ID a line
"""

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from pipeline.core.errors import DataError
from pipeline.core.sample import VOID, Sample
from pipeline.core.settings import nearest
from pipeline.datasets import Source

HELD_OUT_SEED = 2018  # fixed: the held-out images are part of the protocol, not of a run


def read(settings, seed):
    """Open a VOC-layout folder; `settings` as in the reader's schema, `seed` is not used.

    Raises
    ------
    DataError
        If a folder, list, image or label is missing or does not fit; the message names the file.
    """
    root = Path(settings.root).expanduser()
    class_names = _class_names(settings, root)
    train, val, heldout = lists(root, "Segmentation", settings.splits)
    blocks = _blocks([*train, *heldout, *val], settings.block_length)
    if heldout:
        left = [name for name in train if name not in set(heldout)]
        _check_own(root, left, heldout, blocks)
    else:
        heldout = hold_out(train, blocks)
        if len(heldout) == len(train):
            found = f"{len(train)} images in one block"
            raise DataError(
                f"{root}, split train", found, "more than is held out", "lower `block_length` or add images"
            )
    for name in (*train, *heldout, *val):
        _files(root, name)
    splits = {"train": tuple(sorted(set(train) - set(heldout))), "heldout": heldout, "val": tuple(val)}

    def sample(name):
        return _sample(root, name, len(class_names))

    return Source(class_names, splits, sample, blocks if settings.block_length > 1 else {})


def lists(root, folder, splits):
    """Return the image names of train, val and heldout, lists of ROOT/ImageSets/FOLDER; of the last () if not given.

    `splits` maps "train", "val" and perhaps "heldout" to the lists' names, without .txt. DataError if a list is
    missing, empty or names an image twice, or if val and another name one; what is held out may stand in train.
    """
    named = {split: tuple(_list(root, folder, name)) for split, name in splits.items()}
    for split in sorted(set(named) - {"val"}, reverse=True):
        if both := sorted(set(named[split]) & set(named["val"])):
            where, found = f"{root}, splits {split} and val", f"{both[0]} in both"
            raise DataError(where, found, "disjoint lists", "mend the lists")
    return named["train"], named["val"], named.get("heldout", ())


def _check_own(root, train, heldout, blocks):
    """Refuse a held-out list that leaves nothing to train on, or neighbouring frames of what it names."""
    where = f"{root}, split heldout"
    if not train:
        raise DataError(where, "all images of train", "fewer", "leave some to train on")
    shared = sorted({blocks[name] for name in train} & {blocks[name] for name in heldout})
    if shared:
        raise DataError(where, f"a part of the block {shared[0]}", "whole blocks", "list all its frames, or none")


def hold_out(names, blocks):
    """Choose the images that systems are fitted on: min(200, a fifth), whole blocks in an order of fixed seed.

    Paper arXiv:1805.04777, section 5, holds out 200; which is not said. Here: NumPy's RandomState(2018) permutes
    the sorted names (of blocks, for video), and the first ones are taken.
    """
    count = min(200, len(names) // 5)
    members = {}
    for name in sorted(names):
        members.setdefault(blocks[name], []).append(name)
    keys = sorted(members)
    chosen = []
    for index in np.random.RandomState(HELD_OUT_SEED).permutation(len(keys)):
        if len(chosen) < count:
            chosen += members[keys[index]]
    return tuple(sorted(chosen[:count] if len(keys) == len(names) else chosen))


def _blocks(names, length):
    """Give each name its block: itself, or with `length` n its run of n neighbouring frames of one clip."""
    if length == 1:
        return {name: name for name in names}
    clips, blocks = {}, {}
    for name in sorted(names):
        clip = name.rpartition("_")[0]
        position = clips[clip] = clips.get(clip, -1) + 1
        blocks[name] = f"{clip}/{position // length:04d}"
    return blocks


def _class_names(settings, root):
    names = settings.class_names
    if isinstance(names, str):
        path = root / names
        if not path.is_file():
            raise DataError(path, "no such file", "a list of class names, one a line", "add it, or list them")
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not 2 <= len(names) <= 255 or len(set(names)) < len(names):
        found = f"{len(names)} class names, {len(set(names))} different"
        raise DataError(f"{root}, class names", found, "2 to 255 different ones", "mend the list")
    return tuple(names)


def _list(root, folder, split):
    path = root / "ImageSets" / folder / f"{split}.txt"
    if not path.is_file():
        known = [file.stem for file in path.parent.glob("*.txt")]
        do = nearest(split, known) if known else f"check that {root} has the layout of PASCAL VOC"
        raise DataError(path, "no such file", "a list of image names, one a line", do)
    names = path.read_text(encoding="utf-8").split()
    if not names:
        raise DataError(path, "no names", "at least one", "list the images of this split")
    twice = next((name for name, other in zip(sorted(names), sorted(names)[1:], strict=False) if name == other), None)
    if twice:
        raise DataError(path, f"the name {twice} twice", "each once", "delete one")
    return names


def first_file(*candidates):
    """Return the first path that is a file; DataError naming the first of all if none is."""
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        found, expected = "no such file", "one for every name in the lists"
        raise DataError(candidates[0], found, expected, "add it or unlist the name")
    return path


def image_file(root, name):
    """Return the path of a photograph in ROOT/JPEGImages; DataError if there is none."""
    return first_file(*(root / "JPEGImages" / f"{name}{ending}" for ending in (".jpg", ".jpeg", ".png")))


def photograph(path):
    """Read a photograph as (H, W, 3) uint8 RGB; DataError if the file is damaged."""
    return np.asarray(_open(path, "a photograph").convert("RGB"))


def indices(path):
    """Read a PNG whose values are classes or ids as (H, W) uint8; DataError if it is damaged or holds colours."""
    labels = _open(path, "labels")
    if labels.mode not in ("P", "L"):
        expected = "one of mode P or L, whose values are classes"
        raise DataError(path, f"a PNG of mode {labels.mode}", expected, "save the indices, not their colours")
    return np.asarray(labels)


def check_size(truth_path, truth, image_path, image):
    """Refuse labels whose rows and cols are not the photograph's."""
    if truth.shape != image.shape[:2]:
        raise DataError(
            truth_path,
            f"labels of {truth.shape[0]} × {truth.shape[1]} px (rows × cols)",
            f"{image.shape[0]} × {image.shape[1]} as in {image_path.name}",
            "replace the one that is wrong",
        )


def check_labels(path, labels, bad, what, expected, do):
    """Refuse labels (H, W) where `bad`, of the same shape, is true anywhere; the DataError names the first pixel."""
    if bad.any():
        row, col = np.argwhere(bad)[0]
        raise DataError(f"{path}, row {row}, col {col}", f"the {what} {labels[row, col]}", expected, do)


def _files(root, name):
    """Return the paths of an image and its labels; DataError if one is missing."""
    return image_file(root, name), first_file(root / "SegmentationClass" / f"{name}.png")


def _sample(root, name, classes):
    image_path, truth_path = _files(root, name)
    image, truth = photograph(image_path), indices(truth_path)
    check_size(truth_path, truth, image_path, image)
    bad, expected = (truth >= classes) & (truth != VOID), f"0 to {classes - 1}, or {VOID} for void"
    check_labels(truth_path, truth, bad, "value", expected, "mend the labels or the class names")
    return Sample(name, image, truth.astype(np.uint8))


def _open(path, what):
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())[:100]
        raise DataError(path, f"a damaged file ({reason})", what, "replace the file") from None
