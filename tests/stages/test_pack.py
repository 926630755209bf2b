"""`pack` from its command line: the same bytes twice, refusals."""

from observe import said

from pipeline.formats import packs


def test_pack_makes_the_same_bytes_twice(tiny_run, tmp_path):
    paths = [tmp_path / "1.h5", tmp_path / "2.h5"]
    assert [tiny_run("pack", output=path) for path in paths] == [0, 0]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    pack = packs.Pack(paths[0])
    assert {split: len(pack.names(split)) for split in pack.splits} == {"train": 2, "heldout": 1, "val": 1}
    assert tiny_run("pack", seed=1, output=paths[1]) == 0
    assert packs.Pack(paths[1]).digest != pack.digest


def test_pack_refuses_unknown_settings(tiny_run, tmp_path, capsys):
    assert tiny_run("pack", settings=tmp_path / "no.yaml", output=tmp_path / "a.h5") == 2
    assert "no.yaml: found no such file" in said(capsys)
    assert list(tmp_path.iterdir()) == []
