"""The surface of a search: its best point, its maps, its rise, and what the page says of it."""

import re

import builders
import numpy as np
import pytest

from pipeline.algorithms import coarse_to_fine, searched
from pipeline.figures import plots, searches, sections
from pipeline.systems import deeplab

HALVED, WHOLE = builders.search(first_images=4), builders.search()


def told(halvings=1, keep=0.4):
    """Search as deeplab does, with a peak at theta_alpha 20, theta_beta 7.5, weight 6; return (Judged, entries)."""
    axes = {name: {"first": 5, "last": 25, "step": 10} for name in deeplab.SEARCHED}
    peak, known = dict(zip(deeplab.SEARCHED, (20, 7.5, 6), strict=True)), []

    def judge(points, number):
        def count(alive, part):
            hits = np.round(
                [1e6 / (1 + sum(np.log(p / peak[n]) ** 2 for n, p in zip(axes, x, strict=True))) for x in alive]
            )
            return np.stack([hits, np.full(len(hits), 1e6), hits], axis=1)[..., None].astype(np.int64)

        return coarse_to_fine.judge(points, number, count, 9, 2, keep)

    for judged in coarse_to_fine.search(axes, halvings, 99, judge):
        known += judged
    return known, [searched.told(deeplab.SEARCHED, step, one) for step, one in enumerate(known, start=1)]


def shown(curve):
    figures = {}
    return sections.fitting("net.deeplab.fit", "deeplab", curve, 1, figures), figures


def test_what_deeplab_reports_is_a_search_and_its_best_is_the_search_s():
    known, curve = told()
    assert searches.is_one(curve)
    best = coarse_to_fine.best(known)
    found = searches.best(curve)
    assert tuple(found[name] for name in deeplab.SEARCHED) == best.point
    assert (found["miou"], found["images"]) == (100 * best.miou, 9)


def test_what_gradients_report_is_none():
    assert not searches.is_one([])
    assert not searches.is_one([{"step": 1, "steps": 2, "loss": 0.5, "theta_alpha": 40.0}])
    assert not searches.is_one([{"step": 1, "miou": 50.0, "round": 1, "images": 3}])


def test_a_high_score_on_few_images_is_not_the_best():
    curve = [entry | {"miou": 99.0} if entry["images"] == 4 else entry for entry in HALVED]
    assert searches.best(curve) is curve[-1]
    assert searches.climb(curve)[1] == [54.0, 57.0, 60.25, 60.25]


def test_the_surface_holds_every_point_of_the_first_round_at_its_place():
    axes, miou, few = searches.surface(HALVED)
    assert axes == ([10.0, 30.0], [5.0, 10.0], [4.0, 6.0, 8.0])
    for entry in HALVED[:-1]:
        weight, beta, alpha = (axes[i].index(entry[deeplab.SEARCHED[i]]) for i in (2, 1, 0))
        assert miou[weight, beta, alpha] == entry["miou"]
        assert few[weight, beta, alpha] == (entry["images"] == 4)
        assert searches.place(axes, entry) == (weight, beta, alpha)
    assert searches.place(axes, HALVED[-1]) is None
    assert not searches.surface(WHOLE)[2].any()


def test_points_that_were_not_judged_stay_empty():
    _, miou, few = searches.surface(WHOLE[1:])
    assert np.isnan(miou[0, 0, 0]) and np.isfinite(miou).sum() == 11
    assert not few.any()


def test_the_best_never_falls_and_rounds_end_where_they_do():
    _, curve = told()
    judged, highest, ends = searches.climb(curve)
    assert highest == sorted(highest)
    assert highest[-1] == searches.best(curve)["miou"]
    assert ends == {n: max(e["step"] for e in curve if e["round"] == n) for n in {e["round"] for e in curve}}
    assert judged[-1] == max(ends.values()) == len(curve)
    assert searches.climb(HALVED) == ([5, 8, 13, 13], [54.0, 57.0, 60.25, 60.25], {1: 12, 2: 13})


def test_the_caption_names_the_best_of_all_and_that_it_is_off_the_grid():
    html, figures = shown(HALVED)
    said = re.findall("<figcaption>(.*?)</figcaption>", html)
    assert said[0] == (
        "Search of deeplab: mean IoU on the grid of the first round, one map for each appearance_weight. Best of 13 "
        "points in 2 rounds, off this grid, whose own best is framed: theta_alpha 20 px, theta_beta 7.5 8-bit levels, "
        "appearance_weight 6, with 60.25 % on 10 images. Faint: given up before, and so judged on 4 of the images only."
    )
    assert "best mean IoU so far on all 10 images" in said[1]
    assert list(figures) == ["net.deeplab.fit.svg", "net.deeplab.fit.best.svg"]


def test_a_best_on_the_grid_is_framed_and_nothing_is_faint_where_all_had_all_images():
    html, _ = shown(WHOLE)
    assert (
        "in 2 rounds, framed: theta_alpha 30 px, theta_beta 10 8-bit levels, appearance_weight 8, with 61.00 %" in html
    )
    assert "Faint" not in html and "opacity" not in html
    assert "opacity: 0.35" in shown(HALVED)[0]


@pytest.mark.parametrize("curve", [WHOLE, HALVED, WHOLE[:1], told()[1]])
def test_maps_are_named_and_repeat_to_the_byte(curve):
    html, figures = shown(curve)
    assert (html, figures) == shown(curve)
    svg = figures["net.deeplab.fit.svg"]
    for word in (
        "mean IoU, %",
        "theta_alpha, px",
        "theta_beta, 8-bit levels",
        f"weight {curve[0]['appearance_weight']:g}",
    ):
        assert word in svg
    assert plots._INK not in svg and "<image" not in svg
    assert svg.count("#b00020") == 1


def test_every_map_is_titled_and_its_cells_numbered():
    svg = shown(WHOLE)[1]["net.deeplab.fit.svg"]
    words = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert {"weight 4", "weight 6", "weight 8"} <= set(words)
    assert {f"{entry['miou']:.1f}" for entry in WHOLE[:-1]} <= set(words)


def test_a_fit_by_gradient_still_shows_its_loss():
    html, figures = shown([{"step": step, "loss": 1 / step} for step in (1, 2, 3)])
    assert "loss on the held-out images" in html and list(figures) == ["net.deeplab.fit.svg"]
