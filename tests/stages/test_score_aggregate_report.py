"""From labels to the page: each stage on tiny inputs, its output, exit status and error text."""

import re
import shutil

import builders
import numpy as np
import pytest
import torch
from tiny import NETWORK, TRAINED, TUNED

from pipeline import aggregate, nets, report, score, systems
from pipeline.core.settings import Settings
from pipeline.figures import sections
from pipeline.formats import confusions, fitted, tables
from pipeline.formats.labels import Labels
from pipeline.formats.packs import Pack
from pipeline.formats.unaries import Cache
from pipeline.metrics import overlap

SHARPEN = {"net/unary": 0, "net/convcrf": 0.2, "net/fullcrf": 0.0003, "tuned/unary": 0, "tuned/convcrf": 0.3}
AGAINST = {"net/fullcrf": "net/convcrf", "tuned/convcrf": "net/convcrf"}
WIDTHS = ["1", "2", "4"]


def score_args(results, run, pack="tiny"):
    labels, output = results / f"refine/{pack}/{run}.zarr", results / f"score/{pack}/{run}.h5"
    paths = ["--pack", results / f"pack/{pack}.h5", "--labels", labels, "--output", output]
    return [*map(str, paths), "--split", "val", "--widths", *WIDTHS]


def aggregate_args(root, output="table.tsv"):
    paths = ["--runs", root / "runs.tsv", "--results", root / "results", "--output", root / output]
    return [*map(str, paths), "--resamples", "200", "--seed", "1"]


def report_args(root, output="page"):
    paths = {"runs": "runs.tsv", "table": "table.tsv", "results": "results", "output": output}
    given = [part for option, path in paths.items() for part in (f"--{option}", str(root / path))]
    return [*given, "--images", "3"]


def write_runs(root, runs=SHARPEN):
    lines = [f"tiny\t{run.replace('/', chr(9))}\t{AGAINST.get(run, '-')}\n" for run in runs]
    (root / "runs.tsv").write_text("pack\tnet\tsystem\tagainst\n" + "".join(lines), encoding="utf-8")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Make all inputs and run the three stages once."""
    root = tmp_path_factory.mktemp("flow")
    results = root / "results"
    pack = builders.pack(results / "pack/tiny.h5")
    write_runs(root)
    for run, sharpen in SHARPEN.items():
        net, system = run.split("/")
        cache = results / f"cache/tiny/{net}/0.zarr"
        if not cache.exists():
            builders.unaries(cache, pack, noise=1.5, net=TRAINED if net == "net" else TUNED)
        builders.labels(results / f"refine/tiny/{run}.zarr", pack, cache, sharpen=sharpen, system=system)
        learnt = {"state": {}, "curve": []} if system == "unary" else {}
        builders.fitted(results / f"fit/tiny/{run}.npz", system=system, **learnt)
        assert score.main(score_args(results, run)) == 0
    builders.history(results / "train/tiny/net.jsonl")
    builders.history(results / "finetune/tiny/tuned/convcrf.jsonl", epochs=3)
    (results / "refine/tiny/net/convcrf.time.tsv").write_text("s\tmax_rss\n1.0\t345.6\n", encoding="utf-8")
    assert aggregate.main(aggregate_args(root)) == 0
    assert report.main(report_args(root)) == 0
    return root


@pytest.fixture
def copy(whole, tmp_path):
    """Take the whole flow to a place where it may be spoilt."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture(scope="module")
def html(whole):
    return (whole / "page/index.html").read_text(encoding="utf-8")


def row_of(root, run):
    rows, _ = tables.read(root / "table.tsv")
    return next(row for row in rows if f"{row['net']}/{row['system']}" == run)


def test_score_counts_what_the_metrics_count(whole):
    results = whole / "results"
    pack, labels = Pack(results / "pack/tiny.h5"), Labels(results / "refine/tiny/net/convcrf.zarr")
    found = confusions.Score(results / "score/tiny/net/convcrf.h5")
    counts, exact = np.concatenate(list(found.parts("all"))), np.concatenate(list(found.parts("exact")))
    assert found.names == pack.names("val")
    for place, name in enumerate(found.names):
        made = pack.sample(name)
        array = labels.labels(name, made.truth)
        np.testing.assert_array_equal(counts[place], overlap.confusion(made.truth, array, 4))
        np.testing.assert_array_equal(exact[place], overlap.confusion(made.exact, array, 4))
    assert found.settings["system"] == "convcrf"
    assert found.widths == (1, 2, 4)
    assert found.stamp["inputs"] == {"pack": pack.digest, "labels": labels.digest}


