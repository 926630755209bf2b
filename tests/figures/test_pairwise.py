"""Costs between neighbours: the squares that are enlarged, their pictures, and what the costs are."""

import re

import numpy as np
import pytest
import torch
from builders import sample

from pipeline.algorithms.potts_grid import costs
from pipeline.figures import pairwise
from pipeline.kernels.potts_chains import Edges


def test_squares_hold_the_most_changed_pixels():
    changed = np.zeros((40, 60), dtype=bool)
    changed[5:9, 6:10] = changed[25:30, 40:48] = True
    first, second = pairwise.regions(changed)
    assert changed[first].sum() == 40 and changed[second].sum() == 16
    assert changed[first].shape == changed[second].shape == (12, 12)


@pytest.mark.parametrize(("height", "width", "count"), [(1, 1, 1), (1, 30, 2), (3, 3, 2), (20, 7, 2)])
def test_squares_of_small_images_do_not_overlap_and_lie_inside(height, width, count):
    found = pairwise.regions(np.ones((height, width), dtype=bool))
    seen = np.zeros((height, width), dtype=int)
    for square in found:
        assert seen[square].shape[0] == seen[square].shape[1]
        seen[square] += 1
    assert len(found) == count and seen.max() == 1


def test_a_pixel_s_cost_is_that_of_its_two_edges():
    right, below = torch.rand(1, 3, 4), torch.rand(1, 2, 5)
    found = costs(Edges(right, below))
    assert found.shape == (1, 3, 5)
    assert found[0, 1, 2] == right[0, 1, 2] + below[0, 1, 2]
    assert found[0, 2, 4] == 0 and found[0, 2, 1] == right[0, 2, 1] and found[0, 1, 4] == below[0, 1, 4]


def test_a_scene_shows_both_squares_of_all():
    one = sample("a", 0)
    before = one.exact.copy()
    before[:6, :6] = (before[:6, :6] + 1) % 4
    rng = np.random.default_rng(0)
    html = pairwise.scene(one, before, one.exact, rng.random(before.shape), "<b>title</b>")
    assert html == pairwise.scene(one, before, one.exact, np.random.default_rng(0).random(before.shape), "<b>title</b>")
    named = re.findall('alt="([^"]*)"', html)
    assert named[:2] == ["photograph a, with squares", "costs of the whole image"]
    assert [named.count(f"{what}, square") for what in ("photograph", "truth", "network", "with the CRF", "costs")] == [
        2
    ] * 5
    assert "<b>title</b>" in html


def test_costs_of_0_and_no_change_are_shown_too():
    one = sample("a", 0)
    assert "costs, square" in pairwise.scene(one, one.exact, one.exact, np.zeros(one.truth.shape), "")
