"""PASCAL Context: ids become classes by their names, background is a class or void; folders and lists refused."""

import numpy as np
import pytest
import yaml
from context_tree import (
    ALIASES,
    FREQUENT,
    LABELS,
    TRAIN,
    VAL,
    config,
    ids_of,
    mat,
    photograph,
    read,
    save_ids,
    save_list,
    save_names,
    settings,
    tree,
)
from observe import refusal, said
from PIL import Image

from pipeline import pack
from pipeline.core import settings as settings_files
from pipeline.core.errors import SettingsError
from pipeline.datasets.splits import hold_out
from pipeline.formats import packs


@pytest.fixture
def root(tmp_path):
    return tree(tmp_path)


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
    return pack.main(["--settings", str(path), "--seed", "0", "--threads", "1", "--output", str(tmp_path / "pack.h5")])


@pytest.mark.parametrize(("background", "classes"), [("class", 60), ("void", 59)])
def test_pack_holds_out_a_fifth(root, tmp_path, background, classes):
    assert run_pack(root, tmp_path, background=background) == 0
    made = packs.Pack(tmp_path / "pack.h5")
    heldout = hold_out(TRAIN, {name: name for name in TRAIN})
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
