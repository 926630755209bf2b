"""Every kind of file is told apart and shown; pictures where there are any; errors in the form of the house."""

import builders
import numpy as np
import pytest
import torch
from PIL import Image

from pipeline import score
from pipeline.core.files import partial
from pipeline.core.grids import Grid
from pipeline.formats import stores, tables, unaries, weights
from pipeline.formats.journal import Journal
from pipeline.formats.packs import Pack
from pipeline.tools import inspect


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    pack = builders.pack(root / "pack.h5")
    builders.pack(root / "half.h5", full=True)
    cache = builders.unaries(root / "unaries.zarr", pack)
    builders.labels(root / "labels.zarr", pack, cache, sharpen=0.2)
    builders.fitted(root / "fitted.npz")
    builders.history(root / "history.jsonl")
    counts = Journal(root, {}, "1-of-1")
    counts.put([(("val_0", (50.0, 3.0)), np.arange(12)), (("val_0", (60.0, 3.0)), np.arange(3))])
    counts.path.rename(root / "a.1-of-1.journal")
    weights.write(root / "weights.safetensors", {"backbone.conv1.weight": torch.ones(2, 3)}, builders.stamp("train"))
    (root / "runs.tsv").write_text("# a comment\npack\tnet\tsystem\tagainst\ntiny\tnet\tunary\t-\n", encoding="utf-8")
    tables.write(root / "table.tsv", [{"pack": "tiny", "miou": "12.3"}], builders.stamp("aggregate"))
    paths = ["--pack", str(pack), "--labels", str(root / "labels.zarr"), "--output", str(root / "score.h5")]
    assert score.main([*paths, "--split", "val", "--widths", "1", "4"]) == 0
    killed(root / "killed.zarr", pack)
    return root


def killed(path, pack):
    """Leave a store of unaries as a kill would, two images done."""
    opened, names = Pack(pack), Pack(pack).names("val")
    described = {"class_names": opened.class_names, "pack_digest": opened.digest, "stamp": builders.stamp("cache")}
    with (
        pytest.raises(KeyboardInterrupt),
        unaries.writer(path, names=names, kind="logits", grid=Grid("cells", 4), dtype="float32", **described) as out,
    ):
        for name in names[:2]:
            read = opened.sample(name)
            unaries.put(out, name, builders.scores_of(read.truth, 4, seed=1), read.image, "float32")
        raise KeyboardInterrupt
    return partial(path)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("pack.h5", (": pack", "split       val, 6 images", "17 × 21 to 33 × 40 px", "ground", "0123456789ab")),
        ("half.h5", ("sizes       17 × 21 to 33 × 40 px", "scored at   34 × 42 to 66 × 80 px")),
        ("unaries.zarr", (": unaries", "kind        logits", "grid        kind cells, stride 4", "entropy", "scores ")),
        (".killed.zarr.partial", (": partial unaries", "not whole yet", "images      2: val_0, val_1")),
        ("labels.zarr", (": labels", "of the unary's labels", "per image, median", "leaf")),
        ("fitted.npz", (": fitted", "theta_alpha              one number, float32: 31.5", "curve       6 entries")),
        ("score.h5", (": score", "6 of val", "mean IoU", "≤  4 px")),
        ("weights.safetensors", (": weights", "1, 6 numbers", "backbone.conv1.weight    2 × 3, float32: min 1")),
        ("history.jsonl", (": history", "epoch 2  steps 20  loss 1  lr 0.005  heldout_miou 40")),
        ("a.1-of-1.journal", (": journal", "entries     2: 2 points, 1 images", "val_0 [50.0, 3.0]", "max 11")),
        ("runs.tsv", (": table", "tiny  net  unary   -")),
        ("table.tsv", (": table", "tiny  12.3", "stage       aggregate")),
    ],
)
def test_every_kind_is_shown(made, name, parts, capsys):
    assert inspect.main([str(made / name)]) == 0
    shown = capsys.readouterr().out
    for part in parts:
        assert part in shown