def test_score_repeats_to_the_byte(copy):
    path = copy / "results/score/tiny/net/convcrf.h5"
    before = path.read_bytes()
    assert score.main(score_args(copy / "results", "net/convcrf")) == 0
    assert path.read_bytes() == before


def test_score_refuses_labels_of_another_pack(copy, capsys):
    builders.pack(copy / "results/pack/tiny.h5", seed=9)
    assert score.main(score_args(copy / "results", "net/convcrf")) == 2
    assert "convcrf.zarr: found labels of another pack, expected those of" in capsys.readouterr().err


@pytest.mark.parametrize("trimap", ["void", "label_edges"])
def test_score_refuses_bands_of_void_where_there_is_none(tmp_path, capsys, trimap):
    results = tmp_path / "results"
    pack = builders.pack(results / "pack/tiny.h5", trimap=trimap, void=False)
    cache = builders.unaries(results / "cache/tiny/net/0.zarr", pack)
    builders.labels(results / "refine/tiny/net/unary.zarr", pack, cache, system="unary")
    status = score.main(score_args(results, "net/unary"))
    assert status == (2 if trimap == "void" else 0)
    assert (results / "score/tiny/net/unary.h5").exists() == (trimap == "label_edges")
    if trimap == "void":
        said = "tiny.h5: found no pixel near void, though its trimap is 'void', expected void along"
        assert said in (line := capsys.readouterr().err.splitlines()[-1])
        assert "set `trimap: label_edges` in the pack's settings and pack again" in line


def test_score_wants_rising_widths(whole, tmp_path, capsys):
    args = score_args(whole / "results", "net/convcrf")
    args[args.index("--output") + 1] = str(tmp_path / "score.h5")
    assert score.main([*args[:-3], "4", "2"]) == 2
    assert "--widths: found 4 2, expected rising widths; sort them" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_table_has_a_line_for_every_run(whole):
    rows, made = tables.read(whole / "table.tsv")
    assert [f"{row['net']}/{row['system']}" for row in rows] == list(SHARPEN)
    assert (made["seed"], made["resamples"]) == (1, 200)
    counts = confusions.Score(whole / "results/score/tiny/net/convcrf.h5").total("all")
    row = row_of(whole, "net/convcrf")
    assert row["miou"] == f"{100 * overlap.mean_iou(counts):.3f}"
    assert row["images"] == "6"
    assert row["preset"] == "default"


def test_both_measures_of_every_band_are_told_one_after_the_other(whole):
    row = row_of(whole, "net/convcrf")
    bands = confusions.Score(whole / "results/score/tiny/net/convcrf.h5").total("bands")
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


def test_bands_are_drawn_by_both_measures_and_their_boundary_is_named(whole, html):
    said = " within so many px of a boundary (trimap): void pixels of the truth.<"
    assert html.count(f">Mean IoU{said}") == html.count(f">Pixel accuracy{said}") == 2
    rows = [row_of(whole, f"net/{system}") for system in ("unary", "convcrf")]
    pack = Pack(whole / "results/pack/tiny.h5")
    ious, colours = {row["system"]: np.full(4, 50.0) for row in rows}, {"unary": 0, "convcrf": 1}

    def drawn(trimap="void", **changed):
        figures, pack.trimap = {}, trimap
        return sections.quality("tiny.net", pack, ious, [rows[0], rows[1] | changed], colours, figures), figures

    _, figures = drawn()
    other = drawn(accuracy_band_2="1.000")[1]
    assert {name for name in figures if figures[name] != other[name]} == {"tiny.net.trimap_accuracy.svg"}
    assert "(trimap): lines between classes." in drawn("label_edges")[0]


def test_gains_are_over_the_unary_and_over_the_run_named(whole):
    unary, crf, full, tuned = (
        row_of(whole, run) for run in ("net/unary", "net/convcrf", "net/fullcrf", "tuned/convcrf")
    )
    assert unary["gain"] == unary["against_gain"] == ""
    assert float(crf["gain"]) == pytest.approx(float(crf["miou"]) - float(unary["miou"]), abs=0.0011)
    assert 0 < float(crf["gain_low"]) <= float(crf["gain"]) <= float(crf["gain_high"])
    assert float(full["against_gain"]) == pytest.approx(float(full["miou"]) - float(crf["miou"]), abs=0.0011)
    assert tuned["against"] == "net/convcrf"


