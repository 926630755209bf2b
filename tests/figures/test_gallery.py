"""Which images are chosen, and what the difference maps say."""

import numpy as np
from builders import sample

from pipeline.figures import gallery


def test_best_median_and_worst_are_chosen():
    gains = np.array([0.0, 5.0, -3.0, 1.0, 2.0, -1.0, 4.0])
    assert gallery.choose(gains, 3) == [(1, "best"), (3, "median"), (2, "worst")]
    assert [index for index, _ in gallery.choose(gains, 7)] == [1, 6, 4, 3, 0, 5, 2]
    assert gallery.choose(gains, 99) == gallery.choose(gains, 7)


def test_no_image_is_chosen_twice():
    for images in range(1, 12):
        for count in range(1, 12):
            chosen = [index for index, _ in gallery.choose(np.arange(images) % 4, count)]
            assert len(set(chosen)) == len(chosen) == min(images, count)


def test_a_gain_that_is_no_number_is_none():
    assert gallery.choose(np.array([np.nan, -1.0, 1.0]), 3) == [(2, "best"), (0, "median"), (1, "worst")]


def test_every_case_of_a_difference():
    truth, before, after = np.array([[[1, 1, 1, 1, 255]], [[1, 0, 1, 0, 1]], [[1, 1, 0, 2, 1]]], dtype=np.uint8)
    expected = [gallery.RIGHT, gallery.GAINED, gallery.LOST, gallery.WRONG, gallery.UNSCORED]
    assert gallery.difference(truth, before, after)[0].tolist() == expected


def test_a_scene_is_small_and_names_its_systems():
    made = sample("any", 3, size=(96, 128))
    html = gallery.scene(made, {"unary": made.exact, "convcrf": made.exact}, {"unary": "U", "convcrf": "C"}, "any")
    assert html.count("<img ") == 6
    assert 'alt="changes of convcrf"' in html
    assert len(html) < 40_000
