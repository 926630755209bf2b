"""VOC 2012 with SBD's labels, on a miniature of both: who is in which list, and whose labels each image has."""

import numpy as np
import pytest
from observe import refusal
from PIL import Image
from scipy.io import savemat

from pipeline import datasets
from pipeline.core.errors import SettingsError
from pipeline.core.settings import Settings

CLASSES = ["background", "leaf", "berry"]
# Of VOC: 0 to 7 train, 10 to 14 val. SBD has some of both, and images that VOC has no labels for.
TRAIN, VAL = [f"2008_{n:06d}" for n in range(8)], [f"2008_{n:06d}" for n in range(10, 15)]
ALONE = [f"2009_{n:06d}" for n in range(10)]
SBD_TRAIN, SBD_VAL = [*TRAIN[:3], *ALONE[:6], VAL[0]], [*TRAIN[3:5], *ALONE[6:], VAL[1]]


def labels_of(name, source):
    rng = np.random.default_rng(sum(name.encode()) + (source == "sbd"))
    return rng.choice(np.array([0, 1, 2] + [255] * (source == "voc"), np.uint8), (12, 14))


def write_mat(path, labels):
    savemat(path, {"GTcls": {"Segmentation": labels, "Boundaries": np.zeros(3), "CategoriesPresent": [1]}})


@pytest.fixture
def root(tmp_path):
    voc, sbd = tmp_path / "VOC2012", tmp_path / "dataset"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (voc / folder).mkdir(parents=True)
    (sbd / "cls").mkdir(parents=True)
    for name in {*TRAIN, *VAL, *ALONE}:
        Image.fromarray(np.full((12, 14, 3), 90, np.uint8)).save(voc / "JPEGImages" / f"{name}.jpg")
    for name in TRAIN + VAL:
        image = Image.fromarray(labels_of(name, "voc"))
        image.putpalette([level for level in range(256) for _ in "rgb"])
        image.save(voc / "SegmentationClass" / f"{name}.png")
    for name in SBD_TRAIN + SBD_VAL:
        write_mat(sbd / "cls" / f"{name}.mat", labels_of(name, "sbd"))
    for path, names in (
        (voc / "ImageSets/Segmentation/train.txt", TRAIN),
        (voc / "ImageSets/Segmentation/val.txt", VAL),
        (sbd / "train.txt", SBD_TRAIN),
        (sbd / "val.txt", SBD_VAL),
    ):
        path.write_text("".join(f"{name}\n" for name in names))
    return tmp_path


def read(root, train="train_aug", val="val", **changed):
    chosen = {
        "reader": "voc_sbd",
        "root": str(root / "VOC2012"),
        "sbd": str(root / "dataset"),
        "label_priority": "voc",
        "val_labels": "voc",
        "class_names": CLASSES,
        "splits": {"train": train, "val": val},
        "trimap": "void",
    }
    return datasets.read(Settings(chosen | changed), seed=0)


def trained_on(source):
    return {*source.splits["train"], *source.splits["heldout"]}


@pytest.mark.parametrize(
    ("train", "val", "expected"),
    [
        ("train_aug", "val", {*TRAIN, *ALONE}),
        ("crfrnn_train", "crfrnn_val", {*TRAIN, *ALONE, *VAL[:2]}),
        ("train", "val", {*TRAIN}),
    ],
)
def test_lists_are_made_of_both(root, train, val, expected):
    source = read(root, train, val)
    assert trained_on(source) == expected
    assert source.splits["val"] == tuple(VAL if val == "val" else VAL[2:])
    assert len(source.splits["heldout"]) == len(expected) // 5


def test_all_that_has_labels_may_be_trained_on(root):
    """For the test server; what is scored then must be another list."""
    said = refusal(lambda: read(root, "trainval_aug"))
    assert f"splits train and val: found {VAL[0]} in both, expected disjoint lists" in said
    (root / "VOC2012/ImageSets/Segmentation/other.txt").write_text(f"{TRAIN[0]}\n")
    said = refusal(lambda: read(root, "trainval_aug", "other"))
    assert f"found {TRAIN[0]} in both" in said


