"""Cityscapes: ids become classes, both kinds of label files, half resolution; trees that are not whole are refused."""

import numpy as np
import pytest
from observe import refusal
from PIL import Image

from pipeline.core import settings
from pipeline.datasets import cityscapes, splits

TRAIN = [f"aachen_{number:06}_000019" for number in range(6)] + ["ulm_000000_000019"]
VAL = ["lindau_000000_000019", "munster_000003_000019"]
NAMES = ("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation",
         "terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")  # fmt: skip
# Of cityscapesScripts' labels.py: the train id of every id from 0 to 33, 255 where it is not evaluated.
TRAIN_IDS = [255, 255, 255, 255, 255, 255, 255, 0, 1, 255, 255, 2, 3, 4, 255, 255, 255, 5, 255, 6, 7, 8, 9, 10, 11, 12,
             13, 14, 15, 255, 255, 16, 17, 18]  # fmt: skip


def chosen(root, **changed):
    path = settings.ROOT / "config" / "packs" / "cityscapes.yaml"
    return settings.check(settings.read(path, "packs").plain() | {"root": str(root)} | changed, "packs", where="a test")


def read(root, **changed):
    return cityscapes.read(chosen(root, **changed), seed=0)


def drawn(name, size=(34, 40)):
    """Return image and ids, every id among them."""
    rng = np.random.default_rng(sum(map(ord, name)))
    ids = np.arange(34, dtype=np.uint8)[:, None].repeat(size[1], axis=1)
    return rng.integers(0, 256, (*size, 3), dtype=np.uint8), rng.permuted(ids, axis=0)


def labels_of(root, name, kind="labelIds"):
    split = "val" if name in VAL else "train"
    return root / "gtFine" / split / name.split("_")[0] / f"{name}_gtFine_{kind}.png"


@pytest.fixture
def root(tmp_path):
    for name in TRAIN + VAL:
        image, ids = drawn(name)
        truth = labels_of(tmp_path, name)
        photograph = (
            tmp_path / "leftImg8bit" / truth.parent.relative_to(tmp_path / "gtFine") / f"{name}_leftImg8bit.png"
        )
        for path, array in ((photograph, image), (truth, ids)):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
    # What the archives hold besides.
    (truth.parent / f"{name}_gtFine_color.png").write_bytes(b"")
    (truth.parent / f"{name}_gtFine_polygons.json").write_text("{}")
    return tmp_path


def test_splits_and_classes(root):
    source = read(root)
    assert source.class_names == NAMES
    assert source.splits["val"] == tuple(VAL)
    assert source.splits["heldout"] == splits.hold_out(tuple(TRAIN), {name: name for name in TRAIN})
    assert sorted(source.splits["train"] + source.splits["heldout"]) == sorted(TRAIN)
    assert len(source.splits["heldout"]) == 1


def test_ids_become_classes(root):
    sample = read(root, resolution="full").sample(VAL[0])
    image, ids = drawn(VAL[0])
    assert np.array_equal(sample.image, image)
    assert np.array_equal(sample.truth, np.array(TRAIN_IDS, np.uint8)[ids])
    assert set(np.unique(sample.truth)) == {*range(19), 255}


def test_label_files_that_hold_classes_are_told_by_their_name(root):
    classes = np.array([*range(19), 255], np.uint8)[drawn(TRAIN[0])[1] % 20]
    Image.fromarray(classes).save(labels_of(root, TRAIN[0], "labelTrainIds"))
    labels_of(root, TRAIN[0]).unlink()
    assert np.array_equal(read(root, resolution="full").sample(TRAIN[0]).truth, classes)


def test_ids_go_before_classes(root):
    Image.fromarray(np.zeros((34, 40), np.uint8)).save(labels_of(root, TRAIN[0], "labelTrainIds"))
    assert np.unique(read(root).sample(TRAIN[0]).truth).size > 1


def test_half_resolution_averages_images_and_takes_one_label_of_four(root):
    whole, half = (read(root, resolution=size).sample(VAL[1]) for size in ("full", "half"))
    assert half.image.shape == (17, 20, 3) and half.truth.shape == (17, 20)
    mean = whole.image.reshape(17, 2, 20, 2, 3).astype(float).mean(axis=(1, 3))
    assert np.abs(half.image - mean).max() <= 0.5 + 1e-9
    assert np.array_equal(half.truth, whole.truth[1::2, 1::2])
    assert np.array_equal(half.full, whole.truth) and whole.full is None


def test_categories_are_those_of_the_authors_scripts():
    grouped = chosen("anywhere").categories.plain()
    assert list(grouped) == ["flat", "construction", "object", "nature", "sky", "human", "vehicle"]
    assert [name for names in grouped.values() for name in names] == list(NAMES)


def remove(folder):
    def spoil(root):
        import shutil

        shutil.rmtree(root / folder)

    return spoil


def bad_id(root):
    _, ids = drawn(VAL[0])
    ids[3, 5] = 34
    Image.fromarray(ids).save(labels_of(root, VAL[0]))


def bad_class(root):
    labels_of(root, VAL[0]).unlink()
    Image.fromarray(np.full((34, 40), 19, np.uint8)).save(labels_of(root, VAL[0], "labelTrainIds"))


def colours(root):
    Image.new("RGB", (40, 34)).save(labels_of(root, VAL[0]))


def other_size(root):
    Image.new("L", (20, 34)).save(labels_of(root, VAL[0]))


BAD = {
    "no gtFine": (
        remove("gtFine"),
        "gtFine: found no such folder, expected fine labels; unpack gtFine",
    ),
    "no photographs": (
        remove("leftImg8bit/val"),
        "leftImg8bit/val: found no photograph, expected CITY/NAME_",
    ),
    "no labels": (lambda root: labels_of(root, VAL[0]).unlink(), "_gtFine_labelIds.png: found no such file, expected"),
    "an unknown id": (
        bad_id,
        "_labelIds.png, row 3, col 5: found the value 34, expected ids from 0 to 33",
    ),
    "an unknown class": (
        bad_class,
        "TrainIds.png, row 0, col 0: found the value 19, expected 0 to 18, or 255",
    ),
    "colours": (colours, "found a PNG of mode RGB, expected one of mode P or L, whose values are classes; save"),
    "another size": (
        other_size,
        "found labels of 34 × 20 px (rows × cols), expected 34 × 40 as in lindau_0",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_trees_are_refused_in_one_line(root, name):
    spoil, words = BAD[name]
    spoil(root)

    def everything():
        source = read(root)
        for sample in source.splits["val"]:
            source.sample(sample)

    assert words in refusal(everything)