def test_a_system_fitted_on_scored_images_is_told_without_them(copy):
    assert row_of(copy, "net/convcrf")["unseen_miou"] == ""
    path, score_path = copy / "results/fit/tiny/net/convcrf.npz", copy / "results/score/tiny/net/convcrf.h5"
    builders.fitted(path, images=["val_1", "val_4", "elsewhere"])
    assert aggregate.main(aggregate_args(copy)) == 0
    counts = np.concatenate(list(confusions.Score(score_path).parts("all")))
    left = overlap.mean_iou(counts[[0, 2, 3, 5]].sum(axis=0))
    assert row_of(copy, "net/convcrf")["unseen_miou"] == f"{100 * left:.3f}"
    assert report.main(report_args(copy)) == 0
    assert "images not<br>fitted on" in (copy / "page/index.html").read_text(encoding="utf-8")


def test_little_change_is_warned_of(copy, capsys):
    assert row_of(copy, "net/fullcrf")["note"] == "changes little"
    assert aggregate.main(aggregate_args(copy)) == 0
    assert "warning: net on tiny, fullcrf changes 0.0" in capsys.readouterr().err


def test_aggregate_repeats_to_the_byte(copy):
    assert aggregate.main(aggregate_args(copy, "again.tsv")) == 0
    assert (copy / "again.tsv").read_bytes() == (copy / "table.tsv").read_bytes()


def test_an_untrained_network_is_named(tmp_path, capsys):
    results = tmp_path / "results"
    pack = builders.pack(results / "pack/tiny.h5")
    cache = builders.unaries(results / "cache/tiny/net/0.zarr", pack, noise=1000, splits=["val"])
    builders.labels(results / "refine/tiny/net/unary.zarr", pack, cache, system="unary")
    builders.fitted(results / "fit/tiny/net/unary.npz", system="unary", state={}, curve=[])
    write_runs(tmp_path, ["net/unary"])
    assert score.main(score_args(results, "net/unary")) == 0
    assert aggregate.main(aggregate_args(tmp_path)) == 0
    assert row_of(tmp_path, "net/unary")["note"] == "untrained"
    assert "warning: net on tiny is not better than its most frequent class everywhere" in capsys.readouterr().err


def test_networks_are_told_with_their_speed(html):
    known = nets.facts(Settings(NETWORK), 4)
    assert f"<td>{known['parameters'] / 1e6:.2f}&nbsp;M</td>" in html
    # 80 steps of 4 images in 8 epochs of 2.5 s.
    row = html[html.index("<td>resnet_fcn</td>") :].partition("</tr>")[0]
    assert row.endswith("<td>16.0</td>")
    # What was fine-tuned has no settings of a network of its own.
    assert html.count("<td>resnet_fcn</td>") == 1


def test_one_class_everywhere_is_what_counting_such_labels_gives(whole):
    pack = Pack(whole / "results/pack/tiny.h5")
    truths = [pack.sample(name).truth for name in pack.names("val")]
    counts = np.stack([overlap.confusion(truth, truth, 4) for truth in truths])
    frequent = counts.sum(axis=(0, 1)).argmax()
    expected = np.stack([overlap.confusion(truth, np.full_like(truth, frequent), 4) for truth in truths])
    found = aggregate.one_class_everywhere(overlap.marginals(counts))
    np.testing.assert_array_equal(found, overlap.marginals(expected))


def test_scores_of_different_widths_do_not_make_a_table(copy, capsys):
    args = score_args(copy / "results", "tuned/convcrf")
    assert score.main(args[:-1]) == 0
    assert aggregate.main(aggregate_args(copy)) == 2
    error = capsys.readouterr().err
    assert re.search(
        r"tuned/convcrf\.h5: found widths \(1, 2\), expected \(1, 2, 4\) as in .*; run `score` again", error
    )


def test_a_missing_score_is_named(copy, capsys):
    (copy / "results/score/tiny/net/convcrf.h5").unlink()
    assert aggregate.main(aggregate_args(copy)) == 2
    assert "net/convcrf.h5: found no such file, expected a score; run `score` first" in capsys.readouterr().err


