"""Unaries and labels in their stores: round trip, rounding, whose they are, shards."""

import builders
import numpy as np
import pytest
from observe import refusal

from pipeline.core.grids import Grid
from pipeline.formats import labels, unaries
from pipeline.formats.labels import Labels
from pipeline.formats.packs import Pack
from pipeline.formats.unaries import Cache


@pytest.fixture
def pack(tmp_path):
    return Pack(builders.pack(tmp_path / "pack.h5", splits={"train": 1, "heldout": 1, "val": 2}))


def cached(tmp_path, pack, name="u.zarr", **options):
    return builders.unaries(tmp_path / name, pack.path, **options)


def put_scores(tmp_path, pack, scores, image, dtype="float32", name="val_0"):
    path = tmp_path / "own.zarr"
    described = {"class_names": pack.class_names, "kind": "logits", "grid": Grid("cells", 4)}
    with unaries.writer(path, names=[name], dtype=dtype, pack_digest=pack.digest, stamp={}, **described) as out:
        unaries.put(out, name, scores, image, dtype)
    return Cache([path])


def test_unaries_come_back(tmp_path, pack):
    cache = Cache([cached(tmp_path, pack)])
    sample = pack.sample("val_1")
    cache.belongs_to(pack)
    found = cache.unaries("val_1", sample.image)
    assert (cache.kind, cache.grid) == ("logits", Grid("cells", 4))
    assert (found.kind, found.grid) == ("logits", Grid("cells", 4))
    assert np.array_equal(found.scores.numpy(), builders.scores_of(sample.truth, 4, seed=2))


def test_float16_states_its_error(tmp_path, pack):
    image = pack.sample("val_0").image
    scores = np.random.default_rng(0).normal(size=(4, 6, 8)).astype(np.float32)
    cache = put_scores(tmp_path, pack, scores, image, dtype="float16")
    found = cache.unaries("val_0", image).scores.numpy()
    assert cache.stores[0].attributes_of("val_0")["max_error"] == np.abs(found - scores).max() > 0


def test_float16_overflow_is_refused(tmp_path, pack):
    scores = np.full((4, 6, 8), 7e4, np.float32)
    said = refusal(lambda: put_scores(tmp_path, pack, scores, pack.sample("val_0").image, dtype="float16"))
    assert "val_0: found a score of 7e+04, expected at most 65504 for float16; use float32" in said


def test_scores_that_are_not_finite_are_refused_when_read(tmp_path, pack):
    image, scores = pack.sample("val_0").image, np.ones((4, 6, 8), np.float32)
    scores[1, 2, 3] = np.nan
    cache = put_scores(tmp_path, pack, scores, image)
    assert "image val_0, class 1, row 2, col 3" in refusal(lambda: cache.unaries("val_0", image))


def test_an_image_of_another_size_is_refused(tmp_path, pack):
    cache, image = Cache([cached(tmp_path, pack)]), pack.sample("val_0").image
    height, width = image.shape[:2]
    said = refusal(lambda: cache.unaries("val_0", image[:-1]))
    assert f"unaries of an image of {height} × {width} px (rows × cols)" in said
    assert f"expected {height - 1} × {width} as in the pack" in said
    assert "the axes look swapped" in refusal(lambda: cache.unaries("val_0", image.transpose(1, 0, 2)))


def test_another_image_of_the_same_size_is_refused(tmp_path, pack):
    cache, image = Cache([cached(tmp_path, pack)]), pack.sample("val_0").image
    assert "unaries of another image of the same name" in refusal(lambda: cache.unaries("val_0", 255 - image))


def test_another_number_of_classes_is_refused(tmp_path, pack):
    image = pack.sample("val_0").image
    cache = put_scores(tmp_path, pack, np.ones((3, 6, 8), np.float32) * 2, image)
    assert "found 3 classes, expected 4" in refusal(lambda: cache.unaries("val_0", image))