@pytest.mark.parametrize(
    ("name", "with_pack", "expected"),
    [
        ("pack.h5", False, 2),
        ("unaries.zarr", False, 2),
        ("unaries.zarr", True, 4 + 1),
        (".killed.zarr.partial", True, 4 + 1),
        ("labels.zarr", False, 1),
        ("labels.zarr", True, 3 + 1),
    ],
)
def test_pictures_have_their_panels(made, name, with_pack, expected, tmp_path, capsys):
    given = ["--pack", str(made / "pack.h5")] if with_pack else []
    args = [str(made / name), "--png", str(tmp_path / "a.png"), "--name", "val_0", *given]
    assert inspect.main(args) == 0
    assert "drew        val_0" in capsys.readouterr().out
    with Image.open(tmp_path / "a.png") as picture:
        width, height = picture.size
    rows, cols = Pack(made / "pack.h5").sample("val_0").truth.shape
    assert width == expected * (height // rows) * cols + (expected - 1) * 4


def test_the_first_image_is_drawn_unless_another_is_named(made, tmp_path, capsys):
    args = [str(made / "labels.zarr"), "--png", str(tmp_path / "a.png")]
    assert inspect.main(args) == 0
    assert "drew        val_0" in capsys.readouterr().out
    assert inspect.main([*args, "--name", "other"]) == 2
    assert "labels.zarr: found no image other, expected one that is there" in capsys.readouterr().err


def test_what_has_no_picture_says_so(made, tmp_path, capsys):
    assert inspect.main([str(made / "fitted.npz"), "--png", str(tmp_path / "a.png")]) == 2
    assert "--png: found a picture of a fitted, expected a pack, unaries or labels" in capsys.readouterr().err


def test_a_pack_of_other_images_is_refused(made, tmp_path, capsys):
    other = builders.pack(tmp_path / "other.h5", sizes=((12, 13),))
    args = [str(made / "labels.zarr"), "--png", str(tmp_path / "a.png"), "--pack", str(other)]
    assert inspect.main(args) == 2
    assert "expected (12, 13) as in --pack; name its own pack" in capsys.readouterr().err


def test_nothing_and_something_else_are_refused(made, tmp_path, capsys):
    assert inspect.main([str(tmp_path / "none")]) == 2
    assert "none: found nothing there, expected a file or store" in capsys.readouterr().err
    for name in ("some.bin", "empty.h5"):
        (tmp_path / name).write_bytes(b"\x00" * 9)
        assert inspect.main([str(tmp_path / name)]) == 2
        assert "found a file of another kind" in capsys.readouterr().err
    assert inspect.main([str(tmp_path)]) == 2
    assert "found a file of another kind" in capsys.readouterr().err


def test_damaged_images_are_named(made, tmp_path, capsys):
    pack = made / "pack.h5"
    cache = builders.unaries(tmp_path / "unaries.zarr", pack)
    data = next(path for path in (cache / "val_3").rglob("c/*/*/*") if path.is_file())
    data.write_bytes(data.read_bytes()[:-5])
    assert inspect.main([str(cache)]) == 2
    assert "unaries.zarr, image val_3: found a damaged array" in capsys.readouterr().err


def test_statistics_look_at_a_bounded_number_of_images(made, monkeypatch, capsys):
    monkeypatch.setattr(inspect, "AT_MOST", 2)
    assert inspect.main([str(made / "labels.zarr")]) == 0
    assert "of the first 2 of 6 images:" in capsys.readouterr().out


def test_partial_stores_are_read_whole(made):
    left = inspect.open_kind("partial unaries", partial(made / "killed.zarr"))
    whole = stores.Store(made / "unaries.zarr", unaries.FORMAT, made_by="cache")
    assert left.read("val_1")[0].dtype == np.float32 == whole.read("val_1")[0].dtype


@pytest.mark.parametrize("place", ["pack", "score/pack/net"])
def test_a_damaged_file_is_told_from_one_of_another_kind(tmp_path, place, capsys):
    path = tmp_path / place / "a.h5"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\x00" * 9)
    assert inspect.main([str(path)]) == 2
    told = capsys.readouterr().err
    assert "another kind" not in told and "again" in told
