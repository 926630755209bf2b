"""A diffusion on one image: the places looked at, their marks, the tiles."""

import re

import numpy as np
from builders import sample

from pipeline.figures import walks


def test_places_are_a_mended_pixel_and_one_that_was_right():
    truth = np.ones((9, 12), np.uint8)
    before, after = truth.copy(), truth.copy()
    before[2:5, 3:6] = 0
    after[8, 11] = 0
    mended, kept = walks.places(truth, before, after)
    assert mended == (3, 4)
    assert before[kept] == after[kept] == 1
    assert walks.places(truth, truth, truth)[0] == (4, 6)


def test_marks_stay_inside():
    image = np.zeros((20, 30, 3), np.uint8)
    drawn = walks.marked(image, [(0, 0), (19, 29)])
    assert (drawn[:3, :3] == walks.MARKS[0]).all() and (drawn[17:, 27:] == walks.MARKS[1]).all()
    assert not drawn[4:16].any() and not image.any()


def test_a_scene_shows_every_walk():
    one = sample("a", 0)
    small = np.random.default_rng(0).random((5, 7))
    steps = [
        (f"walk {number}, image", (0.25, 0.5), one.exact, np.stack([small, small.T.reshape(5, 7)])) for number in (1, 2)
    ]
    html = walks.scene(one, [(2, 3), (4, 4)], (one.exact, 9 * small, small), steps, "<b>title</b>")
    assert re.findall('alt="(.*?)"', html) == [
        "photograph a, with two places",
        "truth",
        "labels of the scores",
        "influence",
        "importance",
        "labels after walk 1, image",
        "row 1 of P, walk 1, image",
        "row 2 of P, walk 1, image",
        "labels after walk 2, image",
        "row 1 of P, walk 2, image",
        "row 2 of P, walk 2, image",
    ]
    assert "<b>title</b>" in html and "<figcaption>walk 2, image<br>μ 0.25, β 0.50</figcaption>" in html
