"""A tiny folder in the layout of PASCAL Context, and ways to spoil it."""

import numpy as np
from PIL import Image
from scipy.io import savemat

from pipeline import datasets
from pipeline.core import settings as settings_files
from pipeline.core.settings import Settings

TRAIN, VAL = [f"2008_{number:06d}" for number in range(10)], ["2009_000001", "2009_000002"]
ALIASES = {"diningtable": "table", "bedcloth": "bedclothes", "clothes": "cloth"}
FREQUENT = ["sky", "diningtable", "bedcloth", "clothes", *(f"name {number:02d}" for number in range(55, 0, -1))]
OTHERS = ["accordion", "air conditioner", "clothes tree", "unknown", "wool"]
LABELS = sorted([ALIASES.get(name, name) for name in FREQUENT] + OTHERS)  # ids from 1 on, in this order
SIZE = 12, 14


def config():
    return settings_files.read(settings_files.ROOT / "config" / "packs" / "pascal_context.yaml", "packs").plain()


def settings(root, **changed):
    whole = {key: value for key, value in config().items() if key != "counts"}  # of which this is a miniature
    return Settings(whole | {"root": str(root / "VOC2010"), "labels": str(root / "context")} | changed)


def read(root, **changed):
    return datasets.read(settings(root, **changed), seed=0)


def photograph(name):
    return np.random.default_rng(sum(name.encode())).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def ids_of(name):
    """Every id once or oftener, in an order of the name's own."""
    ids = np.resize(np.arange(1, len(LABELS) + 1, dtype=np.uint16), SIZE)
    return np.random.default_rng(sum(name.encode())).permutation(ids.ravel()).reshape(SIZE)


def save_ids(root, name, array, key="LabelMap"):
    savemat(mat(root, name), {key: array}, do_compression=True)


def mat(root, name):
    return root / "context" / "trainval" / f"{name}.mat"


def save_list(root, split, names):
    (root / "VOC2010" / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))


def save_names(root, file, names, line="{}: {}\n"):
    path = root / "context" / file
    path.write_text("".join(line.format(number, name) for number, name in enumerate(names, start=1)))
    return path


def tree(root):
    """Make a miniature of 64 labels in a folder: ten training images, two of validation."""
    for folder in ("VOC2010/JPEGImages", "VOC2010/ImageSets/Main", "context/trainval"):
        (root / folder).mkdir(parents=True)
    for name in TRAIN + VAL:
        Image.fromarray(photograph(name)).save(root / "VOC2010" / "JPEGImages" / f"{name}.jpg", quality=95)
        save_ids(root, name, ids_of(name))
    save_list(root, "train", TRAIN)
    save_list(root, "val", VAL)
    save_names(root, "labels.txt", LABELS)
    save_names(root, "59_labels.txt", FREQUENT)
    return root
