"""Scores: round trip, whole or not at all, damage found, equal bytes for equal inputs."""

import h5py
import numpy as np
import pytest
from builders import stamp

from pipeline.core.errors import DataError
from pipeline.formats import confusions

NAMES = ("first", "second", "dritte_ü")


def write(path, names=NAMES, exact=True, seconds=0.5, seed=0, put=None, certificate=None, **changes):
    rng = np.random.default_rng(seed)
    described = {
        "names": names,
        "blocks": {"second": "clip"},
        "class_names": ("ground", "leaf"),
        "categories": {"all": ["ground", "leaf"]},
        "split": "val",
        "widths": (1, 4),
        "trimap": "void",
        "settings": {"system": "convcrf", "preset": "paper"},
        "pack_digest": "d" * 64,
        "stamp": stamp("score"),
    } | changes
    counts = {name: rng.integers(0, 2**31, size=(4, 2, 2), dtype=np.int32) for name in names}
    with confusions.writer(path, **described) as out:
        for name in names if put is None else put:
            parts = {"all": counts[name][0], "bands": counts[name][1:3]}
            parts |= {"exact": counts[name][3]} if exact else {}
            out.put(name, parts, {"changed": 0.25, "seconds": seconds} | (certificate or {}))
    return np.stack(list(counts.values()))


def test_round_trip(tmp_path):
    counts = write(tmp_path / "a.h5")
    score = confusions.Score(tmp_path / "a.h5")
    assert score.names == NAMES
    assert score.block == ("first", "clip", "dritte_ü")
    assert (score.class_names, score.widths, score.split) == (("ground", "leaf"), (1, 4), "val")
    assert (score.trimap, score.pack_digest) == ("void", "d" * 64)
    assert score.settings == {"system": "convcrf", "preset": "paper"}
    assert score.stamp == stamp("score")
    assert score.categories == {"all": ["ground", "leaf"]}
    assert not score.has_certificate
    np.testing.assert_array_equal(np.concatenate(list(score.parts("all"))), counts[:, 0])
    np.testing.assert_array_equal(score.total("all"), counts[:, 0].sum(axis=0, dtype=np.int64))
    np.testing.assert_array_equal(score.total("bands"), counts[:, 1:3].sum(axis=0, dtype=np.int64))
    np.testing.assert_array_equal(score.total("exact"), counts[:, 3].sum(axis=0, dtype=np.int64))
    np.testing.assert_array_equal(score.per_image("changed"), [0.25] * 3)
    np.testing.assert_array_equal(score.per_image("seconds"), [0.5] * 3)


def test_a_certificate_is_kept_and_counts_in_the_digest(tmp_path):
    for name, bound in (("a", -7.5), ("b", -8.0)):
        write(tmp_path / name, certificate={"energy": -7.25, "bound": bound})
    one, other = (confusions.Score(tmp_path / name) for name in "ab")
    assert one.has_certificate
    np.testing.assert_array_equal(one.per_image("energy"), [-7.25] * 3)
    np.testing.assert_array_equal(one.per_image("bound"), [-7.5] * 3)
    assert one.digest != other.digest


def test_parts_are_the_whole_in_order(tmp_path, monkeypatch):
    counts = write(tmp_path / "a.h5")
    monkeypatch.setattr(confusions, "AT_ONCE", 1)
    parts = list(confusions.Score(tmp_path / "a.h5").parts("bands"))
    assert [len(part) for part in parts] == [1, 1, 1]
    np.testing.assert_array_equal(np.concatenate(parts), counts[:, 1:3])


def test_exact_is_only_there_if_written(tmp_path):
    write(tmp_path / "a.h5", exact=False)
    assert not confusions.Score(tmp_path / "a.h5").has_exact


def test_same_inputs_give_the_same_bytes_and_time_alone_the_same_digest(tmp_path):
    for name, seconds in (("a", 0.5), ("b", 0.5), ("c", 0.7)):
        write(tmp_path / name, seconds=seconds)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()
    digests = {confusions.Score(tmp_path / name).digest for name in "abc"}
    assert len(digests) == 1
    write(tmp_path / "d", seed=1)
    assert confusions.Score(tmp_path / "d").digest not in digests


def test_nothing_appears_before_all_is_put(tmp_path):
    with pytest.raises(RuntimeError, match="dritte_ü was never put"):
        write(tmp_path / "a.h5", put=NAMES[:2])
    with pytest.raises(ValueError, match="second is out of turn"):
        write(tmp_path / "a.h5", put=NAMES[1:])
    assert list(tmp_path.iterdir()) == []


def test_missing_truncated_and_foreign_files_are_told_apart(tmp_path):
    path = tmp_path / "a.h5"
    with pytest.raises(DataError, match=r"a\.h5: found no such file, expected a score; run `score` first"):
        confusions.Score(path)
    write(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"a\.h5: found no readable HDF5 file .*; run `score` again"):
        confusions.Score(path)
    with h5py.File(path, "w") as file:
        file.attrs["format"] = "edgewise pack 2"
    with pytest.raises(DataError, match=r"found format 'edgewise pack 2', expected 'edgewise score 2'"):
        confusions.Score(path)
    write(path)
    with h5py.File(path, "r+") as file:
        del file["bands"]
    with pytest.raises(DataError, match=r"a\.h5: found a damaged file"):
        confusions.Score(path)


def test_damage_inside_is_found_when_read(tmp_path):
    path = tmp_path / "a.h5"
    write(path)
    with h5py.File(path) as file:
        chunk = file["all"].id.get_chunk_info(0)
    damaged = bytearray(path.read_bytes())
    damaged[chunk.byte_offset + chunk.size // 2] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=r"a\.h5: found a damaged file"):
        confusions.Score(path).total("all")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"pack_digest": "e" * 64}, "pack_digest"),
        ({"class_names": ("ground", "tree")}, "class_names"),
        ({"widths": (1, 5)}, "widths"),
        ({"names": ("first", "second", "other")}, "names"),
    ],
)
def test_scores_of_other_work_do_not_compare(tmp_path, change, word):
    write(tmp_path / "a.h5")
    write(tmp_path / "b.h5", **change)
    one, other = (confusions.Score(tmp_path / name) for name in ("a.h5", "b.h5"))
    one.compares_with(one)
    with pytest.raises(DataError, match=rf"a\.h5: found {word} .* as in .*b\.h5; run `score` again on both"):
        one.compares_with(other)
