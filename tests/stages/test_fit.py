"""`fit` from its command line: the same bytes twice, refusals."""

import builders
import pytest
from observe import said
from tiny import DEEPLAB

from pipeline import fit
from pipeline.core.settings import ROOT
from pipeline.formats import fitted
from pipeline.systems import deeplab


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


# A search


@pytest.fixture(scope="module")
def searched(tiny_run, tmp_path_factory):
    """The tiny run's system `deeplab`, fitted without a stop: its settings, its fitted file."""
    folder = tmp_path_factory.mktemp("searched")
    path = tiny_run.yaml("deeplab", DEEPLAB)
    assert tiny_run("fit", settings=path, output=folder / "f.npz") == 0
    return path, folder / "f.npz"


def counted(monkeypatch):
    """Count the tasks that are worked out in this process."""
    tasks, one = [], fit._one
    monkeypatch.setattr(fit, "_one", lambda *arguments: tasks.append(arguments[2]) or one(*arguments))
    return tasks


def test_a_search_tells_every_point(searched):
    curve = fitted.read(searched[1]).curve
    points = [tuple(told[name] for name in deeplab.SEARCHED) for told in curve]
    assert len(points) == len(set(points)) >= 4
    assert {told["images"] for told in curve} == {2}
    assert max(told["miou"] for told in curve) > min(told["miou"] for told in curve)


def test_a_killed_search_goes_on_from_its_journal(tiny_run, searched, tmp_path, monkeypatch):
    settings, expected = searched
    options = {"settings": settings, "journal": tmp_path / "journal", "output": tmp_path / "f.npz"}
    tasks = counted(monkeypatch)
    once, put = fit.Journal.put, []

    def killed(self, entries):
        if len(put) == 3:
            raise KeyboardInterrupt
        put.append(entries)
        once(self, entries)

    with monkeypatch.context() as patched:
        patched.setattr(fit.Journal, "put", killed)
        assert tiny_run("fit", **options) == 130
    assert not (tmp_path / "f.npz").exists()
    first = len(tasks)
    assert tiny_run("fit", **options) == 0
    assert (tmp_path / "f.npz").read_bytes() == expected.read_bytes()
    whole = len(tasks) - first + 3
    tasks.clear()
    # Whatever was counted is there: another fit of the same work counts nothing.
    assert tiny_run("fit", **options) == 0
    assert tasks == []
    assert (tmp_path / "f.npz").read_bytes() == expected.read_bytes()
    other = DEEPLAB | {"iterations": 3}
    assert tiny_run("fit", **options | {"settings": tiny_run.yaml("deeplab_other", other)}) == 0
    assert len(tasks) >= whole / 2


def test_parts_count_for_the_fit(tiny_run, searched, tmp_path, monkeypatch):
    settings, expected = searched
    options = {"settings": settings, "journal": tmp_path / "journal"}
    tasks = counted(monkeypatch)
    for part in ("1-of-2", "2-of-2"):
        assert tiny_run("fit", part=part, **options) == 0
    shared = len(tasks)
    assert shared == 2 * 2  # images, pairs of bandwidths
    assert sorted(path.name[16:] for path in (tmp_path / "journal").iterdir()) == [".1-of-2.journal", ".2-of-2.journal"]
    assert tiny_run("fit", output=tmp_path / "f.npz", **options) == 0
    assert len(tasks[shared:]) < len(tasks)
    assert not {task[0:2] for task in tasks[:shared]} & {task[0:2] for task in tasks[shared:]}
    assert (tmp_path / "f.npz").read_bytes() == expected.read_bytes()


def test_processes_count_the_same(tiny_run, searched, tmp_path):
    settings, expected = searched
    assert tiny_run("fit", settings=settings, workers=2, journal=tmp_path / "journal", output=tmp_path / "f.npz") == 0
    assert (tmp_path / "f.npz").read_bytes() == expected.read_bytes()


def test_a_fault_in_a_process_is_told_in_one_line(tiny_run, tmp_path, capsys):
    cached = builders.unaries(tmp_path / "u.zarr", tiny_run.pack, splits=("val",))
    path = tiny_run.yaml("deeplab", DEEPLAB)
    options = {"settings": path, "unaries": cached, "output": tmp_path / "f.npz"}
    assert tiny_run("fit", workers=1, **options) == 2
    assert "found no image heldout_" in said(capsys)


def test_the_paper_s_images_are_of_val(tiny_run, tmp_path):
    path = tiny_run.yaml("deeplab_val", DEEPLAB | {"search": DEEPLAB["search"] | {"images": "paper"}})
    assert tiny_run("fit", settings=path, output=tmp_path / "f.npz") == 0
    assert fitted.read(tmp_path / "f.npz").stamp["inputs"]["images"] == ["val_0", "val_1"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"part": "1-of-2"}, "--part: found system 'convcrf', expected one that searches; leave --part out"),
        ({}, "--output: found nothing, expected a file to write; give --output FILE, or --part K-of-N"),
    ],
)
def test_fit_refuses_options_that_do_not_go_together(tiny_run, tmp_path, capsys, options, expected):
    assert tiny_run("fit", journal=tmp_path / "journal", **options) == 2
    assert expected in said(capsys)


def test_parts_need_a_journal(tiny_run, searched, capsys):
    assert tiny_run("fit", settings=searched[0], part="1-of-2") == 2
    assert "--part: found no --journal, expected one that all parts share; give --journal FOLDER" in said(capsys)


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        ({"theta_beta": {"first": 10, "last": 3, "step": 1}}, "key 'search.theta_beta': found a range from 10 to 3"),
        ({"theta_alpha": {"first": 0, "last": 3, "step": 1}}, "key 'search.theta_alpha.first': found 0"),
        ({"judging": {"name": "some"}}, "key 'search.judging': found {'name': 'some'}, expected a mapping whose"),
    ],
)
def test_a_search_without_points_is_refused(tiny_run, tmp_path, capsys, search, expected):
    path = tiny_run.yaml("deeplab_bad", DEEPLAB | {"search": DEEPLAB["search"] | search})
    assert tiny_run("fit", settings=path, output=tmp_path / "f.npz") == 2
    assert expected in said(capsys)
