"""Plain folders: CamVid as the SegNet tutorial has it, MSRC-21 with lists and colours, and what can be wrong."""

import numpy as np
import pytest
from observe import refusal
from PIL import ExifTags, Image

from pipeline import datasets
from pipeline.core import settings
from pipeline.core.errors import SettingsError
from pipeline.core.settings import Settings
from pipeline.datasets import pictures

PACKS = settings.ROOT / "config/packs"
SIZE = (10, 12)


def preset(name, root, **changed):
    values = settings.read(PACKS / f"{name}.yaml", "packs").plain()
    return datasets.read(Settings(values | {"root": str(root)} | changed), seed=0)


def values_of(name, count):
    return np.random.default_rng(sum(name.encode())).integers(0, count, SIZE).astype(np.uint8)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def camvid(tmp_path):
    """Two clips of 30 frames to train on, one of 5 to score; 11 is void. Lists of the authors' paths lie beside."""
    for split, names in (("train", [f"{c}_{n:05d}" for c in ("0001TP", "0006R0") for n in range(30)]),
                         ("val", [f"0016E5_{n:05d}" for n in range(5)])):  # fmt: skip
        for name in names:
            save(tmp_path / split / f"{name}.png", np.full((*SIZE, 3), 90, np.uint8))
            save(tmp_path / f"{split}annot" / f"{name}.png", values_of(name, 12))
        lines = [f"/SegNet/CamVid/{split}/{name}.png /SegNet/CamVid/{split}annot/{name}.png\n" for name in names]
        (tmp_path / f"{split}.txt").write_text("".join(lines))
    return tmp_path


def test_camvid(camvid):
    source = preset("camvid", camvid)
    splits = source.splits
    assert len(splits["train"] + splits["heldout"]) == 60 and len(splits["val"]) == 5
    # Whole blocks of neighbouring frames, at least a fifth.
    assert not {source.blocks[name] for name in splits["train"]} & {source.blocks[name] for name in splits["heldout"]}
    assert len(splits["heldout"]) >= 12
    name = source.splits["val"][0]
    truth, labels = source.sample(name).truth, values_of(name, 12)
    assert (labels == 11).any()
    assert np.array_equal(truth == 255, labels == 11)
    assert np.array_equal(truth[labels < 11], labels[labels < 11])


def test_lists_of_somebodys_paths_are_read_by_their_base_names(camvid):
    splits = settings.read(PACKS / "camvid.yaml", "packs").splits.plain()
    listed = {split: chosen | {"list": f"{split}.txt"} for split, chosen in splits.items()}
    assert preset("camvid", camvid, splits=listed).splits == preset("camvid", camvid).splits


@pytest.fixture
def msrc(tmp_path):
    """Bitmaps, labels in colour, three lists."""
    colours = list(settings.read(PACKS / "msrc21.yaml", "packs").colours.values())
    for number, (file, names) in enumerate(
        (("Train", ["1_1_s", "1_2_s", "7_3_s"]), ("Validation", ["2_1_s"]), ("Test", ["3_1_s", "3_2_s"]))
    ):
        for name in names:
            save(tmp_path / "Images" / f"{name}.bmp", np.full((*SIZE, 3), 80 + number, np.uint8))
            save(tmp_path / "GroundTruth" / f"{name}_GT.bmp", np.uint8(colours)[values_of(name, len(colours))])
        (tmp_path / f"{file}.txt").write_text("".join(f"{name}.bmp\r\n" for name in names))
    return tmp_path


def test_msrc21(msrc):
    source = preset("msrc21", msrc)
    assert source.splits == {
        "train": ("1_1_s", "1_2_s", "7_3_s"),
        "heldout": ("2_1_s",),
        "val": ("3_1_s", "3_2_s"),
    }
    labels = values_of("2_1_s", 24)
    # Void, horse and mountain stand behind the 21 classes.
    assert np.array_equal(source.sample("2_1_s").truth, np.where(labels < 21, labels, 255))


def test_a_colour_that_has_no_name(msrc):
    picture = np.zeros((*SIZE, 3), np.uint8)
    picture[4, 7] = 1, 2, 3
    save(path := msrc / "GroundTruth/2_1_s_GT.bmp", picture)
    assert refusal(lambda: preset("msrc21", msrc).sample("2_1_s")) == (
        f"{path}, row 4, col 7: found the colour (1, 2, 3), expected one of `colours`; "
        "mend the labels, or give the colour a name there that is no class: void"
    )


def test_a_class_without_a_colour(msrc):
    colours = settings.read(PACKS / "msrc21.yaml", "packs").colours.plain()
    del colours["cow"]
    said = refusal(lambda: preset("msrc21", msrc, colours=colours), SettingsError)
    assert said == "key 'colours': found none for 'cow', expected one for every class; add it"


def test_a_path_without_a_place_for_the_name(camvid):
    splits = {"train": {"images": "train/*.png", "labels": "trainannot/{name}.png"}}
    splits["val"] = {"images": "val/{name}.png", "labels": "valannot/{name}.png"}
    assert refusal(lambda: preset("camvid", camvid, splits=splits), SettingsError) == (
        "key 'splits.train.images': found 'train/*.png', expected a path with {name} in it, once; mend the path"
    )


