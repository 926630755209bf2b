"""Folders in PASCAL VOC layout: what is read, who is held out, and every way the layout can be wrong."""

import numpy as np
import pytest
from observe import refusal
from PIL import Image

from pipeline import datasets
from pipeline.core.errors import DataError, SettingsError
from pipeline.core.settings import Settings
from pipeline.datasets.splits import blocks_of, hold_out

CLASSES = ["ground", "leaf", "berry"]
TRAIN, VAL = [f"t{number}" for number in range(10)], ["v0", "v1"]


def settings(root, **changed):
    chosen = {
        "reader": "voc",
        "root": str(root),
        "class_names": CLASSES,
        "splits": {"train": "train", "val": "val"},
        "block_length": 1,
        "trimap": "void",
    }
    return Settings(chosen | changed)


def photograph(name, size=(12, 14)):
    rng = np.random.default_rng(sum(name.encode()))
    return rng.integers(0, 256, (*size, 3), dtype=np.uint8)


def truth_of(name, size=(12, 14)):
    rng = np.random.default_rng(sum(name.encode()) + 1)
    return rng.choice(np.array([0, 1, 2, 255], np.uint8), size)


def save_labels(path, array, palette=True):
    image = Image.fromarray(array)
    if palette:
        image.putpalette([value for colour in range(256) for value in (colour, 255 - colour, 7)])
    image.save(path)


def save_list(root, split, names):
    (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))


@pytest.fixture
def root(tmp_path):
    """A miniature: ten training images, two of validation, palette labels."""
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / folder).mkdir(parents=True)
    for name in TRAIN + VAL:
        Image.fromarray(photograph(name)).save(tmp_path / "JPEGImages" / f"{name}.jpg", quality=95)
        save_labels(tmp_path / "SegmentationClass" / f"{name}.png", truth_of(name))
    save_list(tmp_path, "train", TRAIN)
    save_list(tmp_path, "val", VAL)
    return tmp_path


def read(root, **changed):
    return datasets.read(settings(root, **changed), seed=0)


# What is read


def test_the_miniature(root):
    source = read(root)
    assert source.class_names == tuple(CLASSES)
    assert set(source.splits) == {"train", "heldout", "val"}
    assert source.splits["val"] == tuple(VAL)
    assert sorted(source.splits["train"] + source.splits["heldout"]) == TRAIN
    assert source.blocks == {}
    sample = source.sample("t3")
    assert (sample.image.dtype, sample.truth.dtype) == (np.uint8, np.uint8)
    assert np.array_equal(sample.truth, truth_of("t3"))
    with Image.open(root / "JPEGImages" / "t3.jpg") as image:
        assert np.array_equal(sample.image, np.asarray(image))
    assert sample.exact is None


def test_grey_labels_are_indices_too(root):
    save_labels(root / "SegmentationClass" / "t3.png", truth_of("t3"), palette=False)
    assert np.array_equal(read(root).sample("t3").truth, truth_of("t3"))


def test_png_photographs_are_read_to_the_bit(root):
    (root / "JPEGImages" / "t3.jpg").unlink()
    Image.fromarray(photograph("t3")).save(root / "JPEGImages" / "t3.png")
    assert np.array_equal(read(root).sample("t3").image, photograph("t3"))


def test_grey_photographs_become_rgb(root):
    (root / "JPEGImages" / "t3.jpg").unlink()
    grey = photograph("t3")[..., 0]
    Image.fromarray(grey).save(root / "JPEGImages" / "t3.png")
    assert np.array_equal(read(root).sample("t3").image, np.stack([grey] * 3, axis=-1))


def test_class_names_may_stand_in_a_file(root):
    (root / "names.txt").write_text("ground\nleaf\n\nberry\n")
    assert read(root, class_names="names.txt").class_names == tuple(CLASSES)


# Who is held out


@pytest.mark.parametrize(("count", "held"), [(4, 0), (5, 1), (24, 4), (999, 199), (1000, 200), (1464, 200)])
def test_a_fifth_but_no_more_than_200_is_held_out(count, held):
    names = [f"{number:05d}" for number in range(count)]
    chosen = hold_out(names, {name: name for name in names})
    assert len(chosen) == len(set(chosen)) == held
    assert set(chosen) <= set(names)
    assert list(chosen) == sorted(chosen)


def test_the_choice_is_that_of_the_fixed_seed():
    names = [f"{number:02d}" for number in range(20)]
    expected = np.random.RandomState(2018).permutation(20)[:4]
    assert hold_out(names[::-1], {name: name for name in names}) == tuple(sorted(names[i] for i in expected))


def test_the_choice_rests_on_no_seed_of_the_run(root):
    chosen = [datasets.read(settings(root), seed).splits["heldout"] for seed in (0, 1)]
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) == 2


def test_splits_are_disjoint(root):
    splits = read(root).splits
    names = [name for split in splits.values() for name in split]
    assert len(names) == len(set(names)) == 12


def test_video_is_held_out_by_whole_blocks():
    names = [f"{clip}_{frame:04d}" for clip in ("a", "b", "c") for frame in range(14)]
    blocks = blocks_of(names, 4)
    members = {}
    for name, block in blocks.items():
        members.setdefault(block, []).append(name)
    assert sorted(len(frames) for frames in members.values()) == [2, 2, 2, *[4] * 9]
    assert all(len({name.partition("_")[0] for name in frames}) == 1 for frames in members.values())
    chosen = set(hold_out(names, blocks))
    assert all(set(frames) <= chosen or not set(frames) & chosen for frames in members.values())
    # A fifth of 42 is 8; the last block may reach over it.
    assert 8 <= len(chosen) < 8 + 4