def test_page_needs_nothing_but_itself(html):
    assert not re.search(r'(?:src|href)="(?!data:|#)', html)
    assert "<script" not in html
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]+"', "", html)


def test_page_shows_every_part(html):
    for heading in (
        "What was run",
        "Results",
        "By class and near boundaries",
        "Pictures",
        "Mean field, step by step",
        "Training and fitting",
    ):
        assert heading in html
    for word in ("train 2, heldout 2, val 6", "changes little", "leaves 0 out", "346", "theta_alpha", "0123456789ab"):
        assert word in html
    # Three images for each network: photograph, truth, and two maps for each of its systems.
    gallery = 3 * (2 + 2 * 3) + 3 * (2 + 2 * 2)
    # One image for each: photograph, outline, and two maps for each of iterations 0, 1, 2 and 5.
    assert html.count("<img ") == gallery + 2 * (2 + 2 * 4)
    assert html.count("<svg ") == len(re.findall(r'role="img"', html)) == 14


def test_figures_of_a_paper_are_shown_where_there_are_any(copy, html):
    assert "in the<br>paper" not in html
    lines = (copy / "runs.tsv").read_text(encoding="utf-8").splitlines()
    papers = ["paper", "51.87", *["-"] * (len(lines) - 2)]
    together = (f"{line}\t{paper}\n" for line, paper in zip(lines, papers, strict=True))
    (copy / "runs.tsv").write_text("".join(together), encoding="utf-8")
    assert aggregate.main(aggregate_args(copy)) == report.main(report_args(copy)) == 0
    assert (row_of(copy, "net/unary")["paper_miou"], row_of(copy, "net/convcrf")["paper_miou"]) == ("51.87", "")
    page = (copy / "page/index.html").read_text(encoding="utf-8")
    assert "in the<br>paper" in page and ">51.87<" in page and "of its own data" in page


def test_plots_lie_beside_the_page_too(whole):
    names = {path.name for path in (whole / "page/figures").iterdir()}
    assert {"tiny.gains.svg", "tiny.net.classes.svg", "tiny.net.trimap.svg", "tiny.tuned.loss.svg"} <= names
    assert "tiny.net.trimap_accuracy.svg" in names
    assert len(names) == 14


def steps_of(page):
    """Return what the part on mean field says of each network: title and the captions of its tiles."""
    part = page.partition("<h2>Mean field, step by step</h2>")[2].partition("</section>")[0]
    scenes = part.split('<div class="scene">')[1:]
    found = [
        (re.search("<h4>(.*?)</h4>", scene)[1], re.findall("<figcaption>(.*?)</figcaption>", scene)) for scene in scenes
    ]
    return [(re.sub("<.*?>", "", title), captions) for title, captions in found]


def test_mean_field_is_shown_of_the_image_and_class_that_gain_most(whole, html):
    results = whole / "results"
    pack, cache = Pack(results / "pack/tiny.h5"), Cache([results / "cache/tiny/net/0.zarr"])
    before, after = (
        np.concatenate(list(confusions.Score(results / f"score/tiny/net/{system}.h5").parts("all")))
        for system in ("unary", "convcrf")
    )
    place = (overlap.mean_iou(after) - overlap.mean_iou(before)).argmax()
    grown = np.where(before[place].sum(axis=1) > 0, overlap.iou(after[place]) - overlap.iou(before[place]), -1)
    label, sample = int(np.nanargmax(grown)), pack.sample(pack.names("val")[place])
    title, captions = steps_of(html)[0]
    assert title == f"{sample.name} {pack.class_names[label]}, by convcrf"

    given = fitted.read(results / "fit/tiny/net/convcrf.npz")
    expected = ["image, truth"]
    for number in (0, 1, 2, 5):
        chosen = Settings(given.settings.plain() | {"iterations": number})
        system = systems.build(chosen, 4, torch.device("cpu"), given.state)
        labels = system.refine(sample.image, cache.unaries(sample.name, sample.image))
        iou = 100 * overlap.iou(overlap.confusion(sample.truth, labels, 4))[label]
        expected.append(f"<b>iteration {number}</b><br>IoU {iou:.1f}")
    assert captions == expected
    assert len(set(expected)) == 5
    assert re.search(r"score −\d+\.\d to −?\d+\.\d", html) and "belief 0 to 1" in html


