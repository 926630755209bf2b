"""The page: its parts, figures and refusals."""

import re
import shutil

import builders
import numpy as np
import pytest
import torch
from tiny import NETWORK

from pipeline import nets, systems
from pipeline.closeups import mean_field
from pipeline.core import settings
from pipeline.core.settings import Settings
from pipeline.figures import sections
from pipeline.formats import confusions, fitted, weights
from pipeline.formats.packs import Pack
from pipeline.formats.unaries import Cache
from pipeline.metrics import overlap


@pytest.fixture(scope="module")
def html(whole):
    return whole.html()


def test_bands_are_drawn_by_both_measures_and_their_boundary_is_named(whole, html):
    said = " within so many px of a boundary (trimap): void pixels of the truth.<"
    assert html.count(f">Mean IoU{said}") == html.count(f">Pixel accuracy{said}") == 2
    rows = [whole.rows()[f"net/{system}"] for system in ("unary", "convcrf")]
    pack = Pack(whole.pack)
    ious, colours = {row["system"]: np.full(4, 50.0) for row in rows}, {"unary": 0, "convcrf": 1}

    def drawn(trimap="void", **changed):
        figures, pack.trimap = {}, trimap
        return sections.quality("tiny.net", pack, ious, [rows[0], rows[1] | changed], colours, figures), figures

    _, figures = drawn()
    other = drawn(accuracy_band_2="1.000")[1]
    assert {name for name in figures if figures[name] != other[name]} == {"tiny.net.trimap_accuracy.svg"}
    assert "(trimap): lines between classes." in drawn("label_edges")[0]


def test_networks_are_told_with_their_speed(html):
    known = nets.facts(Settings(NETWORK), 4)
    assert f"<td>{known['parameters'] / 1e6:.2f}&nbsp;M</td>" in html
    # 80 steps of 4 images in 8 epochs of 2.5 s.
    row = html[html.index("<td>resnet_fcn</td>") :].partition("</tr>")[0]
    assert row.endswith("<td>16.0</td>")
    # What was fine-tuned has no settings of a network of its own.
    assert html.count("<td>resnet_fcn</td>") == 1


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
    assert html.count("<svg ") == len(re.findall(r'role="img"', html)) == 15


def test_figures_of_a_paper_are_shown_where_there_are_any(copy, html):
    assert "in the<br>paper" not in html
    lines = copy.runs.read_text(encoding="utf-8").splitlines()
    papers = ["paper", "51.87", *["-"] * (len(lines) - 2)]
    together = (f"{line}\t{paper}\n" for line, paper in zip(lines, papers, strict=True))
    copy.runs.write_text("".join(together), encoding="utf-8")
    assert copy.aggregate() == copy.report() == 0
    assert (copy.rows()["net/unary"]["paper_miou"], copy.rows()["net/convcrf"]["paper_miou"]) == ("51.87", "")
    page = copy.html()
    assert "in the<br>paper" in page and ">51.87<" in page and "of its own data" in page


def test_plots_lie_beside_the_page_too(whole):
    names = {path.name for path in (whole.page / "figures").iterdir()}
    assert {"tiny.gains.svg", "tiny.net.classes.svg", "tiny.net.trimap.svg", "tiny.tuned.loss.svg"} <= names
    assert "tiny.net.trimap_accuracy.svg" in names
    assert len(names) == 15


def steps_of(page):
    """Return what the part on mean field says of each network: title and the captions of its tiles."""
    part = page.partition("<h2>Mean field, step by step</h2>")[2].partition("</section>")[0]
    scenes = part.split('<div class="scene">')[1:]
    found = [
        (re.search("<h4>(.*?)</h4>", scene)[1], re.findall("<figcaption>(.*?)</figcaption>", scene)) for scene in scenes
    ]
    return [(re.sub("<.*?>", "", title), captions) for title, captions in found]


