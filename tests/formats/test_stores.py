"""Stores of unaries and labels: round trip, damage, resuming what a kill left, whose unaries they are."""

import json

import numpy as np
import pytest
from observe import refusal

from pipeline.core.files import partial
from pipeline.formats import stores

NAMES = ("a", "b", "c")
STAMP = {"stage": "example", "commit": "1", "settings": {"crop": (1, 2)}}
FORMAT = "example 1"


def arrays(seed=0, dtype=np.float32):
    drawn = np.random.default_rng(seed).integers(0, 200, (len(NAMES), 3, 9, 11))
    return dict(zip(NAMES, drawn.astype(dtype), strict=True))


def write(path, content=None, stamp=STAMP, until=None):
    """Write a store; with `until`, be killed before that array."""
    content = arrays() if content is None else content
    put = []
    with stores.writer(path, format_name=FORMAT, names=tuple(content), attributes={"x": 1}, stamp=stamp) as out:
        for name, array in content.items():
            if name == until:
                raise KeyboardInterrupt
            if name not in out.names:
                out.put(name, array, {"size": list(array.shape)})
                put.append(name)
    return put


def be_killed(path, until="c", **options):
    with pytest.raises(KeyboardInterrupt):
        write(path, until=until, **options)
    assert not path.exists()
    assert partial(path).is_dir()


def read(path):
    return stores.Store(path, FORMAT, made_by="refine")


def chunk(folder, name):
    (found,) = [path for path in (folder / name).rglob("*") if path.is_file() and path.name != "zarr.json"]
    return found


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint8])
def test_round_trip(tmp_path, dtype):
    content = arrays(dtype=dtype)
    content["b"] = np.zeros_like(content["b"])  # nothing but one value must be stored too
    write(tmp_path / "s.zarr", content)
    store = read(tmp_path / "s.zarr")
    assert store.names == NAMES
    assert store.attributes["x"] == 1
    assert store.stamp["commit"] == "1"
    for name in NAMES:
        array, attributes = store.read(name)
        assert array.dtype == dtype
        assert np.array_equal(array, content[name])
        assert attributes["size"] == [3, 9, 11]
        assert store.attributes_of(name) == attributes
    assert [path.name for path in tmp_path.iterdir()] == ["s.zarr"]


def test_the_digest_is_that_of_the_content(tmp_path):
    write(tmp_path / "s.zarr")
    write(tmp_path / "same.zarr", stamp=STAMP | {"commit": "2"})
    write(tmp_path / "other.zarr", arrays(seed=1))
    same, other = (read(tmp_path / f"{name}.zarr").digest for name in ("same", "other"))
    assert read(tmp_path / "s.zarr").digest == same != other


def test_a_store_replaces_the_old_one(tmp_path):
    write(tmp_path / "s.zarr")
    write(tmp_path / "s.zarr", {"d": np.ones((2, 2), np.uint8)})
    assert read(tmp_path / "s.zarr").names == ("d",)


def test_an_array_never_put_is_a_fault_of_the_program(tmp_path):
    def forget():
        with stores.writer(tmp_path / "s.zarr", format_name=FORMAT, names=NAMES, attributes={}, stamp={}) as out:
            out.put("a", np.zeros((2, 2), np.uint8), {})

    with pytest.raises(RuntimeError, match="2 arrays were never put, the first is b"):
        forget()
    assert not (tmp_path / "s.zarr").exists()


# What a kill leaves


def test_whole_arrays_are_kept(tmp_path):
    path = tmp_path / "s.zarr"
    be_killed(path)
    kept = chunk(partial(path), "a").stat().st_mtime_ns
    assert write(path) == ["c"]
    assert chunk(path, "a").stat().st_mtime_ns == kept
    assert not partial(path).exists()
    assert read(path).digest == write_elsewhere(tmp_path).digest


def write_elsewhere(tmp_path):
    write(tmp_path / "undisturbed.zarr")
    return read(tmp_path / "undisturbed.zarr")


