"""Run tables: what is read, and what is wrong with them."""

import observe
import pytest

from pipeline.core import layout
from pipeline.core.errors import SettingsError
from pipeline.core.settings import ROOT

HEADER = "pack\tnet\tsystem\tagainst"


def table(tmp_path, *lines):
    path = tmp_path / "runs.tsv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def refusal(path):
    said = observe.refusal(lambda: layout.read_runs(path), SettingsError)
    assert said.startswith(str(path))
    return said


def test_a_table_is_read_in_its_order(tmp_path):
    path = table(tmp_path, "# a comment", HEADER, "p\tn\tunary\t-", "", "# another", "p\tn\tcrf\tn/unary")
    assert layout.read_runs(path) == (layout.Run("p", "n", "unary", "-"), layout.Run("p", "n", "crf", "n/unary"))


@pytest.mark.parametrize("path", sorted((ROOT / "config" / "runs").glob("*.tsv")), ids=lambda path: path.stem)
def test_every_table_of_the_project_is_valid(path):
    assert layout.read_runs(path)


def test_paths():
    run = layout.Run("p", "n", "crf", "-")
    assert str(run.pack_file("r")) == "r/pack/p.h5"
    assert str(run.fitted("r")) == "r/fit/p/n/crf.npz"
    assert str(run.score("r")) == "r/score/p/n/crf.h5"
    assert list(map(str, run.unaries("r", 2))) == ["r/cache/p/n/0.zarr", "r/cache/p/n/1.zarr"]
    assert list(map(str, run.labels("r", 1))) == ["r/refine/p/n/crf/0.zarr"]


def test_paths_of_what_is_there(tmp_path):
    run = layout.Run("p", "n", "crf", "-")
    assert run.histories(tmp_path) == []
    for name in ("train/p/n.jsonl", "finetune/p/n/crf.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    assert [path.name for path in run.histories(tmp_path)] == ["n.jsonl", "crf.jsonl"]


def test_no_table(tmp_path):
    assert "found no such file" in refusal(tmp_path / "runs.tsv")


@pytest.mark.parametrize("lines", [(), (HEADER,), ("# nothing",)])
def test_no_run(tmp_path, lines):
    assert "found no run, expected at least one" in refusal(table(tmp_path, *lines))


def test_an_unknown_column_names_the_nearest(tmp_path):
    said = refusal(table(tmp_path, "pack\tnet\tsytem\tagainst", "p\tn\tunary\t-"))
    assert "column 'sytem'" in said
    assert "did you mean 'system'?" in said


@pytest.mark.parametrize("line", ["p\tn\tunary", "p\tn\t\t-", "p\tn\tunary\t-\tmore", "p n unary -"])
def test_a_line_must_be_whole(tmp_path, line):
    said = refusal(table(tmp_path, HEADER, "p\tn\tunary\t-", line))
    assert "run 2: found" in said
    assert "use tabs" in said


def test_a_missing_column(tmp_path):
    assert "the columns pack, net, system, against" in refusal(table(tmp_path, "pack\tnet\tsystem", "p\tn\tunary"))


def test_the_figure_of_a_paper_may_stand_beside_a_run(tmp_path):
    path = table(tmp_path, f"{HEADER}\tpaper", "p\tn\tunary\t-\t51.87", "p\tn\tcrf\t-\t-")
    assert [run.paper for run in layout.read_runs(path)] == ["51.87", "-"]


@pytest.mark.parametrize("figure", ["most", "101", "-5", "nan"])
def test_the_figure_of_a_paper_must_be_a_percentage(tmp_path, figure):
    said = refusal(table(tmp_path, f"{HEADER}\tpaper", f"p\tn\tunary\t-\t{figure}"))
    assert f"n/unary on p: found paper '{figure}', expected a mean IoU in percent" in said


def test_a_line_without_its_figure(tmp_path):
    said = refusal(table(tmp_path, f"{HEADER}\tpaper", "p\tn\tunary\t-"))
    assert "the columns pack, net, system, against, paper, none empty" in said


def test_a_run_that_stands_twice(tmp_path):
    said = refusal(table(tmp_path, HEADER, "p\tn\tunary\t-", "p\tn\tcrf\t-", "p\tn\tcrf\tn/unary"))
    assert "a run that stands twice" in said


def test_every_network_needs_its_unary(tmp_path):
    said = refusal(table(tmp_path, HEADER, "p\tn\tunary\t-", "p\tm\tcrf\t-"))
    assert "found m/crf on p without m/unary" in said


def test_against_must_be_a_run_of_the_pack(tmp_path):
    lines = HEADER, "p\tn\tunary\t-", "p\tn\tcrf\tn/unari", "other\tn\tunary\t-"
    said = refusal(table(tmp_path, *lines))
    assert "found against 'n/unari'" in said
    assert "did you mean 'n/unary'?" in said
