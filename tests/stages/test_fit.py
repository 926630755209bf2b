"""`fit` from its command line: the same bytes twice, refusals."""

import builders
import pytest
from observe import said

from pipeline.core.settings import ROOT
from pipeline.formats import fitted


def test_fit_gives_the_same_bytes_twice(tiny_run, tmp_path):
    assert tiny_run("fit", output=tmp_path / "f.npz") == 0
    assert (tmp_path / "f.npz").read_bytes() == tiny_run.system.read_bytes()


@pytest.mark.parametrize("name", ["unary", "convcrf_released"])
def test_fit_passes_settings_through(tiny_run, tmp_path, name):
    path = ROOT / "config" / "systems" / f"{name}.yaml"
    assert tiny_run("fit", settings=path, output=tmp_path / "f.npz") == 0
    assert fitted.read(tmp_path / "f.npz").curve == []
    assert tiny_run("refine", system=tmp_path / "f.npz", output=tmp_path / "l.zarr") == 0


def test_fit_refuses_unaries_of_another_pack(tiny_run, tmp_path, capsys):
    other = builders.pack(tmp_path / "other.h5", seed=1)
    assert tiny_run("fit", pack=other, output=tmp_path / "f.npz") == 2
    assert f"found unaries of another pack, expected those of {other}" in said(capsys)


def test_fit_refuses_a_pack_that_holds_nothing_out(tiny_run, tmp_path, capsys):
    pack = builders.pack(tmp_path / "all.h5", splits={"train": 1, "heldout": 0, "val": 1})
    cached = builders.unaries(tmp_path / "u.zarr", pack, splits=("val",))
    assert tiny_run("fit", pack=pack, unaries=cached, output=tmp_path / "f.npz") == 2
    assert "found no held-out images" in said(capsys)


def test_fit_refuses_unaries_without_the_held_out_images(tiny_run, tmp_path, capsys):
    cached = builders.unaries(tmp_path / "u.zarr", tiny_run.pack, splits=("val",))
    assert tiny_run("fit", unaries=cached, output=tmp_path / "f.npz") == 2
    assert "found no image heldout_" in said(capsys)
