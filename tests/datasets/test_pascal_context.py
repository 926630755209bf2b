"""PASCAL Context: ids become classes by their names, background is a class or void, and whatever can be wrong."""

import numpy as np
import pytest
import yaml
from observe import refusal, said
from PIL import Image
from scipy.io import savemat
from scipy.sparse import coo_array

from pipeline import datasets, pack
from pipeline.core import settings as settings_files
from pipeline.core.errors import SettingsError
from pipeline.core.settings import Settings
from pipeline.datasets import voc
from pipeline.formats import packs

TRAIN, VAL = [f"2008_{number:06d}" for number in range(10)], ["2009_000001", "2009_000002"]
ALIASES = {"diningtable": "table", "bedcloth": "bedclothes", "clothes": "cloth"}
FREQUENT = ["sky", "diningtable", "bedcloth", "clothes", *(f"name {number:02d}" for number in range(55, 0, -1))]
OTHERS = ["accordion", "air conditioner", "clothes tree", "unknown", "wool"]
LABELS = sorted([ALIASES.get(name, name) for name in FREQUENT] + OTHERS)  # ids from 1 on, in this order
SIZE = 12, 14


def config():
    return settings_files.read(settings_files.ROOT / "config" / "packs" / "pascal_context.yaml", "packs").plain()


def settings(root, **changed):
    return Settings(config() | {"root": str(root / "VOC2010"), "labels": str(root / "context")} | changed)


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


@pytest.fixture
def root(tmp_path):
    """A miniature of 64 labels: ten training images, two of validation."""
    for folder in ("VOC2010/JPEGImages", "VOC2010/ImageSets/Main", "context/trainval"):
        (tmp_path / folder).mkdir(parents=True)
    for name in TRAIN + VAL:
        Image.fromarray(photograph(name)).save(tmp_path / "VOC2010" / "JPEGImages" / f"{name}.jpg", quality=95)
        save_ids(tmp_path, name, ids_of(name))
    save_list(tmp_path, "train", TRAIN)
    save_list(tmp_path, "val", VAL)
    save_names(tmp_path, "labels.txt", LABELS)
    save_names(tmp_path, "59_labels.txt", FREQUENT)
    return tmp_path


# What is read


@pytest.mark.parametrize(("background", "first", "rest"), [("class", 1, 0), ("void", 0, 255)])
def test_ids_become_classes_by_their_names(root, background, first, rest):
    source = read(root, background=background)
    assert source.class_names == (("background", *FREQUENT) if background == "class" else tuple(FREQUENT))
    sample = source.sample(TRAIN[3])
    assert (sample.image.dtype, sample.truth.dtype, sample.exact) == (np.uint8, np.uint8, None)
    with Image.open(root / "VOC2010" / "JPEGImages" / f"{TRAIN[3]}.jpg") as image:
        assert np.array_equal(sample.image, np.asarray(image))
    known_as = [ALIASES.get(name, name) for name in FREQUENT]
    for number, found in zip(ids_of(TRAIN[3]).flat, sample.truth.flat, strict=True):
        name = LABELS[number - 1]
        assert found == (known_as.index(name) + first if name in known_as else rest), name
    assert len(np.unique(sample.truth)) == 60


@pytest.mark.parametrize(("name", "id_name"), ALIASES.items())
@pytest.mark.parametrize("spelt", ["as in 59_labels.txt", "as in labels.txt"])
def test_three_names_are_spelt_in_two_ways(root, name, id_name, spelt):
    if spelt == "as in labels.txt":
        save_names(root, "59_labels.txt", [id_name if other == name else other for other in FREQUENT])
    source = read(root)
    place = FREQUENT.index(name) + 1
    assert source.class_names[place] == (name if spelt == "as in 59_labels.txt" else id_name)
    at = ids_of(VAL[0]) == LABELS.index(id_name) + 1
    assert at.any()
    assert np.array_equal(source.sample(VAL[0]).truth == place, at)


