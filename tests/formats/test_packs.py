"""Packs: round trip, the same bytes for the same samples, damage, what a pack refuses to hold."""

import pickle
import subprocess
import sys

import builders
import h5py
import numpy as np
import pytest
from observe import refusal

from pipeline.core.sample import Sample
from pipeline.formats import packs
from pipeline.formats.packs import Pack

BARE = {"categories": {}, "splits": {}, "blocks": {}, "trimap": "void", "stamp": {}}
SPLITS = {"train": 2, "heldout": 1, "val": 1}


@pytest.fixture
def path(tmp_path):
    return builders.pack(tmp_path / "a.h5", splits=SPLITS)


def read_all(path):
    pack = Pack(path)
    samples = [pack.sample(name) for split in pack.splits for name in pack.names(split)]
    arrays = [array for sample in samples for array in (sample.image, sample.truth, sample.exact)]
    return pack.class_names, pack.blocks, pack.trimap, pack.digest, pack.stamp, [a.tobytes() for a in arrays]


def test_round_trip(path):
    pack = Pack(path)
    assert pack.class_names == builders.CLASS_NAMES[:4]
    assert (pack.classes, pack.trimap, pack.blocks) == (4, "void", {})
    assert pack.stamp == builders.stamp("pack", seed=0)
    assert set(pack.splits) == set(SPLITS)
    assert pack.names("train") == ("train_0", "train_1")
    expected = builders.sample("train_1", 1, builders.SIZES[1])
    found = pack.sample("train_1")
    assert found.name == "train_1"
    for key in ("image", "truth", "exact"):
        assert np.array_equal(getattr(found, key), getattr(expected, key))
        assert getattr(found, key).dtype == np.uint8


def test_without_exact_truth(tmp_path):
    assert Pack(builders.pack(tmp_path / "a.h5", exact=False)).sample("val_0").exact is None


def test_a_truth_at_full_size(tmp_path, path):
    found = Pack(builders.pack(tmp_path / "b.h5", splits=SPLITS, full=True))
    sample = found.sample("val_0")
    assert np.array_equal(sample.full, builders.full_size(sample.truth)) and sample.full.dtype == np.uint8
    assert Pack(path).sample("val_0").full is None
    assert found.digest != Pack(path).digest


def test_the_order_of_a_split_and_an_empty_one_are_kept(tmp_path):
    samples = {name: builders.sample(name, 0) for name in ("b", "a")}
    splits = {"train": ["b", "a"], "heldout": [], "val": []}
    described = {"class_names": "wxyz", "splits": splits, "blocks": {"b": "clip/0"}, "trimap": "label_edges"}
    described["categories"] = {"last": ["y", "z"]}
    with packs.writer(tmp_path / "a.h5", stamp={}, **described) as put:
        for sample in samples.values():
            put(packs.encode(sample, 4))
    pack = Pack(tmp_path / "a.h5")
    assert (pack.names("train"), pack.names("val")) == (("b", "a"), ())
    assert (pack.blocks, pack.trimap) == ({"b": "clip/0"}, "label_edges")
    assert pack.categories == {"last": ["y", "z"]}


@pytest.mark.parametrize(
    ("full", "said"),
    [
        (np.zeros((4, 5), np.uint8), "found truth at full size (4, 5) uint8, expected uint8 of (5, 6) or more"),
        (np.zeros((10, 12), np.int64), "found truth at full size (10, 12) int64, expected uint8"),
        (np.zeros((1, 10, 12), np.uint8), "found truth at full size (1, 10, 12)"),
        (np.full((10, 12), 4, np.uint8), "a, labels: found the value 4, expected 0 to 3"),
    ],
)
def test_a_bad_truth_at_full_size_is_refused(full, said):
    image, truth = np.zeros((5, 6, 3), np.uint8), np.zeros((5, 6), np.uint8)
    assert said in refusal(lambda: packs.encode(Sample("a", image, truth, full=full), 4))


def test_the_same_samples_give_the_same_bytes(tmp_path, path):
    other = builders.pack(tmp_path / "b.h5", splits=SPLITS)
    assert other.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (16, 16), (37, 61), (375, 500)])
def test_hdf5_reads_what_was_encoded_without_it(tmp_path, size):
    """Its own filters take the chunks back, odd numbers of bytes too, and find a byte that changed."""
    sample = builders.sample("a", 0, size)
    with packs.writer(tmp_path / "a.h5", class_names="abcd", **BARE) as put:
        put(packs.encode(sample, 4))
    with h5py.File(tmp_path / "a.h5") as file:
        assert np.array_equal(file["images/a"][()], sample.image)
        assert np.array_equal(file["truth/a"][()], sample.truth)
        assert all(file[f"{group}/a"].fletcher32 for group in ("images", "truth", "exact"))
        assert file["truth/a"].compression == "gzip" and file["images/a"].compression is None


def test_the_digest_tells_contents_apart(tmp_path, path):
    others = [
        builders.pack(tmp_path / "b.h5", splits=SPLITS, seed=1),
        builders.pack(tmp_path / "c.h5", splits=SPLITS | {"val": 2}),
        builders.pack(tmp_path / "d.h5", splits=SPLITS, classes=5),
        builders.pack(tmp_path / "e.h5", splits=SPLITS, blocks={"val_0": "a"}),
    ]
    assert len({Pack(other).digest for other in [path, *others]}) == 5


def test_a_pack_may_be_sent_to_another_process(path):
    pack = Pack(path)
    sent = pickle.loads(pickle.dumps(pack))
    assert np.array_equal(sent.sample("val_0").image, pack.sample("val_0").image)