def test_mean_field_is_shown_of_the_image_and_class_that_gain_most(whole, html):
    pack, cache = Pack(whole.pack), Cache([whole.file("cache", "net/0", "zarr")])
    before, after = (
        np.concatenate(list(confusions.Score(whole.file("score", f"net/{system}", "h5")).parts("all")))
        for system in ("unary", "convcrf")
    )
    place = (overlap.mean_iou(after) - overlap.mean_iou(before)).argmax()
    grown = np.where(before[place].sum(axis=1) > 0, overlap.iou(after[place]) - overlap.iou(before[place]), -1)
    label, sample = int(np.nanargmax(grown)), pack.sample(pack.names("val")[place])
    title, captions = steps_of(html)[0]
    assert title == f"{sample.name} {pack.class_names[label]}, by convcrf"

    given = fitted.read(whole.file("fit", "net/convcrf", "npz"))
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
    builders.fitted(copy.file("fit", "net/convcrf", "npz"), **without)
    assert copy.report() == 0
    shown = steps_of(copy.html())
    assert [title.rpartition(" ")[2] for title, _ in shown] == ["fullcrf", "convcrf"]
    for run in ("net/fullcrf", "tuned/convcrf"):
        builders.fitted(copy.file("fit", run, "npz"), **without)
    assert copy.report() == 0
    assert "Mean field" not in copy.html()


def test_report_wants_the_unaries(copy, capsys):
    shutil.rmtree(copy.results / "cache/tiny/tuned")
    assert copy.report() == 2
    error = capsys.readouterr().err
    assert "cache/tiny/tuned/0.zarr: found no such store, expected a Zarr store; run `cache` first" in error


def test_the_class_that_gains_most_is_one_of_the_truth():
    before = np.array([[8, 0, 0, 2], [4, 4, 0, 0], [2, 0, 8, 0], [0, 0, 0, 0]])
    assert mean_field.most_gained(before, np.diag([10, 8, 10, 0])) == 0 == overlap.iou(before)[:3].argmin()
    assert mean_field.most_gained(before, np.array([[6, 0, 0, 4], [0, 8, 0, 0], [0, 0, 10, 0], [0, 0, 0, 0]])) == 1
    # Class 3 is in the labels alone: no overlap before and none after, while all of the truth lose.
    worse = np.array([[1, 0, 0, 9], [5, 3, 0, 0], [9, 0, 1, 0], [0, 0, 0, 0]])
    grown = overlap.iou(worse) - overlap.iou(before)
    assert grown.argmax() == 3
    assert mean_field.most_gained(before, worse) == grown[:3].argmax() == 1


def test_a_fit_that_searched_shows_its_surface(copy, html):
    assert "Search of" not in html
    builders.fitted(copy.file("fit", "net/convcrf", "npz"), curve=builders.search())
    assert copy.report() == 0
    page = copy.html()
    assert "Search of convcrf: mean IoU on the grid of the first round" in page
    assert "with 61.00 % on 10 images." in page
    assert {path.name for path in (copy.page / "figures").glob("*.convcrf.fit.*")} == {
        "tiny.net.convcrf.fit.svg",
        "tiny.net.convcrf.fit.best.svg",
        "tiny.tuned.convcrf.fit.svg",
    }


def test_a_learnt_compatibility_is_drawn_with_the_classes(copy, html):
    assert "Compatibility learnt" not in html
    penalty = 1 - np.eye(4, dtype=np.float32)
    penalty[1, 2] = 0.25
    builders.fitted(copy.file("fit", "net/convcrf", "npz"), system="crfrnn", state={"compatibility": penalty})
    assert copy.report() == 0
    page = copy.html()
    assert page.count("Compatibility learnt by convcrf") == 1
    assert (copy.page / "figures/tiny.net.convcrf.compatibility.svg").is_file()


def test_fits_that_were_watched_are_drawn_together(copy, html):
    assert "Fits: mean IoU" not in html
    for number, system in enumerate(("convcrf", "fullcrf")):
        curve = [
            {"step": step, "steps": 4, "heldout_miou": 50.0 + step, "val_miou": 48.0 + number} for step in (0, 2, 4)
        ]
        curve.insert(1, {"step": 1, "steps": 4, "loss": 0.5})
        builders.fitted(copy.file("fit", f"net/{system}", "npz"), system=system, curve=curve)
    assert copy.report() == 0
    page = copy.html()
    assert page.count("Fits: mean IoU of some of the") == 2
    for key in ("heldout_miou", "val_miou"):
        svg = (copy.page / f"figures/tiny.net.fits.{key}.svg").read_text(encoding="utf-8")
        assert "convcrf" in svg and "fullcrf" in svg


def test_report_repeats_to_the_byte(whole, html, tmp_path):
    assert whole.report(tmp_path / "again") == 0
    assert (tmp_path / "again/index.html").read_text(encoding="utf-8") == html