def test_a_name_within_another_is_another(root):
    at = ids_of(VAL[0]) == LABELS.index("clothes tree") + 1
    assert at.any()
    assert (read(root).sample(VAL[0]).truth[at] == 0).all()


def test_the_order_of_the_classes_is_that_of_the_list(root):
    before = read(root).sample(VAL[0]).truth
    save_names(root, "59_labels.txt", FREQUENT[::-1])
    source = read(root)
    assert source.class_names == ("background", *FREQUENT[::-1])
    assert np.array_equal(source.sample(VAL[0]).truth, np.where(before == 0, 0, 60 - before.astype(int)))


@pytest.mark.parametrize("line", ["{} : {}\n", "  {}:{} \n\n", "{}:\t{}\r\n"])
def test_lists_may_be_spaced_otherwise(root, line):
    before = read(root).sample(VAL[0]).truth
    save_names(root, "labels.txt", LABELS, line)
    save_names(root, "59_labels.txt", FREQUENT, line)
    source = read(root)
    assert source.class_names == ("background", *FREQUENT)
    assert np.array_equal(source.sample(VAL[0]).truth, before)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.uint64])
def test_ids_may_be_stored_in_any_integers(root, dtype):
    before = read(root).sample(VAL[0]).truth
    save_ids(root, VAL[0], ids_of(VAL[0]).astype(dtype))
    assert np.array_equal(read(root).sample(VAL[0]).truth, before)


def test_ids_may_leave_gaps(root):
    """459 ids and nothing else: what counts is the id of a line, not its place."""
    lines = [f"{7 * number}: {name}\n" for number, name in enumerate(LABELS, start=1)]
    before = read(root).sample(VAL[0]).truth
    (root / "context" / "labels.txt").write_text("".join(lines[::-1]))
    save_ids(root, VAL[0], 7 * ids_of(VAL[0]))
    assert np.array_equal(read(root).sample(VAL[0]).truth, before)


# The whole stage


def run_pack(root, tmp_path, **changed):
    path = tmp_path / "pack.yaml"
    path.write_text(yaml.safe_dump(settings(root, **changed).plain()))
    return pack.main(["--settings", str(path), "--seed", "0", "--output", str(tmp_path / "pack.h5")])


@pytest.mark.parametrize(("background", "classes"), [("class", 60), ("void", 59)])
def test_pack_holds_out_a_fifth(root, tmp_path, background, classes):
    assert run_pack(root, tmp_path, background=background) == 0
    made = packs.Pack(tmp_path / "pack.h5")
    heldout = voc.hold_out(TRAIN, {name: name for name in TRAIN})
    assert len(heldout) == 2
    assert made.names("heldout") == heldout
    assert made.names("train") == tuple(name for name in TRAIN if name not in heldout)
    assert made.names("val") == tuple(VAL)
    assert (made.classes, made.trimap, made.blocks) == (classes, "label_edges", {})
    source = read(root, background=background)
    for name in TRAIN + VAL:
        assert np.array_equal(made.sample(name).truth, source.sample(name).truth)
        assert np.array_equal(made.sample(name).image, source.sample(name).image)


def test_pack_ends_with_one_line(root, tmp_path, capsys):
    mat(root, VAL[1]).unlink()
    assert run_pack(root, tmp_path) == 2
    assert f"pipeline.pack: {mat(root, VAL[1])}: found no such file" in said(capsys)
    assert not (tmp_path / "pack.h5").exists()


# Settings


def settings_refusal(values):
    return refusal(lambda: settings_files.check(values, "packs", where="pack.yaml"), SettingsError)


def test_the_settings_given_are_those_of_60_classes():
    assert (config()["background"], config()["trimap"]) == ("class", "label_edges")


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"background": "ignore"}, "key 'background': found 'ignore', expected one of class, void"),
        ({"trimap": "edges"}, "key 'trimap': found 'edges', expected one of void, label_edges"),
        ({"label": "x"}, "key 'label': found an unknown key, expected a known one; did you mean 'labels'?"),
        ({"labels": ""}, "key 'labels': found ''"),
        ({"splits": {"train": "train"}}, "key 'splits.val': found nothing, expected the list to score on"),
    ],
)
def test_settings_that_the_schema_refuses(changed, expected):
    assert f"pack.yaml, {expected}" in settings_refusal(config() | changed)


