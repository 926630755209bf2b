"""Coarse-to-fine search: where it looks, that it leaves its first range, and what judging on few images keeps."""

import itertools
from functools import partial

import numpy as np
import pytest

from pipeline.algorithms.coarse_to_fine import Judged, best, grid, judge, search
from pipeline.core.errors import SettingsError


def axis(first, last, step=1):
    return {"first": first, "last": last, "step": step}


def bowl(peak):
    """Judge points by a bowl around a peak, all on the same images."""

    def judged(points, number):
        scores = [1 - sum((x - y) ** 2 for x, y in zip(point, peak, strict=True)) / 1e4 for point in points]
        return [Judged(point, number, 9, score) for point, score in zip(points, scores, strict=True)]

    return judged


def run(axes, halvings, judged):
    """Return the rounds, and the best of all."""
    rounds = list(search(axes, halvings, 99, judged))
    return rounds, best(list(itertools.chain(*rounds)))


def test_the_first_round_is_the_paper_s_grid():
    """Section 5: w1 in [5, 10], σα in 50:10:100, σβ in 3:1:10, 288 points."""
    points = grid({"w1": axis(5, 10), "alpha": axis(50, 100, 10), "beta": axis(3, 10)})
    assert len(points) == 288
    assert (points[0], points[-1]) == ((5, 50, 3), (10, 100, 10))
    assert sorted({point[1] for point in points}) == [50, 60, 70, 80, 90, 100]


@pytest.mark.parametrize(
    ("first", "last", "step", "expected"),
    [(1, 1, 5, [1]), (1, 2, 0.3, [1.0, 1.3, 1.6, 1.9]), (0.1, 0.3, 0.1, [0.1, 0.2, 0.3])],
)
def test_values_of_an_axis(first, last, step, expected):
    assert [point[0] for point in grid({"x": axis(first, last, step)})] == pytest.approx(expected)


def test_a_reversed_range_is_refused_by_name():
    with pytest.raises(SettingsError) as error:
        grid({"theta_beta": axis(10, 3)})
    assert str(error.value) == (
        "key 'search.theta_beta': found a range from 10 to 3, expected first ≤ last; swap the two, or make them equal "
        "for one value"
    )


@pytest.mark.parametrize("peak", [(6, 70, 5), (7.25, 84, 6.5), (5.1, 55, 9.9)])
def test_the_peak_is_found_to_the_last_step(peak):
    axes = {"w1": axis(5, 10), "alpha": axis(50, 100, 10), "beta": axis(3, 10)}
    rounds, found = run(axes, 4, bowl(peak))
    for value, wanted, step in zip(found.point, peak, (1 / 16, 10 / 16, 1 / 16), strict=True):
        assert abs(value - wanted) <= step / 2 + 1e-9
    tried = [one.point for one in itertools.chain(*rounds)]
    assert len(tried) == len(set(tried)) < 288 + 6 * 26


@pytest.mark.parametrize("peak", [(4, 121, 5), (3, 30, 2), (14, 75, 16)])
def test_a_peak_outside_the_first_range_is_followed(peak):
    """The paper's own best values, w1 4 and σα 121, lie outside the ranges it states."""
    axes = {"w1": axis(5, 10), "alpha": axis(50, 100, 10), "beta": axis(3, 10)}
    _, found = run(axes, 4, bowl(peak))
    assert all(abs(value - wanted) <= 0.32 for value, wanted in zip(found.point, peak, strict=True))


def test_no_value_reaches_0():
    rounds, found = run({"x": axis(2, 4)}, 3, bowl((-50,)))
    tried = sorted(one.point[0] for one in itertools.chain(*rounds))
    assert tried[0] > 0
    assert found.point == (1 / 8,)


def test_the_search_ends_after_the_halvings_asked_for():
    rounds, found = run({"x": axis(1, 5, 2)}, 0, bowl((3,)))
    assert [[one.point for one in judged] for judged in rounds] == [[(1,), (3,), (5,)]]
    assert found.point == (3,)
    rounds, _ = run({"x": axis(1, 5, 2)}, 2, bowl((3,)))
    assert [[one.point for one in judged] for judged in rounds] == [[(1,), (3,), (5,)], [(2,), (4,)], [(2.5,), (3.5,)]]
    assert [one.round for judged in rounds for one in judged] == [1, 1, 1, 2, 2, 3, 3]