def test_report_refuses_a_score_newer_than_the_table(copy, capsys):
    copy.label("net/convcrf", sharpen=0.4)
    assert copy.score("net/convcrf") == 0
    assert copy.report() == 2
    assert "net/convcrf.h5: found a score newer than the table" in capsys.readouterr().err
    assert (copy.page / "index.html").is_file()


def test_report_wants_a_line_for_every_run(copy, capsys):
    with copy.runs.open("a", encoding="utf-8") as file:
        file.write("tiny\tnet\thybrid\t-\n")
    assert copy.report() == 2
    assert "net/hybrid on tiny: found no such line, expected one of every run" in capsys.readouterr().err


def test_report_refuses_a_table_without_its_end(copy, capsys):
    lines = copy.table.read_text(encoding="utf-8").splitlines()
    copy.table.write_text("\n".join(lines[:-1]), encoding="utf-8")
    assert copy.report() == 2
    assert "table.tsv: found no stamp in its last line, expected a whole table" in capsys.readouterr().err


def test_trainings_that_follow_one_another_are_one_line(whole, html):
    """The tuned network is that of the first row, trained on: its page shows both, the other's only its own."""
    assert html.count("Training in stages:") == 1
    assert "a dashed line begins the training of 1 net, 2 tuned." in html


def test_scores_of_stages_stand_at_their_steps_of_all():
    figures = {}
    epochs = [{"epoch": n, "steps": 10 * n, "heldout_miou": 40.0 + n, "heldout_category_miou": 60.0} for n in (1, 2)]
    html = sections.stages("x", [("fcn32s", epochs), ("fcn16s", epochs[:1])], figures)
    assert list(figures) == ["x.stages.svg"] and "1 fcn32s, 2 fcn16s" in html
    svg = figures["x.stages.svg"]
    for word in ("1", "2", "classes", "categories", "mean IoU, %"):
        assert f">{word}<" in svg
    assert sections.stages("x", [("fcn32s", epochs)], {}) == ""
    unwatched = [{"epoch": 1, "steps": 10, "heldout_miou": None}]
    assert sections.stages("x", [("fcn32s", epochs), ("fcn16s", unwatched)], {}) == ""


def test_walks_are_shown_of_a_network_and_of_a_system(copy, html):
    assert "Walks" not in html
    levels = ["image", "layer2", "layer4"]
    chosen = settings.read(settings.ROOT / "config/nets/difnet18.yaml", "nets").plain()
    chosen |= {"network": chosen["network"] | {"width": 0.125, "walks": levels}}
    network = nets.build(Settings(chosen["network"]), 4)
    mixing = {"mu": torch.tensor([0.1, 0.2, 0.3]).logit(), "beta": torch.tensor([0.4, 0.5, 0.6]).logit()}
    network.load_state_dict({f"diffusion.{name}": logits for name, logits in mixing.items()}, strict=False)
    walks = settings.read(settings.ROOT / "config/systems/difnet.yaml", "systems")
    state = systems.build(walks, 4, torch.device("cpu")).state() | {name: x.numpy() for name, x in mixing.items()}
    path = builders.training(copy.file("train", "net", "jsonl"), chosen)
    weights.write(path.with_suffix(".safetensors"), network.state_dict(), builders.stamp("train", settings=chosen))
    builders.fitted(copy.file("fit", "net/convcrf", "npz"), system="difnet", state=state, curve=[])
    assert copy.report() == 0
    part = copy.html().partition("<h2>Walks</h2>")[2].partition("</section>")[0]
    scenes = part.split('<div class="scene">')[1:]
    assert [re.sub("<.*?>", "", re.search("<h4>(.*?)</h4>", scene)[1]).rpartition(" by ")[2] for scene in scenes] == [
        "net",
        "convcrf",
    ]
    walked = [re.findall("<figcaption>(walk .*?)</figcaption>", scene) for scene in scenes]
    assert walked[0] == [
        f"walk {number}, {level}<br>μ 0.{number}0, β 0.{number + 3}0" for number, level in enumerate(levels, start=1)
    ]
    assert walked[1] == [f"walk {number}, image<br>μ 0.{number}0, β 0.{number + 3}0" for number in (1, 2, 3)]
    assert part.count("row 2 of P, walk 3") == 2


def test_without_walks_a_difnet_shows_none(copy):
    chosen = settings.read(settings.ROOT / "config/nets/difnet18_seed.yaml", "nets").plain()
    builders.training(copy.file("train", "net", "jsonl"), chosen)
    assert copy.report() == 0
    assert "Walks" not in copy.html()
