"""Fitted systems: round trip, the same bytes, damage."""

import io

import builders
import numpy as np
import observe
import pytest

from pipeline.core import settings
from pipeline.core.errors import DataError, SettingsError
from pipeline.core.settings import Settings
from pipeline.formats import fitted
from pipeline.formats.fitted import Fitted


@pytest.fixture
def path(tmp_path):
    return builders.fitted(tmp_path / "a.npz")


def refusal(path):
    said = observe.refusal(lambda: fitted.read(path))
    assert said.startswith(str(path))
    return said


def same(one, other):
    numbers = one.state.keys() == other.state.keys() and all(
        np.array_equal(one.state[name], other.state[name]) and one.state[name].dtype == other.state[name].dtype
        for name in one.state
    )
    return numbers and (one.settings, one.curve, one.stamp) == (other.settings, other.curve, other.stamp)


def test_round_trip(tmp_path):
    written = Fitted(
        settings.read(settings.ROOT / "config/systems/convcrf.yaml", "systems"),
        {"a": np.float32(1.25), "b": np.arange(4.0).reshape(2, 2)},
        [{"step": 1, "loss": 0.5}],
        {"stage": "fit", "seed": 0},
    )
    fitted.write(tmp_path / "no ending", written)
    found = fitted.read(tmp_path / "no ending")
    assert same(found, written)
    assert "theta_beta" in found.settings.fit.parameters


def test_a_system_that_learns_nothing(tmp_path):
    written = Fitted(Settings({"system": "unary", "preset": "default"}), {}, [], {})
    fitted.write(tmp_path / "a.npz", written)
    assert same(fitted.read(tmp_path / "a.npz"), written)


def test_the_same_system_gives_the_same_bytes(tmp_path, path):
    assert builders.fitted(tmp_path / "b.npz").read_bytes() == path.read_bytes()


def test_a_number_may_not_take_the_name_of_a_text(tmp_path):
    with pytest.raises(ValueError, match="may not be called stamp"):
        fitted.write(tmp_path / "a.npz", Fitted(Settings({}), {"stamp": np.zeros(1)}, [], {}))


def test_no_file(tmp_path):
    assert "found no such file, expected a fitted system; run `fit` first" in refusal(tmp_path / "a.npz")


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.7, 0.99])
def test_a_truncated_file(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "a damaged file" in refusal(path)


def test_a_flipped_byte_anywhere_is_found_or_harmless(path):
    content, expected, missed = path.read_bytes(), fitted.read(path), []
    for place in range(0, len(content), 5):
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            if not same(fitted.read(path), expected):
                missed.append((place, "other content"))
        except DataError:
            pass
        except Exception as error:
            missed.append((place, repr(error)))
    assert missed == []


def test_foreign_files(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, weights=np.zeros(3))
    assert "found format 'none', expected 'edgewise fitted 1'" in refusal(path)
    path.write_text("no numbers", encoding="utf-8")
    refusal(path)


def test_a_single_array_is_no_system(tmp_path):
    path = tmp_path / "a.npz"
    content = io.BytesIO()
    np.save(content, np.zeros(3))
    path.write_bytes(content.getvalue())
    refusal(path)


def test_a_file_without_all_of_its_texts(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, format=np.array(fitted.FORMAT))
    refusal(path)


def test_nothing_is_unpickled(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, format=np.array(fitted.FORMAT), state=np.array([{"a": 1}], dtype=object))
    assert "a damaged file" in refusal(path)


def test_settings_of_another_version_are_refused(tmp_path):
    fitted.write(tmp_path / "a.npz", Fitted(Settings({"system": "unary", "preset": "default", "depth": 3}), {}, [], {}))
    with pytest.raises(SettingsError, match=r"a\.npz, its settings, key 'depth': found an unknown key"):
        fitted.read(tmp_path / "a.npz")
