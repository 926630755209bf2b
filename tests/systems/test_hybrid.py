"""The hybrid CNN-CRF's system: presets, its search, learning by the structured SVM, what it certifies."""

import numpy as np
import pytest
import torch
from planted import planted, wrong
from test_deeplab import Samples

from pipeline import systems
from pipeline.core import settings
from pipeline.core.errors import SettingsError
from pipeline.core.settings import ROOT, Settings
from pipeline.metrics.overlap import confusion, mean_iou
from pipeline.systems.hybrid import SEARCHED

CPU = torch.device("cpu")
CONFIG = ROOT / "config" / "systems"
PRESETS = sorted(path.stem for path in CONFIG.glob("hybrid*.yaml"))
RANGES = {
    "alpha": {"first": 5, "last": 35, "step": 30},
    "beta": {"first": 0.9, "last": 0.9, "step": 1},
    "lambda": {"first": 0.1, "last": 1.3, "step": 0.4},
}


class Labelled(Samples):
    """The same, as a sequence of (Sample, Unaries)."""

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        return self.images[self.names[index]]


def preset(name="hybrid", **changed):
    plain = settings.read(CONFIG / f"{name}.yaml", "systems").plain()
    if "search" in plain:
        plain["search"] |= RANGES | {"halvings": 0, "judging": {"name": "all"}}
    else:
        plain["fit"] |= {"epochs": 2, "batch": 2}
    return Settings(plain | changed)


def build(chosen, state=None, classes=2):
    return systems.build(chosen, classes, CPU, state)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_fit_refine_and_come_back_from_their_state(name):
    samples = Labelled(4)
    system = build(preset(name))
    curve = list(system.fit(samples, 0))
    assert curve and curve[-1]["step"] == len(curve)
    unary = build(Settings({"system": "unary"}))
    assert sum(wrong(system, *samples[n]) for n in range(4)) < 0.7 * sum(wrong(unary, *samples[n]) for n in range(4))
    again = build(preset(name), system.state())
    sample, unaries = samples[0]
    labels = system.refine(sample.image, unaries)
    assert (labels.shape, labels.dtype) == (sample.truth.shape, np.uint8)
    assert np.array_equal(again.refine(sample.image, unaries), labels)


def test_what_is_counted_is_what_refine_labels():
    samples = Labelled(4)
    system = build(preset())
    curve = list(system.fit(samples, 0))
    for told in curve[::3]:
        other = build(preset(), {name: np.float32(told[name]) for name in SEARCHED})
        counts = sum(confusion(s.truth, other.refine(s.image, u), 2) for s, u in samples.images.values())
        assert told["miou"] == pytest.approx(100 * float(mean_iou(counts)), abs=0.05)
    top = max(curve, key=lambda told: told["miou"])
    assert {name: float(system.state()[name]) for name in SEARCHED} == pytest.approx({n: top[n] for n in SEARCHED})


def test_an_optimum_on_the_border_of_the_grid_is_followed_beyond_it():
    chosen = preset()
    plain = chosen.plain()
    plain["search"]["lambda"] = {"first": 0.05, "last": 0.1, "step": 0.05}
    curve = list(build(Settings(plain)).fit(Labelled(4), 0))
    assert max(told["lambda"] for told in curve) > 0.1


@pytest.mark.parametrize(("name", "moves"), [("hybrid_svm", SEARCHED), ("hybrid_network", ("edge_network_moved",))])
def test_the_structured_svm_lowers_its_loss(name, moves):
    samples = Labelled(6)
    chosen = preset(name)
    chosen = Settings(chosen.plain() | {"fit": chosen.fit.plain() | {"epochs": 10, "batch": 6}})
    system = build(chosen)
    curve = list(system.fit(samples, 0))
    assert curve[-1]["loss"] < 0.95 * curve[0]["loss"]
    assert all(curve[0][key] != curve[-1][key] for key in moves)


def test_what_is_certified_is_the_energy_of_the_labels_and_below_it_the_bound():
    system = build(preset())
    sample, unaries = planted(3)
    labels, certificate = system.certified(sample.image, unaries)
    assert np.array_equal(labels, system.refine(sample.image, unaries))
    assert certificate["bound"] <= certificate["energy"] < 0
    assert certificate["energy"] - certificate["bound"] <= 0.01 * abs(certificate["bound"])
    probability = unaries.log_probability(*sample.truth.shape).exp().double().numpy()
    pixels, energy = sample.image.astype(np.float64) / 255, 0.0
    for row in range(labels.shape[0]):
        for col in range(labels.shape[1]):
            energy -= probability[labels[row, col], row, col]
            for other in ((row, col + 1), (row + 1, col)):
                if other[0] < labels.shape[0] and other[1] < labels.shape[1] and labels[other] != labels[row, col]:
                    energy += 2.5 * np.exp(-35 * np.linalg.norm(pixels[row, col] - pixels[other]) ** 0.9)
    assert certificate["energy"] == pytest.approx(energy, rel=1e-5)


def test_the_paper_s_constants():
    chosen = settings.read(CONFIG / "hybrid_paper.yaml", "systems")
    assert (chosen["alpha"], chosen["beta"], chosen["lambda"], chosen.margin) == (35.0, 0.9, 2.5, 0.1)
    assert (chosen.iterations, chosen.sweeps, chosen.weights) == (15, 0, "contrast")


@pytest.mark.parametrize("loss", ["cross_entropy", "soft_jaccard"])
def test_another_loss_than_its_own_is_refused(loss):
    chosen = preset("hybrid_svm")
    chosen = Settings(chosen.plain() | {"fit": chosen.fit.plain() | {"loss": loss}})
    message = f"key 'fit.loss': found '{loss}', expected 'system', as this system brings its own; change it, or take"
    with pytest.raises(SettingsError, match=message):
        build(chosen).fit(Labelled(2), 0)


def test_256_classes_and_one():
    sample, unaries = planted(0)
    for classes in (1, 256):
        scores = torch.randn(classes, *sample.truth.shape, generator=torch.Generator().manual_seed(0))
        other = type(unaries)(scores, "logits", unaries.grid)
        assert build(preset(), classes=classes).refine(sample.image, other).max() < classes