@pytest.mark.parametrize("key", ["root", "labels", "splits", "background", "trimap"])
def test_no_setting_may_be_left_out(key):
    values = config()
    del values[key]
    assert f"pack.yaml, key '{key}': found nothing" in settings_refusal(values)


# What can be wrong with the folders and lists


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ("VOC2010", "VOC2010/ImageSets/Main/train.txt"),
        ("VOC2010/JPEGImages", f"VOC2010/JPEGImages/{TRAIN[0]}.jpg"),
        ("context", "context/labels.txt"),
        ("context/labels.txt", "context/labels.txt"),
        ("context/59_labels.txt", "context/59_labels.txt"),
        ("context/trainval", f"context/trainval/{TRAIN[0]}.mat"),
        (f"context/trainval/{VAL[1]}.mat", f"context/trainval/{VAL[1]}.mat"),
        (f"VOC2010/JPEGImages/{VAL[1]}.jpg", f"VOC2010/JPEGImages/{VAL[1]}.jpg"),
    ],
)
def test_what_is_missing_is_found_before_anything_is_packed(root, missing, named):
    (root / missing).rename(root / "elsewhere")
    assert f"{root / named}: found no such file" in refusal(lambda: read(root))


def test_a_missing_folder_of_labels_says_what_to_set(root):
    line = refusal(lambda: read(root, labels=str(root / "nowhere")))
    assert line.endswith("; set `labels` to the folder with trainval, labels.txt and 59_labels.txt")


def test_a_missing_list_names_the_nearest(root):
    assert "did you mean 'train'?" in refusal(lambda: read(root, splits={"train": "traim", "val": "val"}))


def test_an_empty_list(root):
    save_list(root, "val", [])
    assert "Main/val.txt: found no names" in refusal(lambda: read(root))


def test_a_name_without_labels(root):
    """VOC 2010 lists more names than some copies of the labels have maps."""
    Image.fromarray(photograph("2010_000001")).save(root / "VOC2010" / "JPEGImages" / "2010_000001.jpg")
    save_list(root, "val", [*VAL, "2010_000001"])
    line = refusal(lambda: read(root))
    assert f"{mat(root, '2010_000001')}: found no such file" in line
    assert "add it or unlist the name" in line


def test_lists_overlapping(root):
    save_list(root, "val", [*VAL, TRAIN[4]])
    assert f"splits train and val: found {TRAIN[4]} in both" in refusal(lambda: read(root))


# What can be wrong with the names


@pytest.mark.parametrize("file", ["labels.txt", "59_labels.txt"])
@pytest.mark.parametrize(
    "line", ["sky", "0: background", "1: again", "500: name 07", "-3: x", "123456: x", "x: y", "9:"]
)
def test_a_line_that_is_no_id_and_name(root, file, line):
    path = root / "context" / file
    count = len(path.read_text().splitlines())
    path.write_text(path.read_text() + line + "\n")
    expected = (
        f"{path}, line {count + 1}: found '{line}', expected 'id: name', ids from 1 on, each id and each name once"
    )
    assert expected in refusal(lambda: read(root))


@pytest.mark.parametrize("file", ["labels.txt", "59_labels.txt"])
def test_a_list_without_names(root, file):
    path = save_names(root, file, [])
    assert f"{path}: found no names" in refusal(lambda: read(root))


@pytest.mark.parametrize(("names", "count"), [(FREQUENT[:58], 58), (LABELS, 64)])
def test_a_list_of_other_than_59(root, names, count):
    path = save_names(root, "59_labels.txt", names)
    assert f"{path}: found {count} names, expected 59" in refusal(lambda: read(root))