def test_images_for_the_server_need_no_labels(root):
    (root / "VOC2012/ImageSets/Segmentation/test.txt").write_text("2012_000001\n")
    photograph = root / f"VOC2012/JPEGImages/{VAL[0]}.jpg"
    (root / "VOC2012/JPEGImages/2012_000001.jpg").write_bytes(photograph.read_bytes())
    source = read(root, "trainval_aug", "test", val_labels="none")
    assert trained_on(source) == {*TRAIN, *VAL, *ALONE}
    assert (source.sample("2012_000001").truth == 255).all()
    assert np.array_equal(source.sample(VAL[0]).truth, labels_of(VAL[0], "voc"))
    assert "no such file" in refusal(lambda: read(root, "trainval_aug", "test"))


@pytest.mark.parametrize("priority", ["voc", "sbd"])
def test_whose_labels_an_image_has(root, priority):
    source = read(root, label_priority=priority)
    both, alone, own, scored = TRAIN[0], ALONE[0], TRAIN[7], VAL[0]
    for name, where in ((both, priority), (alone, "sbd"), (own, "voc"), (scored, "voc")):
        sample = source.sample(name)
        assert np.array_equal(sample.truth, labels_of(name, where)), name
        assert sample.truth.dtype == np.uint8 and sample.image.shape == (12, 14, 3)


def test_an_image_of_voc_val_may_be_trained_on_with_either(root):
    for priority in ("voc", "sbd"):
        truth = read(root, "crfrnn_train", "crfrnn_val", label_priority=priority).sample(VAL[0]).truth
        assert np.array_equal(truth, labels_of(VAL[0], priority))


def test_an_unknown_list_names_the_nearest(root):
    assert refusal(lambda: read(root, "train_augg"), SettingsError) == (
        "key 'splits.train': found 'train_augg', expected a list of VOC's or a made one; did you mean 'train_aug'?"
    )


def test_sbd_elsewhere(root):
    said = refusal(lambda: read(root, sbd=str(root / "nowhere")))
    assert said == (
        f"{root}/nowhere/train.txt: found no such file, expected a list of image names, one a line; "
        "set `sbd` to the folder with cls, train.txt and val.txt"
    )


def test_labels_that_are_missing_are_found_before_anything_is_packed(root):
    path = root / "dataset/cls" / f"{ALONE[0]}.mat"
    path.unlink()
    own = root / "VOC2012/SegmentationClass" / f"{ALONE[0]}.png"
    assert refusal(lambda: read(root)) == (
        f"{own} or {path}: found no such file, expected labels of all images; take the file from its archive again"
    )


def test_voc_elsewhere(root):
    said = refusal(lambda: read(root / "nowhere", "train"))
    assert f"check that {root}/nowhere/VOC2012 has the layout of PASCAL VOC" in said


def test_a_list_that_comes_out_empty(root):
    (root / "dataset/val.txt").write_text("".join(f"{name}\n" for name in VAL))
    said = refusal(lambda: read(root, "crfrnn_train", "crfrnn_val"))
    assert "list crfrnn_val: found no image, expected at least one; check the lists of both" in said


def damage(path):
    path.write_bytes(path.read_bytes()[:200])


def other_array(path):
    savemat(path, {"GTinst": 1})


def no_field(path):
    savemat(path, {"GTcls": {"Boundaries": np.zeros(3)}})


def void(path):
    write_mat(path, np.full((12, 14), 255, np.uint8))


def other_size(path):
    write_mat(path, np.zeros((14, 12), np.uint8))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (damage, "found a damaged file ("),
        (other_array, "found no GTcls.Segmentation, expected a MATLAB 5 file with an array GTcls.Segmentation"),
        (no_field, "found no GTcls.Segmentation"),
        (void, "row 0, col 0: found the value 255, expected 0 to 2; SBD has no void"),
        (other_size, "found labels of 14 × 12 px (rows × cols), expected 12 × 14"),
    ],
)
def test_a_file_that_is_wrong(root, change, found):
    path = root / "dataset/cls" / f"{ALONE[0]}.mat"
    source = read(root)
    change(path)
    said = refusal(lambda: source.sample(ALONE[0]))
    assert str(path) in said and found in said
