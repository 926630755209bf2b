"""The noisy truth: resizing against loops, what is drawn, how often the truth is kept, both kinds."""

import math

import numpy as np
import pytest
from scipy import ndimage

from pipeline.algorithms.noisy_truth import noisy_truth, one_hot, resize
from pipeline.core.errors import DataError
from pipeline.core.sample import VOID

RECIPE = {"cell": 8, "keep_probability": 0.8, "kind": "probability", "stride": 1, "seed": 0, "name": "image"}


def made(truth, classes=5, **changed):
    return noisy_truth(truth, classes, **RECIPE | changed)


@pytest.fixture
def truth(rng):
    """Blocks of 16 px, so that most cells lie within one class."""
    blocks = rng.integers(5, size=(4, 5)).astype(np.uint8)
    return blocks.repeat(16, axis=0).repeat(16, axis=1)[:61, :75]


def resized_by_loops(array, height, width):
    """Interpolate between the four cells around each place, one pixel at a time; outside is 0."""
    h, w = array.shape
    result = np.zeros((height, width))
    for row in range(height):
        for col in range(width):
            y, x = (row + 0.5) * h / height - 0.5, (col + 0.5) * w / width - 0.5
            top, left = math.floor(y), math.floor(x)
            for i in (top, top + 1):
                for j in (left, left + 1):
                    if 0 <= i < h and 0 <= j < w:
                        result[row, col] += (1 - abs(y - i)) * (1 - abs(x - j)) * array[i, j]
    return result


@pytest.mark.parametrize("sizes", [((2, 3), (16, 24)), ((2, 3), (19, 31)), ((17, 26), (2, 3)), ((1, 1), (9, 8))])
def test_resizing_is_linear_between_centres_and_fades_at_the_border(rng, sizes):
    small, size = sizes
    array = rng.random(small)
    np.testing.assert_allclose(resize(array, *size), resized_by_loops(array, *size), atol=1e-6)


def test_resizing_to_the_same_size_changes_nothing(rng):
    array = rng.random((3, 7, 9)).astype(np.float32)
    np.testing.assert_array_equal(resize(array, 7, 9), array)


def test_enlarged_maps_fade_within_half_a_cell():
    ones = resize(np.ones((2, 2), np.float32), 16, 16)
    assert ones[0, 8] == 9 / 16 and ones[0, 0] == (9 / 16) ** 2
    assert (ones[4:12, 4:12] == 1).all() and (ones[3] < 1).all()


@pytest.mark.parametrize("kind", ["probability", "logits"])
@pytest.mark.parametrize("stride", [3, 5])
def test_a_stride_keeps_the_scores_in_the_middle_of_cells(truth, stride, kind):
    truth = truth[:60]
    middles = slice(stride // 2, None, stride)
    expected = made(truth, kind=kind)[:, middles, middles]
    np.testing.assert_allclose(made(truth, kind=kind, stride=stride), expected, atol=1e-6)


def test_a_stride_that_does_not_divide_the_image_keeps_a_part_of_a_cell_more(truth):
    assert made(truth, stride=8).shape == (5, 8, 10)


def test_one_hot_of_void_is_nowhere():
    assert one_hot(np.array([[0, 2, VOID]]), 3)[:, 0].T.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]


def test_probabilities_sum_to_one_everywhere(truth):
    scores = made(truth)
    assert scores.shape == (5, 61, 75) and scores.dtype == np.float32
    assert scores.min() >= 0
    np.testing.assert_allclose(scores.sum(axis=0), 1, atol=1e-6)


def test_logits_are_the_same_numbers_but_for_the_border(truth):
    probability, logits = made(truth), made(truth, kind="logits")
    np.testing.assert_allclose(logits / logits.sum(axis=0), probability, atol=1e-6)
    np.testing.assert_allclose(logits[:, 5:-5, 5:-5], probability[:, 5:-5, 5:-5], atol=1e-6)
    assert logits[:, 0].sum(axis=0).max() < 0.6


def test_seed_and_name_decide_what_is_drawn(truth):
    np.testing.assert_array_equal(made(truth), made(truth))
    assert not np.array_equal(made(truth), made(truth, seed=1))
    assert not np.array_equal(made(truth), made(truth, name="other"))


def test_kept_everywhere_the_truth_is_found_where_no_edge_is_near(truth):
    inside = ndimage.maximum_filter(truth, 19) == ndimage.minimum_filter(truth, 19)
    inside[:5] = inside[-5:] = inside[:, :5] = inside[:, -5:] = False
    sure = np.take_along_axis(made(truth, keep_probability=1), truth[None].astype(int), axis=0)[0]
    assert inside.any()
    np.testing.assert_allclose(sure[inside], 1, atol=1e-6)


def test_kept_nowhere_the_truth_does_not_count(truth):
    np.testing.assert_array_equal(
        made(truth, keep_probability=0)[:, 8:-8, 8:-8], made(truth * 0, keep_probability=0)[:, 8:-8, 8:-8]
    )


def test_so_many_cells_keep_the_truth():
    """With 50 classes, noise hits the truth in one cell of 50; 10 000 cells, so ± 0.02 is five deviations."""
    cells = made(np.zeros((800, 800), np.uint8), 50)[0, 4::8, 4::8]
    assert (cells > 0.5).mean() == pytest.approx(0.8 + 0.2 / 50, abs=0.02)


def test_noise_is_of_all_classes_alike():
    drawn = made(np.zeros((800, 800), np.uint8), 4, keep_probability=0)[:, 4::8, 4::8].argmax(axis=0)
    np.testing.assert_allclose(np.bincount(drawn.ravel()) / drawn.size, 0.25, atol=0.025)


def test_void_counts_as_the_first_class(truth):
    void = np.where(truth == 0, VOID, truth).astype(np.uint8)
    np.testing.assert_array_equal(made(void), made(truth))


@pytest.mark.parametrize("size", [(7, 40), (40, 7)])
def test_an_image_smaller_than_a_cell_is_named(size):
    with pytest.raises(DataError) as caught:
        made(np.zeros(size, np.uint8))
    expected = f"image image: found {size[0]} × {size[1]} px (rows × cols), expected at least one cell of 8 × 8; lower"
    assert str(caught.value).startswith(expected)


def test_one_cell_is_enough():
    assert made(np.zeros((8, 15), np.uint8)).shape == (5, 8, 15)
