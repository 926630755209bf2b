"""Figures of what fits learnt: the compatibility relative to each class's own, and mean IoU on the way."""

from xml.etree import ElementTree

import numpy as np

from pipeline.figures import learnt, sections

NAMES = ("ground", "leaf & <twig>", "stone")


def test_penalties_are_told_relative_to_each_columns_own_class():
    """A number added to a column moves no class against another, so it is taken off."""
    penalty = np.array([[0.5, 1, 2], [1, 0, 3], [0, 1, 1]])
    found = learnt.relative(penalty)
    assert np.array_equal(found, [[0, 1, 1], [0.5, 0, 2], [-0.5, 1, 0]])
    assert np.array_equal(learnt.relative(penalty + np.array([5, -2, 1])), found)
    assert np.array_equal(learnt.relative(np.stack([np.zeros((3, 3)), penalty])), found)


def test_the_matrix_names_its_classes_and_repeats_to_the_byte():
    svg = learnt.compatibility(1 - np.eye(3), NAMES, "one")
    assert svg == learnt.compatibility(1 - np.eye(3), NAMES, "one")
    assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
    assert svg.count("leaf &amp; &lt;twig&gt;") == 2
    other = np.array([[0, 1, 1], [1, 0, 0.2], [1, 1, 0]])
    assert learnt.compatibility(other, NAMES, "one") != svg


def test_only_looks_make_a_line():
    curve = [{"step": 0, "val_miou": 40.0}, {"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.9, "val_miou": 42.0}]
    found = sections.lines({"crfrnn": curve, "unary": []}, "step", "val_miou")
    assert found == {"crfrnn": ([0, 2], [40.0, 42.0])}
