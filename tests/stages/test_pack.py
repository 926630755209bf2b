"""`pack` from its command line: the same bytes twice, refusals."""

import numpy as np
import pytest
from observe import said
from PIL import Image

from pipeline.formats import packs


def test_pack_makes_the_same_bytes_twice_however_many_work(tiny_run, tmp_path):
    paths = [tmp_path / "1.h5", tmp_path / "2.h5"]
    assert [tiny_run("pack", threads=threads, output=path) for threads, path in enumerate(paths, start=1)] == [0, 0]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    pack = packs.Pack(paths[0])
    assert {split: len(pack.names(split)) for split in pack.splits} == {"train": 2, "heldout": 1, "val": 1}
    assert tiny_run("pack", seed=1, output=paths[1]) == 0
    assert packs.Pack(paths[1]).digest != pack.digest


def test_pack_refuses_unknown_settings(tiny_run, tmp_path, capsys):
    assert tiny_run("pack", settings=tmp_path / "no.yaml", output=tmp_path / "a.h5") == 2
    assert "no.yaml: found no such file" in said(capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def photographs(tmp_path):
    """A plain folder: five photographs to train on, one to score, a quarter of each void. Its settings."""
    labels = np.zeros((8, 8), np.uint8)
    labels[:4, :4] = 255
    for split, count in (("train", 5), ("val", 1)):
        for folder, array in (("photos", np.zeros((8, 8, 3), np.uint8)), ("labels", labels)):
            (tmp_path / split / folder).mkdir(parents=True)
            for number in range(count):
                Image.fromarray(array).save(tmp_path / split / folder / f"{split}{number}.png")
    splits = {
        split: {"images": f"{split}/photos/{{name}}.png", "labels": f"{split}/labels/{{name}}.png"}
        for split in ("train", "val")
    }
    reader = {"reader": "folder", "root": str(tmp_path), "class_names": ["a", "b"], "void": [], "colours": "none"}
    return reader | {"splits": splits, "block_length": 1, "trimap": "label_edges"}


def test_pack_tells_sizes_and_void(tiny_run, photographs, tmp_path, capsys):
    counts = {"train": 4, "heldout": 1, "val": 1}
    path = tiny_run.yaml("counted", photographs | {"counts": counts})
    assert tiny_run("pack", settings=path, output=tmp_path / "a.h5") == 0
    told = "6 images (train 4, heldout 1, val 1), 2 classes, 25.0 % of the pixels void"
    assert told in capsys.readouterr().err


def test_pack_refuses_data_that_lack_images(tiny_run, photographs, tmp_path, capsys):
    path = tiny_run.yaml("lacking", photographs | {"counts": {"train": 10382}})
    assert tiny_run("pack", settings=path, output=tmp_path / "a.h5") == 2
    expected = "key 'counts.train': found 4 images, expected 10382; complete the data, or mend the key"
    assert expected in said(capsys)
    assert not (tmp_path / "a.h5").exists()
