"""Plots: valid, the same bytes each time, coloured by the page."""

import re
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest

from pipeline.figures import plots

COLOURS = {"unary": 0, "convcrf": 1}
IOUS = {"unary": np.array([50, 20, np.nan]), "convcrf": np.array([60, 10, np.nan])}


def bars(name="one"):
    return plots.bars(("ground", "leaf & <twig>", "stone"), IOUS, COLOURS, name)


def curves(name="two"):
    lines = {"unary": ([1, 2, 8], [10, 20, 30]), "convcrf": ([1, 2, 8], [12, 25, np.nan])}
    return plots.curves(lines, COLOURS, name, across="width, px", up="mean IoU, %", log=True)


def gains(name="three"):
    return plots.gains(["convcrf", "other"], [1.0, -0.2], [0.5, -0.5], [1.5, 0.1], [1, 2], name)


@pytest.mark.parametrize("draw", [bars, curves, gains])
def test_plots_are_valid_and_repeat_to_the_byte(draw):
    svg = draw()
    assert svg == draw()
    assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
    assert "<metadata" not in svg


@pytest.mark.parametrize("draw", [bars, curves, gains])
def test_colours_are_the_pages(draw):
    svg = draw()
    assert "var(--series-1, #0b6fae)" in svg
    assert "currentColor" in svg
    assert plots._INK not in svg


def test_text_stays_text():
    for word in ("leaf &amp; &lt;twig&gt;", "unary", "convcrf", "IoU, %", "in neither truth nor labels"):
        assert word in bars()


def test_names_inside_two_plots_do_not_clash():
    ids = [set(re.findall(r' id="([^"]+)"', draw(name))) for draw, name in ((curves, "a"), (curves, "b"))]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_style_is_given_back():
    before = dict(mpl.rcParams)
    bars()
    assert dict(mpl.rcParams) == before