def test_the_search_ends_after_the_rounds_asked_for():
    rounds = list(search({"x": axis(1, 5)}, 9, 3, bowl((50,))))
    assert [[one.point for one in judged] for judged in rounds] == [[(1,), (2,), (3,), (4,), (5,)], [(6,)], [(7,)]]


def test_the_best_is_one_judged_on_most_images():
    few, many, equal = Judged((1,), 1, 3, 0.9), Judged((2,), 1, 9, 0.5), Judged((3,), 1, 9, 0.5)
    assert best([few, many, equal]) is many


# Judging on few images first

IMAGES, CLASSES = 60, 4


def counts(points, part, *, quality):
    """Return margins of made-up images, (points, 3, C): each point is right in so many pixels of a hundred."""
    total = np.zeros((len(points), 3, CLASSES), np.int64)
    for place, point in enumerate(points):
        for image in range(*part.indices(IMAGES)):
            rng = np.random.default_rng([image, 7])
            truth = 25 + rng.integers(-5, 6, CLASSES)
            hits = np.minimum(truth, np.round(truth * quality[point] + rng.normal(0, 1, CLASSES)).astype(int))
            total[place] += np.stack([np.maximum(hits, 0), truth, truth])
    return total


def judged_by(first, keep, asked=None):
    points = [(float(number),) for number in range(20)]
    quality = {point: 0.5 + 0.02 * point[0] for point in points}

    def count(alive, part):
        if asked is not None:
            asked.append((len(alive), part.stop - part.start))
        return counts(alive, part, quality=quality)

    return judge(points, 1, count, IMAGES, first, keep)


def test_on_all_images_every_point_is_counted_once():
    asked = []
    found = judged_by(IMAGES, 1.0, asked)
    assert asked == [(20, IMAGES)]
    assert {one.images for one in found} == {IMAGES}
    assert best(found).point == (19.0,)
    # Intersection over union of sums: hits / (truth + labelled − hits), here labelled = truth.
    total = counts([(3.0,)], slice(0, IMAGES), quality={(3.0,): 0.56})[0]
    assert found[3].miou == pytest.approx(np.mean(total[0] / (total[1] + total[2] - total[0])))


def test_halving_spends_more_images_on_fewer_points():
    asked = []
    found = judged_by(6, 0.34, asked)
    assert asked == [(20, 6), (7, 12), (3, 35), (2, 7)]
    assert sum(points * images for points, images in asked) < 20 * IMAGES / 3
    assert [one.point for one in found] == [(float(number),) for number in range(20)]
    everything = judged_by(IMAGES, 1.0)
    assert best(found) == best(everything)
    assert sorted(one.images for one in found)[-3:] == [53, 60, 60]
    # Whoever was judged on all images has the score it has without halving.
    assert all(one in everything for one in found if one.images == IMAGES)


def test_a_point_alone_is_judged_on_all_images():
    asked = []
    points = [(1.0,)]
    judge(points, 1, lambda alive, part: asked.append(part) or np.ones((1, 3, 2), np.int64), IMAGES, 6, 0.5)
    assert asked == [slice(0, 6), slice(6, 60)]


def test_equals_stay_in_their_order():
    same = partial(judge, count=lambda alive, part: np.ones((len(alive), 3, 2), np.int64), images=9, first=3, keep=0.5)
    assert [one.images for one in same([(3.0,), (1.0,), (2.0,), (4.0,)], 1)] == [9, 6, 3, 3]


def test_no_point_is_judged_twice_for_its_last_digits():
    """Of hybrid_paper.yaml: 0.7 - 0.2 and 0.5, 0.7 + 0.2 and 0.5 + 2 · 0.2 differ by sums alone."""
    axes = {"beta": axis(0.5, 1.3, 0.2), "lambda": axis(0.1, 0.7, 0.1)}
    for peak in itertools.product(*(sorted({point[place] for point in grid(axes)}) for place in range(2))):
        rounds, found = run(axes, 1, bowl(peak))
        points = [one.point for judged in rounds for one in judged]
        assert found.point == peak
        assert len({tuple(round(value, 9) for value in point) for point in points}) == len(points)