def test_a_failed_writer_leaves_nothing(tmp_path):
    def fail():
        with packs.writer(
            tmp_path / "a.h5", class_names="ab", categories={}, splits={}, blocks={}, trimap="void", stamp={}
        ) as put:
            put(packs.encode(builders.sample("a", 0, classes=2), 2))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []


# Damage


def test_no_file(tmp_path):
    assert "found no such file, expected a pack; run `pack` first" in refusal(lambda: Pack(tmp_path / "a.h5"))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_file(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "no readable HDF5 file" in refusal(lambda: read_all(path))


def test_a_flipped_byte_in_an_image(path):
    with h5py.File(path) as file:
        place = file["images/val_0"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[place.byte_offset + place.size // 2] ^= 0xFF
    path.write_bytes(content)
    pack = Pack(path)
    assert "found images/val_0 damaged" in refusal(lambda: pack.sample("val_0"))
    assert pack.sample("train_0").image.any()


# A process of its own, since the HDF5 library may crash on what it cannot check.
FLIPS = """
import json, pathlib, sys
from pipeline.core.errors import DataError
from pipeline.formats.packs import Pack

path = pathlib.Path(sys.argv[1])

def read():
    pack = Pack(path)
    splits = {split: pack.names(split) for split in pack.splits}
    samples = [pack.sample(name) for names in splits.values() for name in names]
    return pack.class_names, splits, [sample.image.tobytes() + sample.truth.tobytes() for sample in samples]

content, expected = path.read_bytes(), read()
for place in range(0, len(content), max(1, len(content) // 300)):
    damaged = bytearray(content)
    damaged[place] ^= 0xFF
    path.write_bytes(damaged)
    try:
        if read() != expected:
            print(place, "other content")
    except DataError:
        pass
    except Exception as error:
        print(place, repr(error))
"""


def test_a_flipped_byte_anywhere_is_found_or_harmless(path):
    """Whatever byte is damaged, a reader gets what results rest on as it was written, or a DataError."""
    done = subprocess.run(
        [sys.executable, "-c", FLIPS, str(path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_foreign_files(tmp_path):
    text = tmp_path / "text.h5"
    text.write_text("no HDF5", encoding="utf-8")
    assert "no readable HDF5 file" in refusal(lambda: Pack(text))
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["images/a"] = np.zeros(3)
    assert "found format None, expected 'edgewise pack 3'" in refusal(lambda: Pack(tmp_path / "other.h5"))


def test_a_sample_that_is_not_there(path):
    with h5py.File(path, "a") as file:
        del file["truth/val_0"]
    assert "found no truth/val_0" in refusal(lambda: Pack(path).sample("val_0"))


def test_a_split_that_is_not_there(path):
    said = refusal(lambda: Pack(path).names("test"))
    assert "found no split 'test', expected one of heldout, train, val" in said


# What is refused


def test_labels_of_another_size():
    image, truth = np.zeros((4, 6, 3), np.uint8), np.zeros((6, 4), np.uint8)
    said = refusal(lambda: packs.encode(Sample("a", image, truth), 4))
    assert "a: found an image of 4 × 6 px (rows × cols) with labels of 6 × 4" in said


@pytest.mark.parametrize("value", [4, 254])
def test_labels_out_of_range(value):
    image, truth = np.zeros((4, 6, 3), np.uint8), np.full((4, 6), 255, np.uint8)
    truth[1, 2] = value
    said = refusal(lambda: packs.encode(Sample("a", image, truth), 4))
    assert f"a, labels: found the value {value}, expected 0 to 3" in said


@pytest.mark.parametrize(
    ("image", "truth"),
    [
        (np.zeros((4, 6), np.uint8), np.zeros((4, 6), np.uint8)),
        (np.zeros((4, 6, 4), np.uint8), np.zeros((4, 6), np.uint8)),
        (np.zeros((4, 6, 3), np.float32), np.zeros((4, 6), np.uint8)),
        (np.zeros((4, 6, 3), np.uint8), np.zeros((4, 6), np.int64)),
    ],
)
def test_arrays_of_another_kind(image, truth):
    said = refusal(lambda: packs.encode(Sample("a", image, truth), 4))
    assert "expected (H, W, 3) uint8 and (H, W) uint8" in said


MANY_ARRAYS = """
import sys
from pipeline.core import memory
from pipeline.formats import hdf5

held = []
def tell(number):
    if number in (200, 3999):
        held.append(memory.resident() >> 20)

with hdf5.whole(sys.argv[1]) as (file, reserve):
    for number in range(4000):
        for group in ("images", "truth"):
            reserve(9)
            hdf5.write_chunk(file, f"{group}/{number}", (3, 3), bytes(9), None)
        tell(number)
    file.attrs["format"] = "edgewise test 1"
file, _ = hdf5.open_whole(sys.argv[1], "edgewise test 1", made_by="test")
for number in range(4000):
    for group in ("images", "truth"):
        file[f"{group}/{number}"].shape
    tell(number)
print(*held)
"""


def test_memory_does_not_follow_the_number_of_arrays(tmp_path):
    """Without a bound on what the library keeps of a file's structure, writing adds 30 MB."""
    ended = subprocess.run([sys.executable, "-c", MANY_ARRAYS, tmp_path / "many.h5"], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    held = list(map(int, ended.stdout.split()))
    assert len(held) == 4 and max(held) - min(held) < 10, held
