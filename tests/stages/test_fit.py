"""`fit` from its command line: the same bytes twice, refusals."""

import builders
import numpy as np
import pytest
import torch
from observe import said
from tiny import DEEPLAB, NETWORK

from pipeline import fit, nets
from pipeline.core import files, settings
from pipeline.core.settings import ROOT, Settings
from pipeline.formats import fitted
from pipeline.formats.packs import Pack
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


def test_a_branch_starts_from_a_weight_file(tiny_run, tmp_path, capsys):
    """A classifier's, as far as the walks look; what is not fitted is the file's. Another depth is refused."""
    torch.manual_seed(1)
    given = nets.build(Settings(NETWORK), 4).backbone.state_dict()
    torch.save(given | {"fc.weight": torch.zeros(10, 64)}, tmp_path / "resnet.pth")
    preset = settings.read(ROOT / "config/systems/difnet_paper.yaml", "systems").plain()
    small = {"depth": 18, "width": 0.125, "walks": ["image", "layer2"], "branch_weights": str(tmp_path / "resnet.pth")}
    fitting = preset["fit"] | {"parameters": {"features": 1}, "epochs": 1}
    path = tiny_run.yaml("branched", preset | small | {"fit": fitting})
    assert tiny_run("fit", settings=path, output=tmp_path / "f.npz") == 0
    assert " tensors loaded; none missing; 1 unexpected (fc.weight); none mismatched" in capsys.readouterr().err
    found = fitted.read(tmp_path / "f.npz")
    assert found.stamp["inputs"]["weights"] == files.digest(tmp_path / "resnet.pth")
    branch = {name: x for name, x in found.state.items() if name.startswith("similarity.") and name.endswith("weight")}
    assert {name.split(".")[1] for name in branch} == {"conv1", "bn1", "layer1", "layer2"}
    assert all(np.array_equal(x, given[name.removeprefix("similarity.")]) for name, x in branch.items())
    path = tiny_run.yaml("deeper", preset | small | {"depth": 34, "fit": fitting})
    assert tiny_run("fit", settings=path, output=tmp_path / "g.npz") == 2
    assert "set architecture, depth and width as the file needs them; nothing was loaded" in said(capsys)
    path = tiny_run.yaml("absent", preset | small | {"branch_weights": str(tmp_path / "none.pth"), "fit": fitting})
    assert tiny_run("fit", settings=path, output=tmp_path / "g.npz") == 2
    assert "none.pth: found no such file" in said(capsys)
    assert not (tmp_path / "g.npz").exists()


# Learnt parts


@pytest.fixture(scope="module")
def crfrnn(tiny_run, tmp_path_factory):
    """A CRF-RNN fitted on the tiny run's unaries, four steps, watched: its settings and the fitted file."""
    folder = tmp_path_factory.mktemp("crfrnn")
    preset = settings.read(ROOT / "config/systems/crfrnn.yaml", "systems").plain()
    fitting = preset["fit"] | {"epochs": 4, "batch": 2, "watch": {"every": 2, "images": 2}}
    path = tiny_run.yaml("crfrnn", preset | {"theta_alpha": 8.0, "fit": fitting})
    assert tiny_run("fit", settings=path, output=folder / "f.npz") == 0
    return path, folder / "f.npz"


def test_learnt_arrays_are_kept_and_used(tiny_run, crfrnn, tmp_path):
    found = fitted.read(crfrnn[1])
    assert {name: array.shape for name, array in found.state.items() if array.shape} == {
        "appearance_weight": (4,),
        "smoothness_weight": (4,),
        "compatibility": (4, 4),
    }
    assert abs(found.state["compatibility"] - (1 - np.eye(4))).max() > 1e-3
    assert tiny_run("refine", system=crfrnn[1], output=tmp_path / "l.zarr") == 0


def test_a_fit_may_be_watched_on_the_way(tiny_run, crfrnn, tmp_path):
    """Before the first step, and after every second; watching changes nothing, and nothing of val is fitted on."""
    found = fitted.read(crfrnn[1])
    assert [row["step"] for row in found.curve if "val_miou" in row] == [0, 2, 4]
    assert all(0 <= row[key] <= 100 for row in found.curve for key in ("val_miou", "heldout_miou") if key in row)
    assert found.stamp["inputs"]["images"] == list(Pack(tiny_run.pack).names("heldout"))
    values = found.settings.plain()
    unwatched = values | {"fit": {key: value for key, value in values["fit"].items() if key != "watch"}}
    assert tiny_run("fit", settings=tiny_run.yaml("unwatched", unwatched), output=tmp_path / "f.npz") == 0
    again = fitted.read(tmp_path / "f.npz")
    assert all(np.array_equal(again.state[name], array) for name, array in found.state.items())
    assert [row["loss"] for row in again.curve] == [row["loss"] for row in found.curve if "loss" in row]


def test_fit_says_what_blew_up_and_leaves_nothing(tiny_run, tmp_path, capsys):
    preset = settings.read(ROOT / "config/systems/crfrnn.yaml", "systems").plain()
    wild = preset | {"fit": preset["fit"] | {"epochs": 40, "batch": 2, "learning_rate": 1e18}}
    assert tiny_run("fit", settings=tiny_run.yaml("wild", wild), output=tmp_path / "f.npz") == 2
    line = said(capsys)
    assert "fit, step 1: found " in line and "times as large as at first" in line
    assert any(name in line for name in preset["fit"]["parameters"])
    assert list(tmp_path.iterdir()) == []


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