def test_blocks_are_told(root):
    source = read(root, block_length=3)
    assert set(source.blocks) == set(TRAIN + VAL)


def test_holding_out_leaves_something_to_train_on(root):
    """One clip that is one block cannot be split; it must not vanish from training without a word."""
    try:
        splits = read(root, block_length=1000).splits
    except (DataError, SettingsError):
        return
    assert splits["train"]


# What can be wrong


@pytest.mark.parametrize("folder", ["JPEGImages", "SegmentationClass"])
def test_a_missing_folder(root, folder):
    (root / folder).rename(root / "elsewhere")
    said = refusal(lambda: read(root))
    assert str(root / folder) in said
    assert "found no such file" in said


def test_a_missing_root(root):
    assert "check that" in refusal(lambda: read(root / "nowhere"))


def test_a_missing_list_names_the_nearest(root):
    said = refusal(lambda: read(root, splits={"train": "traim", "val": "val"}))
    assert str(root / "ImageSets" / "Segmentation" / "traim.txt") in said
    assert "did you mean 'train'?" in said


def test_an_empty_list(root):
    save_list(root, "val", [])
    assert "val.txt: found no names" in refusal(lambda: read(root))


def test_a_name_given_twice(root):
    save_list(root, "train", [*TRAIN, "t4"])
    assert "train.txt: found the name t4 twice" in refusal(lambda: read(root))


def test_a_name_in_both_lists(root):
    save_list(root, "val", [*VAL, "t4"])
    said = refusal(lambda: read(root))
    assert str(root) in said
    assert "found t4 in both" in said


def test_a_list_of_ones_own_is_held_out(root):
    """Of train or beside it; what it names is not trained on."""
    save_list(root, "mine", ["t1", "t3"])
    splits = read(root, splits={"train": "train", "val": "val", "heldout": "mine"}).splits
    assert splits["heldout"] == ("t1", "t3")
    assert not set(splits["train"]) & {"t1", "t3"} and len(splits["train"]) == len(TRAIN) - 2


def test_a_held_out_list_that_overlaps_val(root):
    save_list(root, "mine", ["t1", VAL[0]])
    said = refusal(lambda: read(root, splits={"train": "train", "val": "val", "heldout": "mine"}))
    assert f"splits heldout and val: found {VAL[0]} in both, expected disjoint lists" in said


def test_a_held_out_list_that_leaves_nothing_to_train_on(root):
    save_list(root, "mine", TRAIN)
    said = refusal(lambda: read(root, splits={"train": "train", "val": "val", "heldout": "mine"}))
    assert "split heldout: found all images of train, expected fewer; leave some to train on" in said


def test_a_held_out_list_that_cuts_a_block(root):
    save_list(root, "mine", ["t1"])
    splits = {"train": "train", "val": "val", "heldout": "mine"}
    assert "found a part of the block" in refusal(lambda: read(root, splits=splits, block_length=3))


def test_a_name_without_files(root):
    save_list(root, "val", [*VAL, "v9"])
    assert f"{root / 'JPEGImages' / 'v9.jpg'}: found no such file" in refusal(lambda: read(root))


@pytest.mark.parametrize("file", ["JPEGImages/v0.jpg", "SegmentationClass/v0.png"])
def test_a_missing_file_is_found_before_anything_is_packed(root, file):
    (root / file).unlink()
    assert f"{root / file}: found no such file" in refusal(lambda: read(root))


@pytest.mark.parametrize("file", ["JPEGImages/v0.jpg", "SegmentationClass/v0.png"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_a_truncated_file(root, file, share):
    content = (root / file).read_bytes()
    (root / file).write_bytes(content[: int(share * len(content))])
    source = read(root)
    assert f"{root / file}: found a damaged file" in refusal(lambda: source.sample("v0"))


def test_a_file_that_is_no_picture(root):
    (root / "JPEGImages" / "v0.jpg").write_text("no picture")
    source = read(root)
    assert "v0.jpg: found a damaged file" in refusal(lambda: source.sample("v0"))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "1"])
def test_labels_saved_as_colours(root, mode):
    Image.fromarray(photograph("v0")).convert(mode).save(root / "SegmentationClass" / "v0.png")
    said = refusal(lambda: read(root).sample("v0"))
    assert f"v0.png: found a PNG of mode {mode}" in said
    assert "save the indices, not their colours" in said


def test_labels_of_another_size(root):
    save_labels(root / "SegmentationClass" / "v0.png", truth_of("v0", (14, 12)))
    said = refusal(lambda: read(root).sample("v0"))
    assert "v0.png: found labels of 14 × 12 px (rows × cols), expected 12 × 14 as in v0.jpg" in said


def test_a_label_out_of_range(root):
    truth = np.full((12, 14), 255, np.uint8)
    truth[3, 5] = 3
    save_labels(root / "SegmentationClass" / "v0.png", truth)
    said = refusal(lambda: read(root).sample("v0"))
    assert "v0.png, row 3, col 5: found the value 3, expected 0 to 2, or 255 for void" in said


def test_missing_class_names(root):
    assert f"{root / 'names.txt'}: found no such file" in refusal(lambda: read(root, class_names="names.txt"))


def test_class_names_given_twice(root):
    said = refusal(lambda: read(root, class_names=["a", "b", "a"]))
    assert "found 3 class names, 2 different" in said