def test_a_name_stands_for_one_photograph(camvid):
    """Numbers begin anew in many folders; dropping one of two unseen would be worse than to refuse."""
    for folder, array in (("more", np.full((*SIZE, 3), 9, np.uint8)), ("moreannot", values_of("x", 11))):
        save(camvid / folder / "0001TP_00000.png", array)
    splits = settings.read(PACKS / "camvid.yaml", "packs").splits.plain()
    splits["heldout"] = {"images": "more/{name}.png", "labels": "moreannot/{name}.png"}
    assert refusal(lambda: preset("camvid", camvid, splits=splits)) == (
        f"{camvid}/more/0001TP_00000.png: found the name 0001TP_00000, as {camvid}/train/0001TP_00000.png has, "
        "expected names of their own; rename one of the two, a name stands for one photograph"
    )


def test_names_with_dots_and_paths_with_brackets(tmp_path):
    for split, names in (("train [1]", ["a.1", "a.2", "b.1"]), ("val", ["c.1"])):
        for name in names:
            save(tmp_path / split / f"{name}.png", np.full((*SIZE, 3), 90, np.uint8))
            save(tmp_path / split / "labels" / f"{name}.png", values_of(name, 2))
    (tmp_path / "val.txt").write_text("C:\\photos\\c.1.png ignored\n")
    splits = {
        "train": {"images": "./train [1]/{name}.png", "labels": "train [1]/labels/{name}.png"},
        "val": {"images": "val//{name}.png", "labels": "val/labels/{name}.png", "list": "val.txt"},
    }
    found = preset("camvid", tmp_path, splits=splits, block_length=1).splits
    assert {*found["train"], *found["heldout"]} == {"a.1", "a.2", "b.1"} and found["val"] == ("c.1",)


@pytest.mark.parametrize(
    ("name", "changed", "expected"),
    [
        ("camvid", {"void": [3, 11]}, "key 'void': found 3, the value of 'road', expected values that are no class"),
        ("msrc21", {"void": [0]}, "key 'void': found [0], expected none where labels are colours"),
        ("msrc21", {"colours": {"cow": [0, 128, 0]}}, "found [0, 128, 0] for 'grass' and 'cow', expected a colour of"),
    ],
)
def test_settings_that_contradict_each_other(tmp_path, name, changed, expected):
    if "colours" in changed:
        changed = {"colours": settings.read(PACKS / "msrc21.yaml", "packs").colours.plain() | changed["colours"]}
    assert expected in refusal(lambda: preset(name, tmp_path, **changed), SettingsError)


def test_an_empty_folder(tmp_path):
    assert refusal(lambda: preset("camvid", tmp_path)) == (
        f"{tmp_path}: found no photographs, expected some at train/{{name}}.png; check `root` and `images`"
    )


def test_a_value_that_is_no_class(camvid):
    path = camvid / "valannot/0016E5_00000.png"
    save(path, np.full(SIZE, 12, np.uint8))
    assert refusal(lambda: preset("camvid", camvid).sample("0016E5_00000")) == (
        f"{path}, row 0, col 0: found the value 12, expected 0 to 10, or 255 for void; "
        "mend the labels or the class names, or name it in `void`"
    )


def test_labels_in_colour_where_values_are_expected(camvid):
    save(camvid / "valannot/0016E5_00000.png", np.zeros((*SIZE, 3), np.uint8))
    said = refusal(lambda: preset("camvid", camvid).sample("0016E5_00000"))
    assert "found a PNG of mode RGB, expected one of mode P or L" in said


def test_labels_that_are_missing_are_found_before_anything_is_packed(camvid):
    (camvid / "trainannot/0001TP_00003.png").unlink()
    said = refusal(lambda: preset("camvid", camvid))
    assert f"{camvid}/trainannot/0001TP_00003.png: found no such file" in said


def test_a_name_in_two_splits(msrc):
    (msrc / "Test.txt").write_text("1_1_s.bmp\n")
    assert "splits train and val: found 1_1_s in both" in refusal(lambda: preset("msrc21", msrc))


def test_a_name_given_twice(msrc):
    (msrc / "Test.txt").write_text("3_1_s.bmp\n3_1_s.bmp\n")
    assert "Test.txt: found the name 3_1_s twice" in refusal(lambda: preset("msrc21", msrc))


def test_a_photograph_that_is_to_be_turned_is_refused(camvid):
    source = preset("camvid", camvid)
    name = source.splits["val"][0]
    path, exif = camvid / "val" / f"{name}.png", Image.Exif()
    for orientation, fine in ((1, True), (3, False)):
        exif[ExifTags.Base.Orientation] = orientation
        Image.fromarray(np.full((*SIZE, 3), 90, np.uint8)).save(path, exif=exif)
        if fine:
            source.sample(name)
    told = refusal(lambda: source.sample(name))
    assert f"{name}.png: found EXIF orientation 3, expected pixels stored upright; turn it" in told


def test_an_image_of_more_pixels_than_pillow_likes_is_read(tmp_path):
    Image.new("L", (13_400, 13_400)).save(tmp_path / "large.png", compress_level=1)
    assert pictures.indices(tmp_path / "large.png").shape == (13_400, 13_400)