def test_mean_field_is_shown_of_the_first_system_that_runs_it(copy):
    without = {"system": "unary", "state": {}, "curve": []}
    builders.fitted(copy / "results/fit/tiny/net/convcrf.npz", **without)
    assert report.main(report_args(copy)) == 0
    shown = steps_of((copy / "page/index.html").read_text(encoding="utf-8"))
    assert [title.rpartition(" ")[2] for title, _ in shown] == ["fullcrf", "convcrf"]
    for run in ("net/fullcrf", "tuned/convcrf"):
        builders.fitted(copy / f"results/fit/tiny/{run}.npz", **without)
    assert report.main(report_args(copy)) == 0
    assert "Mean field" not in (copy / "page/index.html").read_text(encoding="utf-8")


def test_report_wants_the_unaries(copy, capsys):
    shutil.rmtree(copy / "results/cache/tiny/tuned")
    assert report.main(report_args(copy)) == 2
    error = capsys.readouterr().err
    assert "tuned on tiny: found no unaries, expected those that the labels were made of; run `cache` again" in error


def test_the_class_that_gains_most_is_one_of_the_truth():
    before = np.array([[8, 0, 0, 2], [4, 4, 0, 0], [2, 0, 8, 0], [0, 0, 0, 0]])
    assert report.most_gained(before, np.diag([10, 8, 10, 0])) == 0 == overlap.iou(before)[:3].argmin()
    assert report.most_gained(before, np.array([[6, 0, 0, 4], [0, 8, 0, 0], [0, 0, 10, 0], [0, 0, 0, 0]])) == 1
    # Class 3 is in the labels alone: no overlap before and none after, while all of the truth lose.
    worse = np.array([[1, 0, 0, 9], [5, 3, 0, 0], [9, 0, 1, 0], [0, 0, 0, 0]])
    grown = overlap.iou(worse) - overlap.iou(before)
    assert grown.argmax() == 3
    assert report.most_gained(before, worse) == grown[:3].argmax() == 1


def test_a_fit_that_searched_shows_its_surface(copy, html):
    assert "Search of" not in html
    builders.fitted(copy / "results/fit/tiny/net/convcrf.npz", curve=builders.search())
    assert report.main(report_args(copy)) == 0
    page = (copy / "page/index.html").read_text(encoding="utf-8")
    assert "Search of convcrf: mean IoU on the grid of the first round" in page
    assert "with 61.00 % on 10 images." in page
    assert {path.name for path in (copy / "page/figures").glob("*.convcrf.fit.*")} == {
        "tiny.net.convcrf.fit.svg",
        "tiny.net.convcrf.fit.best.svg",
        "tiny.tuned.convcrf.fit.svg",
    }


def test_report_repeats_to_the_byte(whole, html):
    assert report.main(report_args(whole, "again")) == 0
    assert (whole / "again/index.html").read_text(encoding="utf-8") == html


def test_report_refuses_a_score_newer_than_the_table(copy, capsys):
    results = copy / "results"
    cache = results / "cache/tiny/net/0.zarr"
    builders.labels(results / "refine/tiny/net/convcrf.zarr", results / "pack/tiny.h5", cache, sharpen=0.4)
    assert score.main(score_args(results, "net/convcrf")) == 0
    assert report.main(report_args(copy)) == 2
    assert "net/convcrf.h5: found a score newer than the table" in capsys.readouterr().err
    assert (copy / "page/index.html").is_file()


def test_report_wants_a_line_for_every_run(copy, capsys):
    with (copy / "runs.tsv").open("a", encoding="utf-8") as file:
        file.write("tiny\tnet\thybrid\t-\n")
    assert report.main(report_args(copy)) == 2
    assert "net/hybrid on tiny: found no such line, expected one of every run" in capsys.readouterr().err


def test_report_refuses_a_table_without_its_end(copy, capsys):
    lines = (copy / "table.tsv").read_text(encoding="utf-8").splitlines()
    (copy / "table.tsv").write_text("\n".join(lines[:-1]), encoding="utf-8")
    assert report.main(report_args(copy)) == 2
    assert "table.tsv: found no stamp in its last line, expected a whole table" in capsys.readouterr().err
