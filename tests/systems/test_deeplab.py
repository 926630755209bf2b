"""DeepLab's search: what it counts is what `refine` would label, it finds the best, and shares its work."""

import numpy as np
import pytest
import torch
from planted import planted, wrong

from pipeline import systems
from pipeline.core import settings
from pipeline.core.settings import ROOT, Settings
from pipeline.metrics.overlap import confusion, marginals, mean_iou
from pipeline.systems import deeplab

CPU = torch.device("cpu")
PRESETS = ("deeplab", "deeplab_paper")
RANGES = {
    "appearance_weight": {"first": 1, "last": 7, "step": 3},
    "theta_alpha": {"first": 4, "last": 12, "step": 8},
    "theta_beta": {"first": 10, "last": 40, "step": 30},
}


def preset(name="deeplab", search=None, **changed):
    plain = settings.read(ROOT / "config" / "systems" / f"{name}.yaml", "systems").plain()
    search = plain["search"] | RANGES | {"halvings": 0, "judging": {"name": "all"}} | (search or {})
    return Settings(plain | {"iterations": 3, "search": search} | changed)


class Samples:
    """Labelled images in memory; counts what is worked out and remembers nothing."""

    def __init__(self, count=4):
        self.images = {str(seed): planted(seed) for seed in range(count)}
        self.names, self.asked, self.drawn = tuple(self.images), [], None

    def each(self, work, rests_on, tasks):
        self.rests_on = rests_on
        for name, keys in tasks:
            self.asked += [(name, key) for key in keys]
            yield (name, keys), work(*self.images[name], keys)

    def draw(self, split, count, seed):
        self.drawn = split, count, seed
        return self


def fitted(chosen, samples=None, seed=0):
    system = systems.build(chosen, 2, CPU)
    samples = samples or Samples()
    return list(system.fit(samples, seed)), system, samples


@pytest.mark.parametrize("changed", [{}, {"smoothness": "separable"}, {"filter": "window", "filter_size": 5}])
def test_what_is_counted_is_what_refine_labels(changed):
    curve, system, samples = fitted(preset(**changed))
    assert len([told for told in curve if told["round"] == 1]) == 12
    for told in curve[:12:5]:
        point = {name: np.float32(told[name]) for name in deeplab.SEARCHED}
        other = systems.build(preset(**changed), 2, CPU, system.state() | point)
        counts = sum(confusion(s.truth, other.refine(s.image, u), 2) for s, u in samples.images.values())
        assert told["miou"] == pytest.approx(100 * float(mean_iou(counts)), abs=1e-9)
        assert (told["round"], told["images"]) == (1, 4)


def test_the_best_point_is_taken():
    curve, system, samples = fitted(preset())
    top = max(curve, key=lambda told: told["miou"])
    assert {name: float(system.state()[name]) for name in deeplab.SEARCHED} == pytest.approx(
        {name: top[name] for name in deeplab.SEARCHED}
    )
    unary = systems.build(Settings({"system": "unary"}), 2, CPU)
    assert sum(wrong(system, *one) for one in samples.images.values()) < 0.5 * sum(
        wrong(unary, *one) for one in samples.images.values()
    )


def test_every_point_of_every_image_is_asked_for_once():
    _, _, samples = fitted(preset(search={"halvings": 2}))
    assert len(samples.asked) == len(set(samples.asked))
    assert len(samples.asked) % 4 == 0


def test_what_the_counts_rest_on_leaves_out_what_is_searched_for():
    _, _, samples = fitted(preset())
    assert samples.rests_on["iterations"] == 3
    assert not {"search", "preset", *deeplab.SEARCHED} & set(samples.rests_on)


def test_halving_asks_for_less_and_finds_the_same():
    halving = {"judging": {"name": "halving", "images": 2, "keep": 0.3}, "halvings": 1}
    few, many = Samples(8), Samples(8)
    curve, system, _ = fitted(preset(search=halving), few)
    _, other, _ = fitted(preset(search={"halvings": 1}), many)
    assert len(few.asked) < 0.6 * len(many.asked)
    assert system.state() == other.state()
    assert {told["images"] for told in curve} == {2, 7, 8}


def test_the_seed_alone_decides_which_images_come_first():
    halving = {"judging": {"name": "halving", "images": 2, "keep": 0.3}}

    def first(seed):
        samples = Samples(8)
        fitted(preset(search=halving), samples, seed)
        return samples.asked

    assert first(0) == first(0)
    assert {name for name, _ in first(0)[:24]} != {name for name, _ in first(1)[:24]}


@pytest.mark.parametrize("judging", [{"name": "all"}, {"name": "halving", "images": 2, "keep": 0.3}])
def test_parts_are_what_the_fit_begins_with(judging):
    chosen = preset(search={"judging": judging})
    _, _, whole = fitted(chosen)
    parts = []
    for part in (1, 2, 3):
        samples = Samples()
        for _ in systems.build(chosen, 2, CPU).share(samples, 0, part, 3):
            pass
        parts.append(samples.asked)
    assert sorted(key for part in parts for key in part) == sorted(whole.asked[: sum(map(len, parts))])
    assert min(map(len, parts)) > 0


def test_the_paper_s_images_are_a_hundred_of_val():
    _, _, samples = fitted(preset(search={"images": "paper"}), seed=5)
    assert samples.drawn == ("val", 100, 5)
    _, _, samples = fitted(preset())
    assert samples.drawn is None


@pytest.mark.parametrize("name", PRESETS)
def test_presets_fit_and_refine(name):
    _, system, samples = fitted(preset(name))
    sample, unaries = samples.images["0"]
    labels = system.refine(sample.image, unaries)
    assert (labels.shape, labels.dtype) == (sample.truth.shape, np.uint8)


def test_the_paper_s_search_is_that_of_section_5():
    chosen = settings.read(ROOT / "config" / "systems" / "deeplab_paper.yaml", "systems")
    assert chosen.search.plain() == {
        "images": "paper",
        "appearance_weight": {"first": 5, "last": 10, "step": 1},
        "theta_alpha": {"first": 50, "last": 100, "step": 10},
        "theta_beta": {"first": 3, "last": 10, "step": 1},
        "halvings": 4,
        "rounds": 30,
        "judging": {"name": "all"},
    }
    assert (chosen.iterations, chosen.smoothness_weight, chosen.theta_gamma) == (10, 3.0, 3.0)
    assert (chosen.normalisation, chosen.clip, chosen.temperature) == ("after", 0, 1.0)


def test_counting_travels_to_another_process():
    import pickle

    work = pickle.loads(pickle.dumps(deeplab.Counting(preset(), CPU)))
    sample, unaries = planted(0)
    points = [(8.0, 20.0, 1.0), (8.0, 20.0, 6.0)]
    counts = work(sample, unaries, points)
    assert counts.shape == (2, 3, 2)
    assert np.array_equal(counts[:, 1], np.stack([marginals(confusion(sample.truth, sample.truth, 2))[1]] * 2))
