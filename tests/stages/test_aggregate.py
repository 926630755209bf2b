"""The table: its lines, gains, notes and refusals."""

import re

import builders
import numpy as np
import pytest
from scored import SHARPEN, ScoredRuns

from pipeline import aggregate
from pipeline.formats import confusions, tables
from pipeline.formats.packs import Pack
from pipeline.metrics import overlap


def test_table_has_a_line_for_every_run(whole):
    rows, made = tables.read(whole.table)
    assert [f"{row['net']}/{row['system']}" for row in rows] == list(SHARPEN)
    assert (made["seed"], made["resamples"]) == (1, 200)
    counts = confusions.Score(whole.file("score", "net/convcrf", "h5")).total("all")
    row = whole.rows()["net/convcrf"]
    assert row["miou"] == f"{100 * overlap.mean_iou(counts):.3f}"
    assert row["images"] == "6"
    assert row["preset"] == "default"


def test_both_measures_of_every_band_are_told_one_after_the_other(whole):
    row = whole.rows()["net/convcrf"]
    bands = confusions.Score(whole.file("score", "net/convcrf", "h5")).total("bands")
    measures = {"miou": overlap.mean_iou, "accuracy": overlap.accuracy}
    expected = {
        f"{name}_band_{width}": f"{100 * measure(band):.3f}"
        for name, measure in measures.items()
        for width, band in zip((1, 2, 4), bands, strict=True)
    }
    assert len(set(expected.values())) == 6
    assert {key: value for key, value in row.items() if "_band_" in key} == expected
    names = list(row)
    start = names.index("miou_band_1")
    assert names[start : start + 6] == list(expected)


def test_gains_are_over_the_unary_and_over_the_run_named(whole):
    runs = ("net/unary", "net/convcrf", "net/fullcrf", "tuned/convcrf")
    unary, crf, full, tuned = (whole.rows()[run] for run in runs)
    assert unary["gain"] == unary["against_gain"] == ""
    assert float(crf["gain"]) == pytest.approx(float(crf["miou"]) - float(unary["miou"]), abs=0.0011)
    assert 0 < float(crf["gain_low"]) <= float(crf["gain"]) <= float(crf["gain_high"])
    assert float(full["against_gain"]) == pytest.approx(float(full["miou"]) - float(crf["miou"]), abs=0.0011)
    assert tuned["against"] == "net/convcrf"


def test_a_system_fitted_on_scored_images_is_told_without_them(copy):
    assert copy.rows()["net/convcrf"]["unseen_miou"] == ""
    path, score_path = copy.file("fit", "net/convcrf", "npz"), copy.file("score", "net/convcrf", "h5")
    builders.fitted(path, images=["val_1", "val_4", "elsewhere"])
    assert copy.aggregate() == 0
    counts = np.concatenate(list(confusions.Score(score_path).parts("all")))
    left = overlap.mean_iou(counts[[0, 2, 3, 5]].sum(axis=0))
    assert copy.rows()["net/convcrf"]["unseen_miou"] == f"{100 * left:.3f}"
    assert copy.report() == 0
    assert "images not<br>fitted on" in copy.html()


def test_little_change_is_warned_of(copy, capsys):
    assert copy.rows()["net/fullcrf"]["note"] == "changes little"
    assert copy.aggregate() == 0
    assert "warning: net on tiny, fullcrf changes 0.0" in capsys.readouterr().err


def test_aggregate_repeats_to_the_byte(copy):
    assert copy.aggregate(copy.folder / "again.tsv") == 0
    assert (copy.folder / "again.tsv").read_bytes() == copy.table.read_bytes()


def test_an_untrained_network_is_named(tmp_path, capsys):
    runs = ScoredRuns(tmp_path)
    builders.pack(runs.pack)
    runs.label("net/unary", noise=1000, splits=["val"])
    runs.write_runs("net/unary")
    assert runs.score("net/unary") == 0
    assert runs.aggregate() == 0
    assert runs.rows()["net/unary"]["note"] == "untrained"
    assert "warning: net on tiny is not better than its most frequent class everywhere" in capsys.readouterr().err


def test_one_class_everywhere_is_what_counting_such_labels_gives(whole):
    pack = Pack(whole.pack)
    truths = [pack.sample(name).truth for name in pack.names("val")]
    counts = np.stack([overlap.confusion(truth, truth, 4) for truth in truths])
    frequent = counts.sum(axis=(0, 1)).argmax()
    expected = np.stack([overlap.confusion(truth, np.full_like(truth, frequent), 4) for truth in truths])
    found = aggregate.one_class_everywhere(overlap.marginals(counts))
    np.testing.assert_array_equal(found, overlap.marginals(expected))


def test_scores_of_different_widths_do_not_make_a_table(copy, capsys):
    assert copy.score("tuned/convcrf", widths=(1, 2)) == 0
    assert copy.aggregate() == 2
    error = capsys.readouterr().err
    assert re.search(
        r"tuned/convcrf\.h5: found widths \(1, 2\), expected \(1, 2, 4\) as in .*; run `score` again", error
    )


def test_a_missing_score_is_named(copy, capsys):
    copy.file("score", "net/convcrf", "h5").unlink()
    assert copy.aggregate() == 2
    assert "net/convcrf.h5: found no such file, expected a score; run `score` first" in capsys.readouterr().err