def test_unaries_of_another_pack_are_refused(tmp_path, pack):
    cache = Cache([cached(tmp_path, pack)])
    other = Pack(builders.pack(tmp_path / "other.h5", seed=1))
    assert "found unaries of another pack, expected those of" in refusal(lambda: cache.belongs_to(other))
    wider = Pack(builders.pack(tmp_path / "wider.h5", classes=5))
    assert "as in the pack; run `cache` again" in refusal(lambda: cache.belongs_to(wider))


def test_an_image_in_no_shard_is_refused(tmp_path, pack):
    cache = Cache([cached(tmp_path, pack)])
    assert "found no image train_0" in refusal(lambda: cache.unaries("train_0", pack.sample("train_0").image))


def test_shards_add_up(tmp_path, pack):
    first = cached(tmp_path, pack, "1.zarr", names=["heldout_0", "val_1"])
    second = cached(tmp_path, pack, "2.zarr", names=["val_0"])
    cache = Cache([first, second])
    assert cache.names == ("heldout_0", "val_1", "val_0")
    image = pack.sample("val_0").image
    assert np.array_equal(cache.unaries("val_0", image).scores, Cache([second]).unaries("val_0", image).scores)
    assert cache.digest != Cache([first]).digest


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kind": "probability"}, "kind prob"),
        ({"grid": Grid("cells", 8)}, "grid {'kind': 'cells', 'stride': 8, 'origin': 0.0}"),
        ({"grid": Grid("points", 4)}, "grid {'kind': 'points', 'stride': 4, 'origin': 0.0}"),
    ],
)
def test_shards_must_agree(tmp_path, pack, options, said):
    first = cached(tmp_path, pack, "1.zarr", names=["val_1"])
    second = cached(tmp_path, pack, "2.zarr", names=["val_0"], **options)
    assert f"2.zarr: found {said}" in refusal(lambda: Cache([first, second]))


# Labels


def labelled(tmp_path, pack):
    return Labels([builders.labels(tmp_path / "l.zarr", pack.path, cached(tmp_path, pack))])


def test_labels_come_back(tmp_path, pack):
    store, truth = labelled(tmp_path, pack), pack.sample("val_0").truth
    store.belongs_to(pack)
    found = store.labels("val_0", truth)
    assert (found.dtype, found.shape) == (np.uint8, truth.shape)
    assert store.attributes_of("val_0")["seconds"] == 0.25
    assert store.class_names == pack.class_names


def test_labels_of_another_pack_or_size_are_refused(tmp_path, pack):
    store = labelled(tmp_path, pack)
    other = Pack(builders.pack(tmp_path / "other.h5", seed=1))
    assert "labels of another pack" in refusal(lambda: store.belongs_to(other))
    assert "as in the pack; run `refine` again" in refusal(lambda: store.labels("val_0", np.zeros((2, 3))))


def test_unaries_are_no_labels(tmp_path, pack):
    path = cached(tmp_path, pack)
    assert f"expected '{labels.FORMAT}'" in refusal(lambda: Labels([path]))


def test_an_image_in_two_shards_is_refused(tmp_path, pack):
    """Left over from another number of shards, say."""
    path = cached(tmp_path, pack)
    made = [builders.labels(tmp_path / f"{name}.zarr", pack.path, path) for name in ("0", "1")]
    said = refusal(lambda: Labels(made))
    assert said.startswith(f"{made[1]}: found image val_0, as in {made[0]}, expected each image in one store; ")


def test_labels_of_two_fits_are_refused(tmp_path, pack):
    path = cached(tmp_path, pack)
    made = [builders.labels(tmp_path / f"{name}.zarr", pack.path, path, split=split, system=name)
            for name, split in (("convcrf", "val"), ("crfrnn", "heldout"))]  # fmt: skip
    said = refusal(lambda: Labels(made))
    assert said == f"{made[1]}: found other settings than in {made[0]}, expected shards of one run; run `refine` again"
