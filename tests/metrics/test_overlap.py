"""Counts and ratios against pixel loops and examples worked by hand."""

import numpy as np
import pytest

from pipeline.core.errors import DataError
from pipeline.metrics import overlap


def by_loop(truth, labels, classes):
    counts = np.zeros((classes, classes), dtype=np.int64)
    for true, label in zip(truth.ravel().tolist(), labels.ravel().tolist(), strict=True):
        if true != 255:
            counts[true, label] += 1
    return counts


def test_confusion_equals_a_pixel_loop():
    rng = np.random.default_rng(1)
    truth = rng.choice([0, 1, 2, 3, 4, 255], size=(19, 23)).astype(np.uint8)
    labels = rng.integers(0, 5, size=(19, 23)).astype(np.uint8)
    counts = overlap.confusion(truth, labels, 5)
    assert counts.dtype == np.int64
    np.testing.assert_array_equal(counts, by_loop(truth, labels, 5))


def test_labels_at_void_may_be_anything():
    truth = np.array([[0, 255]], dtype=np.uint8)
    labels = np.array([[0, 255]], dtype=np.uint8)
    assert overlap.confusion(truth, labels, 2).sum() == 1


def test_example_worked_by_hand():
    counts = np.array([[3, 1, 0], [2, 4, 0], [0, 0, 0]])
    np.testing.assert_allclose(overlap.iou(counts), [3 / 6, 4 / 7, np.nan])
    assert overlap.mean_iou(counts) == pytest.approx((3 / 6 + 4 / 7) / 2)
    assert overlap.classes_met(counts) == 2
    assert overlap.accuracy(counts) == pytest.approx(7 / 10)
    assert overlap.class_accuracy(counts) == pytest.approx((3 / 4 + 4 / 6) / 2)
    assert overlap.frequency_weighted_iou(counts) == pytest.approx((4 * 3 / 6 + 6 * 4 / 7) / 10)


def test_a_class_only_in_the_labels_counts_as_zero():
    counts = np.array([[3, 1], [0, 0]])
    np.testing.assert_allclose(overlap.iou(counts), [3 / 4, 0])
    assert overlap.mean_iou(counts) == pytest.approx(3 / 8)
    assert overlap.class_accuracy(counts) == pytest.approx(3 / 4)


def test_categories_are_classes_put_together():
    """With all classes in categories as if they were these; a class of none is wrong beside any, and has no IoU."""
    rng = np.random.default_rng(3)
    truth, labels = (rng.integers(0, 5, size=(2, 30, 40)).astype(np.uint8) for _ in range(2))
    counts = np.stack([overlap.confusion(t, x, 5) for t, x in zip(truth, labels, strict=True)])
    of = np.array([0, 1, 1, 2, 0], dtype=np.uint8)
    merged = [overlap.mean_iou(overlap.confusion(of[t], of[x], 3)) for t, x in zip(truth, labels, strict=True)]
    np.testing.assert_allclose(overlap.category_mean_iou(counts, [[0, 4], [1, 2], [3]]), merged)
    whole = overlap.iou(overlap.confusion(of[truth[0]], of[labels[0]], 3))
    assert overlap.category_mean_iou(counts[0], [[0, 4], [1, 2]]) == pytest.approx(whole[:2].mean())


def test_a_category_of_one_class_has_its_iou():
    counts = np.array([[5, 1, 0], [2, 7, 1], [0, 3, 9]])
    assert overlap.category_mean_iou(counts, [[2]]) == overlap.iou(counts)[2]


def test_nothing_scored_has_no_ratio():
    nothing = np.zeros((2, 3, 3), dtype=np.int64)
    for ratio in (overlap.mean_iou, overlap.accuracy, overlap.class_accuracy, overlap.frequency_weighted_iou):
        assert np.isnan(ratio(nothing)).all()
    assert (overlap.classes_met(nothing) == 0).all()


def test_leading_axes_are_kept():
    counts = np.random.default_rng(2).integers(0, 9, size=(4, 2, 3, 3))
    assert overlap.iou(counts).shape == (4, 2, 3)
    assert overlap.mean_iou(counts)[3, 1] == overlap.mean_iou(counts[3, 1])


def test_ratios_do_not_change_when_classes_swap_names():
    counts = np.random.default_rng(3).integers(0, 9, size=(5, 5))
    order = np.array([3, 0, 4, 1, 2])
    assert overlap.mean_iou(counts[order][:, order]) == pytest.approx(overlap.mean_iou(counts))


def test_a_label_that_is_no_class_is_refused():
    truth = np.zeros((2, 2), dtype=np.uint8)
    with pytest.raises(DataError, match=r"labels: found the class 7 at a pixel that is scored, expected 0 to 2"):
        overlap.confusion(truth, truth + 7, 3)
    with pytest.raises(DataError, match=r"labels: found shape \(2, 1\), expected \(2, 2\)"):
        overlap.confusion(truth, truth[:, :1], 3)


def test_labels_are_enlarged_to_the_nearest():
    labels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert np.array_equal(overlap.nearest(labels, (2, 3)), labels)
    assert np.array_equal(overlap.nearest(labels, (4, 6)), labels.repeat(2, axis=0).repeat(2, axis=1))
    assert np.array_equal(overlap.nearest(labels, (3, 4)), labels[np.ix_([0, 1, 1], [0, 1, 1, 2])])
