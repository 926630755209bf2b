"""`refine` from its command line: the same labels twice, kills, refusals."""

import re

import builders
import pytest
from observe import said, same_store

from pipeline import refine
from pipeline.formats import labels


def test_refine_gives_the_same_labels_twice(tiny_run, tmp_path):
    assert tiny_run("refine", output=tmp_path / "l.zarr") == 0
    assert same_store(labels.Labels([tmp_path / "l.zarr"]), labels.Labels([tiny_run.labels]))


def test_shards_hold_each_image_once(tiny_run, tmp_path):
    paths = [tmp_path / "0.zarr", tmp_path / "1.zarr"]
    for number, path in enumerate(paths, start=1):
        assert tiny_run("refine", shard=f"{number}-of-2", output=path) == 0
    assert [labels.Labels([path]).names for path in paths] == [("val_0",), ("val_1",)]
    assert same_store(labels.Labels(paths), labels.Labels([tiny_run.labels]))


def test_refine_refuses_a_truncated_system(spoilt_run, tmp_path, capsys):
    content = spoilt_run.system.read_bytes()
    spoilt_run.system.write_bytes(content[: len(content) // 2])
    assert spoilt_run("refine", output=tmp_path / "l.zarr") == 2
    assert f"pipeline.refine: {spoilt_run.system}: found a damaged file" in said(capsys)


def test_refine_refuses_a_damaged_array(spoilt_run, tmp_path, capsys):
    (chunk,) = [path for path in (spoilt_run.unaries / "val_1").rglob("0") if path.is_file()]
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"?")
    assert spoilt_run("refine", output=tmp_path / "l.zarr") == 2
    assert f"{spoilt_run.unaries}, image val_1: found a damaged array" in said(capsys)
    assert not (tmp_path / "l.zarr").exists()


def test_refine_refuses_an_unknown_split(tiny_run, tmp_path, capsys):
    assert tiny_run("refine", split="test", output=tmp_path / "l.zarr") == 2
    assert "found no split 'test', expected one of heldout, train, val" in said(capsys)


def test_refine_refuses_unaries_of_another_pack(tiny_run, tmp_path, capsys):
    other = builders.pack(tmp_path / "other.h5", seed=1)
    assert tiny_run("refine", pack=other, output=tmp_path / "l.zarr") == 2
    assert "found unaries of another pack" in said(capsys)


def test_refine_keeps_what_a_kill_left(spoilt_run, tmp_path, capsys, monkeypatch):
    from pipeline.systems.convcrf import System  # found by name in the stage

    whole, seen = System.refine, []

    def killed(self, image, unaries):
        seen.append(image.shape)
        if len(seen) == 3:  # once to warm up, then once for each image
            raise KeyboardInterrupt
        return whole(self, image, unaries)

    monkeypatch.setattr(System, "refine", killed)
    assert spoilt_run("refine", output=tmp_path / "l.zarr") == 130
    monkeypatch.setattr(System, "refine", whole)
    assert spoilt_run("refine", output=tmp_path / "l.zarr") == 0
    assert "1 of 2 images are there already" in capsys.readouterr().err
    assert same_store(labels.Labels([tmp_path / "l.zarr"]), labels.Labels([spoilt_run.labels]))


def test_refine_in_tiles(tiny_run, tmp_path, capsys):
    """Squares that see all of these small images say what whole ones do."""
    assert tiny_run("refine", tile=16, halo=64, output=tmp_path / "tiles.zarr") == 0
    tiles = labels.Labels([tmp_path / "tiles.zarr"])
    assert same_store(tiles, labels.Labels([tiny_run.labels]))
    assert (tiles.stamp["tile"], tiles.stamp["halo"]) == (16, 64)
    with pytest.raises(SystemExit):
        tiny_run("refine", tile=-5, output=tmp_path / "none.zarr")
    assert "found '-5', expected a whole number from 0 on" in said(capsys)


def test_refine_refuses_an_image_that_memory_will_not_hold(tiny_run, tmp_path, capsys, monkeypatch):
    pack = builders.pack(tmp_path / "large.h5", sizes=[(600, 700)], splits={"train": 0, "heldout": 0, "val": 1})
    assert tiny_run("cache", pack=pack, output=tmp_path / "u.zarr") == 0
    monkeypatch.setattr(refine, "LARGE", 600 * 700 - 1)
    monkeypatch.setattr(refine.device, "available", lambda where: 1 << 20)
    whole = refine.labelled
    monkeypatch.setattr(refine, "labelled", None)  # not even tried
    options = {"pack": pack, "unaries": tmp_path / "u.zarr", "system": tiny_run.system, "output": tmp_path / "l.zarr"}
    assert tiny_run("refine", **options) == 2
    expected = (
        r"image val_0: found 600 × 700 px, which take about 0\.\d GiB, expected at most the 0\.0 GiB that are free"
    )
    assert re.search(expected + "; set `tile`", said(capsys))
    assert not (tmp_path / "l.zarr").exists()
    monkeypatch.setattr(refine, "labelled", whole)
    assert tiny_run("refine", **options | {"tile": 256}) == 0