@pytest.mark.parametrize("name", ["Sky", "name 7", "cloths", "table"])
def test_a_class_that_no_label_has(root, name):
    """`table` stands there already, as `diningtable`: it has one id, so cannot be two classes."""
    path = save_names(root, "59_labels.txt", [*FREQUENT[:-1], name])
    assert f"{path}: found the name '{name}', expected names of labels.txt, each once" in refusal(lambda: read(root))


def test_names_that_are_not_utf_8(root):
    path = root / "context" / "59_labels.txt"
    path.write_bytes(path.read_bytes().replace(b"sky", b"sk\xff"))
    assert f"{path}: found the name 'sk�'" in refusal(lambda: read(root))


# What can be wrong with the labels


@pytest.mark.parametrize("number", [0, 65, 459, 65535])
def test_an_id_outside_of_the_list(root, number):
    ids = ids_of(VAL[0])
    ids[3, 5] = number
    save_ids(root, VAL[0], ids)
    source = read(root)
    line = refusal(lambda: source.sample(VAL[0]))
    assert f"{mat(root, VAL[0])}, row 3, col 5: found the id {number}, expected one of context/labels.txt" in line
    assert "59_context_labels.tar.gz" in line


def test_a_negative_id(root):
    ids = ids_of(VAL[0]).astype(np.int16)
    ids[3, 5] = -1
    save_ids(root, VAL[0], ids)
    assert "row 3, col 5: found the id -1" in refusal(lambda: read(root).sample(VAL[0]))


def test_an_id_in_a_gap_of_the_list(root):
    path = root / "context" / "labels.txt"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if "unknown" not in line))
    assert f"found the id {LABELS.index('unknown') + 1}" in refusal(lambda: read(root).sample(VAL[0]))


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.9])
def test_a_truncated_file(root, share):
    path = mat(root, VAL[0])
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    source = read(root)
    assert f"{path}: found a damaged file (" in refusal(lambda: source.sample(VAL[0]))


def test_a_changed_byte(root):
    path = mat(root, VAL[0])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)
    assert f"{path}: found a damaged file (error " in refusal(lambda: read(root).sample(VAL[0]))


@pytest.mark.parametrize(
    "content", [b"no matrix", b"\x89HDF\r\n" * 40, b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(400)]
)
def test_a_file_that_is_no_matlab_5(root, content):
    mat(root, VAL[0]).write_bytes(content)
    line = refusal(lambda: read(root).sample(VAL[0]))
    assert f"{mat(root, VAL[0])}: found a damaged file (" in line
    assert "expected a MATLAB 5 file with an array LabelMap of integers" in line


def test_a_file_without_label_map(root):
    save_ids(root, VAL[0], ids_of(VAL[0]), key="labelmap")
    assert f"{mat(root, VAL[0])}: found no LabelMap" in refusal(lambda: read(root).sample(VAL[0]))


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.ones(SIZE), "(12, 14), float64"),
        (np.ones((*SIZE, 3), np.uint16), "(12, 14, 3), uint16"),
        (np.array([[{"a": 1}]], object), "(1, 1), object"),
        (np.array(["text"]), "(1,), <U4"),
        (coo_array(np.ones(SIZE)), "(12, 14), float64"),
    ],
    ids=["fractions", "three axes", "cells", "text", "sparse"],
)
def test_a_label_map_of_another_kind(root, array, found):
    save_ids(root, VAL[0], array)
    line = refusal(lambda: read(root).sample(VAL[0]))
    assert f"{mat(root, VAL[0])}: found a LabelMap of shape {found}, expected a MATLAB 5 file" in line


def test_labels_of_another_size(root):
    save_ids(root, VAL[0], ids_of(VAL[0]).T)
    line = refusal(lambda: read(root).sample(VAL[0]))
    expected = f"{VAL[0]}.mat: found labels of 14 × 12 px (rows × cols), expected 12 × 14 as in {VAL[0]}.jpg"
    assert expected in line


def test_a_damaged_photograph(root):
    path = root / "VOC2010" / "JPEGImages" / f"{VAL[0]}.jpg"
    path.write_bytes(path.read_bytes()[:300])
    assert f"{path}: found a damaged file" in refusal(lambda: read(root).sample(VAL[0]))
