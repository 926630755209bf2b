"""The default run, `snakemake --cores 2` in the checkout: what its figures must be.

It runs here if it was not run before, or if something it rests on has changed since.
"""

import csv
import json

import numpy as np
import pytest
from driver import ROOT, edit, snakemake

from pipeline import finetune
from pipeline.formats import tables, weights
from pipeline.formats.labels import Labels
from pipeline.formats.packs import Pack
from pipeline.metrics import boundary, overlap

pytestmark = pytest.mark.timeout(3000)
RESULTS = ROOT / "results"
TUNED = RESULTS / "finetune/embedded/resnet18_convcrf/convcrf.safetensors"


@pytest.fixture(scope="module")
def rows():
    """The lines of the default run's table by "NET/SYSTEM"."""
    status, text = snakemake(ROOT)
    assert status == 0, text
    return {f"{row['net']}/{row['system']}": row for row in tables.read(RESULTS / "aggregate/embedded.tsv")[0]}


def test_the_unary_is_neither_trivial_nor_hopeless(rows):
    assert 30 < float(rows["resnet18/unary"]["miou"]) < 80


def test_colour_alone_stays_below_half_of_the_unary(rows):
    """A histogram of 16³ colours, its class prior weighed as is best on val, which favours it."""
    pack = Pack(RESULTS / "pack/embedded.h5")
    counts = np.zeros((16**3, pack.classes))
    for name in pack.names("train"):
        sample = pack.sample(name)
        known = sample.truth != 255
        np.add.at(counts, (bins(sample.image)[known], sample.truth[known]), 1)
    prior = counts.sum(axis=0)
    best = 0
    for power in (0, 0.5, 1):
        guess = (counts / prior * prior**power).argmax(axis=1).astype(np.uint8)
        confusion = sum(
            overlap.confusion(sample.truth, guess[bins(sample.image)], pack.classes)
            for sample in map(pack.sample, pack.names("val"))
        )
        best = max(best, 100 * overlap.mean_iou(confusion))
    assert 100 / 21 / 2 < best < float(rows["resnet18/unary"]["miou"]) / 2


def bins(image):
    return (image // 16).astype(int) @ (256, 16, 1)


def test_most_wrong_pixels_lie_near_class_edges(rows):
    pack, labels = Pack(RESULTS / "pack/embedded.h5"), Labels([RESULTS / "refine/embedded/resnet18/unary/0.zarr"])
    near = wrong = 0
    for name in pack.names("val"):
        sample = pack.sample(name)
        at_fault = (sample.truth != 255) & (labels.labels(name, sample.truth) != sample.truth)
        near += (at_fault & (boundary.distance(sample.exact, "label_edges") <= 8)).sum()
        wrong += at_fault.sum()
    assert near / wrong >= 0.6


@pytest.mark.parametrize("system", ["convcrf", "fullcrf", "deeplab", "crfrnn", "difnet"])
def test_a_system_gains_over_the_unary_beyond_chance(rows, system):
    assert float(rows[f"resnet18/{system}"]["gain_low"]) > 0


def lowered(change):
    """Assert what a fine-tuning that worked shows: the training loss fell by 5 %, and the parameters moved."""
    assert change["loss_after"] <= 0.95 * change["loss_before"], change
    assert change["network"] > 0 and change["refiner"] > 0, change


def test_fine_tuning_does_not_lower_the_score_and_lowers_the_loss(rows):
    pair = rows["resnet18_convcrf/convcrf"]
    assert pair["against"] == "resnet18/convcrf" and float(pair["against_gain"]) >= 0
    lowered(weights.read(TUNED)[1]["change"])


def test_fine_tuning_at_learning_rate_0_does_not_pass_for_one(rows, tmp_path):
    net = tmp_path / "still.yaml"
    net.write_text((ROOT / "config/nets/resnet18_convcrf.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    edit(net, learning_rate="0", system_learning_rate="0", epochs="1", split="heldout", watched_images="8")
    options = {
        "--pack": RESULTS / "pack/embedded.h5",
        "--net": net,
        "--weights": RESULTS / "train/embedded/resnet18.safetensors",
        "--system": RESULTS / "fit/embedded/resnet18/convcrf.npz",
        "--backend": "cpu",
        "--threads": 2,
        "--workers": 0,
        "--seed": 0,
        "--output": tmp_path / "weights.safetensors",
        "--output-system": tmp_path / "system.npz",
        "--history": tmp_path / "history.jsonl",
    }
    assert finetune.main([str(word) for pair in options.items() for word in pair]) == 0
    change = weights.read(tmp_path / "weights.safetensors")[1]["change"]
    assert change["loss_after"] == change["loss_before"]
    with pytest.raises(AssertionError):
        lowered(change)


def test_the_page_is_light_and_shows_mean_field(rows):
    page = (RESULTS / "report/embedded/index.html").read_text(encoding="utf-8")
    assert len(page) < 1.5e6
    assert page.count("<b>iteration 0</b>") == len({name.split("/")[0] for name in rows})


def test_every_stage_stays_under_6_gib(rows):
    peaks = {}
    for path in RESULTS.rglob("*.time.tsv"):
        with path.open(encoding="utf-8") as file:
            row = next(csv.DictReader(file, delimiter="\t"))
        peaks[str(path)] = float(row["max_rss"] if row["max_rss"] not in ("-", "NA") else 0)
    assert len(peaks) >= 18 and max(peaks.values()) < 6144, json.dumps(peaks, indent=1)