def test_a_commit_that_changes_no_source_keeps_them_too(tmp_path):
    be_killed(tmp_path / "s.zarr")
    assert write(tmp_path / "s.zarr", stamp=STAMP | {"commit": "2"}) == ["c"]


def test_arrays_of_other_work_are_dropped(tmp_path):
    be_killed(tmp_path / "s.zarr", content=arrays(seed=1))
    other = STAMP | {"settings": {"crop": (1, 3)}}
    assert write(tmp_path / "s.zarr", stamp=other) == list(NAMES)
    assert np.array_equal(read(tmp_path / "s.zarr").read("a")[0], arrays()["a"])


def spoil_chunk_missing(folder):
    chunk(folder, "b").unlink()


def spoil_chunk_truncated(folder):
    path = chunk(folder, "b")
    path.write_bytes(path.read_bytes()[:-7])


def spoil_chunk_empty(folder):
    chunk(folder, "b").write_bytes(b"")


def spoil_chunk_flipped(folder):
    path = chunk(folder, "b")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def spoil_metadata_truncated(folder):
    path = folder / "b" / "zarr.json"
    path.write_text(path.read_text()[:40])


def spoil_metadata_empty(folder):
    (folder / "b" / "zarr.json").write_text("")


def spoil_metadata_missing(folder):
    (folder / "b" / "zarr.json").unlink()


SPOILT = [
    spoil_chunk_missing,
    spoil_chunk_truncated,
    spoil_chunk_empty,
    spoil_chunk_flipped,
    spoil_metadata_truncated,
    spoil_metadata_empty,
    spoil_metadata_missing,
]


@pytest.mark.parametrize("spoil", SPOILT)
def test_an_array_that_a_kill_cut_is_made_again(tmp_path, spoil):
    path = tmp_path / "s.zarr"
    be_killed(path)
    spoil(partial(path))
    assert write(path) == ["b", "c"]
    assert read(path).digest == write_elsewhere(tmp_path).digest
    assert np.array_equal(read(path).read("b")[0], arrays()["b"])


@pytest.mark.parametrize("content", ["", "{", '{"zarr_format": 3, "node_type": "group"}'])
def test_a_partial_store_without_its_stamp_is_begun_anew(tmp_path, content):
    path = tmp_path / "s.zarr"
    be_killed(path)
    (partial(path) / "zarr.json").write_text(content)
    assert write(path) == list(NAMES)
    assert read(path).digest == write_elsewhere(tmp_path).digest


def test_a_file_in_the_place_of_the_partial_store(tmp_path):
    path = tmp_path / "s.zarr"
    (partial(path)).mkdir()
    assert write(path) == list(NAMES)


# Damage of a finished store


@pytest.mark.parametrize("spoil", SPOILT)
def test_a_damaged_array_is_named(tmp_path, spoil):
    path = tmp_path / "s.zarr"
    write(path)
    spoil(path)
    said = refusal(lambda: read(path).read("b"))
    assert f"{path}, image b: found a damaged array" in said
    assert "run `refine` again" in said
    assert np.array_equal(read(path).read("a")[0], arrays()["a"])


def test_no_store(tmp_path):
    assert "found no such store, expected a Zarr store; run `refine` first" in refusal(lambda: read(tmp_path / "s"))


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"zarr_format": 3, "node_type": "group"}'])
def test_foreign_folders(tmp_path, content):
    if content is not None:
        (tmp_path / "zarr.json").write_text(content)
    assert "run `refine` again" in refusal(lambda: read(tmp_path))


def test_another_format(tmp_path):
    write(tmp_path / "s.zarr")
    said = refusal(lambda: stores.Store(tmp_path / "s.zarr", "other 1", made_by="cache"))
    assert "found format 'example 1', expected 'other 1'; run `cache` again" in said


def test_an_image_that_is_not_there(tmp_path):
    write(tmp_path / "s.zarr")
    assert "image z: found no such image" in refusal(lambda: read(tmp_path / "s.zarr").read("z"))


def test_the_stamp_is_stored_as_json(tmp_path):
    write(tmp_path / "s.zarr")
    assert read(tmp_path / "s.zarr").stamp == json.loads(json.dumps(STAMP))
