"""The paired bootstrap: exact cases, an oracle that draws images one by one, blocks, bounded memory."""

import numpy as np
import pytest

from pipeline.metrics import bootstrap, overlap
from pipeline.metrics.bootstrap import paired_difference


def runs(images=30, classes=3, seed=0, better=3):
    """Return the margins of two runs on the same images, the first the better one."""
    rng = np.random.default_rng(seed)
    wrong = rng.integers(0, 10, size=(images, classes, classes))
    right = rng.integers(5, 30, size=(images, classes))[:, :, None] * np.eye(classes, dtype=int)
    return overlap.marginals(wrong + (1 + better) * right), overlap.marginals(wrong + right)


def test_equal_runs_differ_by_exactly_nothing():
    one, _ = runs()
    found = paired_difference(one, one.copy(), resamples=200, seed=3)
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_value_is_the_difference_of_the_pooled_means():
    one, other = runs()
    expected = overlap.mean_iou_of(one.sum(axis=0)) - overlap.mean_iou_of(other.sum(axis=0))
    found = paired_difference(one, other, resamples=200, seed=3)
    assert found.value == pytest.approx(expected)
    assert found.low < found.value < found.high
    assert found.low > 0 or found.high < 0
    turned = paired_difference(other, one, resamples=200, seed=3)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))


def test_interval_agrees_with_drawing_images_one_by_one():
    one, other = runs(better=0.2)
    rng, drawn = np.random.default_rng(11), []
    for _ in range(4000):
        chosen = rng.integers(0, len(one), size=len(one))
        drawn.append(overlap.mean_iou_of(one[chosen].sum(axis=0)) - overlap.mean_iou_of(other[chosen].sum(axis=0)))
    found = paired_difference(one, other, resamples=4000, seed=5)
    low, high = np.quantile(drawn, [0.025, 0.975])
    # Two independent estimates of a quantile from 4000 draws; 0.1 standard deviations are some three errors.
    assert abs(found.low - low) < 0.1 * np.std(drawn)
    assert abs(found.high - high) < 0.1 * np.std(drawn)


def test_chunks_do_not_change_the_draws(monkeypatch):
    one, other = runs()
    whole = paired_difference(one, other, resamples=100, seed=7)
    monkeypatch.setattr(bootstrap, "DRAWN_AT_ONCE", 1)
    assert paired_difference(one, other, resamples=100, seed=7) == whole


def test_seed_decides():
    one, other = runs()
    ends = [paired_difference(one, other, resamples=50, seed=seed).low for seed in (1, 1, 2)]
    assert ends[0] == ends[1] != ends[2]


def test_one_block_leaves_nothing_to_chance():
    one, other = runs()
    found = paired_difference(one, other, resamples=20, seed=0, blocks=["clip"] * len(one))
    assert found.low == found.high == found.value


def test_blocks_are_drawn_as_if_they_were_images():
    one, other = runs(images=12)
    blocks = [f"clip {number // 3}" for number in range(12)]
    pooled = [margins.reshape(4, 3, *margins.shape[1:]).sum(axis=1) for margins in (one, other)]
    found = paired_difference(one, other, resamples=300, seed=9, blocks=blocks)
    assert found == paired_difference(*pooled, resamples=300, seed=9)


def test_alike_frames_widen_the_interval_when_drawn_by_block():
    one, other = (np.repeat(margins, 6, axis=0) for margins in runs(images=8, better=0.2))
    blocks = [f"clip {number // 6}" for number in range(48)]
    alone = paired_difference(one, other, resamples=1000, seed=1)
    by_block = paired_difference(one, other, resamples=1000, seed=1, blocks=blocks)
    assert by_block.high - by_block.low > 1.5 * (alone.high - alone.low)


def test_nothing_scored_gives_no_interval():
    nothing = np.zeros((3, 3, 2), dtype=np.int64)
    found = paired_difference(nothing, nothing, resamples=10, seed=0)
    assert np.isnan([found.value, found.low, found.high]).all()
