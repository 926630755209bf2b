"""PASCAL Context: what can be wrong with its names and labels."""

import numpy as np
import pytest
from context_tree import FREQUENT, LABELS, SIZE, VAL, ids_of, mat, read, save_ids, save_names, tree
from observe import refusal
from scipy.sparse import coo_array


@pytest.fixture
def root(tmp_path):
    return tree(tmp_path)


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
