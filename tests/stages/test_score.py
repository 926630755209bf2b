"""Scoring: counts, their repetition, refusals."""

import builders
import numpy as np
import pytest
from scored import WIDTHS, ScoredRuns

from pipeline import score
from pipeline.formats import confusions
from pipeline.formats.labels import Labels
from pipeline.formats.packs import Pack
from pipeline.metrics import overlap

RUN = "net/convcrf"


def test_score_counts_what_the_metrics_count(whole):
    pack, labels = Pack(whole.pack), Labels([whole.labels(RUN)])
    found = confusions.Score(whole.file("score", RUN, "h5"))
    counts, exact = np.concatenate(list(found.parts("all"))), np.concatenate(list(found.parts("exact")))
    assert found.names == pack.names("val")
    for place, name in enumerate(found.names):
        made = pack.sample(name)
        array = labels.labels(name, made.truth)
        np.testing.assert_array_equal(counts[place], overlap.confusion(made.truth, array, 4))
        np.testing.assert_array_equal(exact[place], overlap.confusion(made.exact, array, 4))
    assert found.settings["system"] == "convcrf"
    assert found.widths == WIDTHS
    assert found.stamp["inputs"] == {"pack": pack.digest, "labels": labels.digest}


def test_score_repeats_to_the_byte(copy):
    path = copy.file("score", RUN, "h5")
    before = path.read_bytes()
    assert copy.score(RUN) == 0
    assert path.read_bytes() == before


def test_score_of_shards_is_that_of_the_whole(tiny_run, tmp_path, capsys):
    shards = [tmp_path / "0.zarr", tmp_path / "1.zarr"]
    for number, path in enumerate(shards, start=1):
        assert tiny_run("refine", shard=f"{number}-of-2", output=path) == 0

    def scored(output, *labels):
        paths = ["--pack", tiny_run.pack, "--labels", *labels, "--output", tmp_path / output]
        return score.main([*map(str, paths), "--split", "val", "--widths", "1"])

    assert [scored("whole.h5", tiny_run.labels), scored("shards.h5", *shards)] == [0, 0]
    whole, parts = (confusions.Score(tmp_path / name) for name in ("whole.h5", "shards.h5"))
    for group in ("all", "bands", "exact"):
        counts = [np.concatenate(list(found.parts(group))) for found in (whole, parts)]
        np.testing.assert_array_equal(*counts)
    capsys.readouterr()
    assert scored("lacking.h5", shards[1]) == 2
    assert "1.zarr: found no image val_0, expected every image of the split; run `refine`" in capsys.readouterr().err


def test_score_refuses_labels_of_another_pack(copy, capsys):
    builders.pack(copy.pack, seed=9)
    assert copy.score(RUN) == 2
    assert "convcrf/0.zarr: found labels of another pack, expected those of" in capsys.readouterr().err


def test_a_truth_at_full_size_is_what_is_scored(tmp_path):
    """Labels of images made smaller are enlarged to it: as if each of their pixels were four."""
    runs = ScoredRuns(tmp_path)
    builders.pack(runs.pack, full=True)
    runs.label("net/unary")
    assert runs.score("net/unary") == 0
    pack, labels = Pack(runs.pack), Labels([runs.labels("net/unary")])
    found = confusions.Score(runs.file("score", "net/unary", "h5"))
    counts = np.concatenate(list(found.parts("all")))
    for place, name in enumerate(found.names):
        made = pack.sample(name)
        assert made.full.shape == tuple(2 * size for size in made.truth.shape)
        fourfold = labels.labels(name, made.truth).repeat(2, axis=0).repeat(2, axis=1)
        np.testing.assert_array_equal(counts[place], overlap.confusion(made.full, fourfold, 4))
        assert counts[place].sum() > 3 * (made.truth != 255).sum()


@pytest.mark.parametrize("trimap", ["void", "label_edges"])
def test_score_refuses_bands_of_void_where_there_is_none(tmp_path, capsys, trimap):
    runs = ScoredRuns(tmp_path)
    builders.pack(runs.pack, trimap=trimap, void=False)
    runs.label("net/unary")
    assert runs.score("net/unary") == (2 if trimap == "void" else 0)
    assert runs.file("score", "net/unary", "h5").exists() == (trimap == "label_edges")
    if trimap == "void":
        said = "tiny.h5: found no pixel near void, though its trimap is 'void', expected void along"
        assert said in (line := capsys.readouterr().err.splitlines()[-1])
        assert "set `trimap: label_edges` in the pack's settings and pack again" in line


def test_score_wants_rising_widths(whole, tmp_path, capsys):
    assert whole.score(RUN, widths=(4, 2), output=tmp_path / "score.h5") == 2
    assert "--widths: found 4 2, expected rising widths; sort them" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
