"""Bands against pixel loops, and the examples of the paper's definition."""

import numpy as np
import pytest
from builders import sample
from scipy import ndimage

from pipeline.core.errors import DataError
from pipeline.metrics import boundary
from pipeline.metrics.overlap import confusion


def nearest_by_loop(marked):
    """Chessboard distance of each pixel to the marked ones, by looking at every pair."""
    rows, cols = np.nonzero(marked)
    away = np.empty(marked.shape, dtype=int)
    for row, col in np.ndindex(marked.shape):
        away[row, col] = np.maximum(abs(rows - row), abs(cols - col)).min()
    return away


def edges_by_loop(truth):
    marked = np.zeros(truth.shape, dtype=bool)
    for row, col in np.ndindex(truth.shape):
        for to in ((row - 1, col), (row + 1, col), (row, col - 1), (row, col + 1)):
            if all(0 <= place < size for place, size in zip(to, truth.shape, strict=True)):
                marked[row, col] |= truth[to] != truth[row, col] and 255 not in (truth[to], truth[row, col])
    return marked


def test_the_narrowest_band_of_a_void_line_is_two_pixels_wide():
    truth = np.zeros((5, 9), dtype=np.uint8)
    truth[:, 4] = 255
    band = boundary.distance(truth, "void")
    np.testing.assert_array_equal(band[2], [4, 3, 2, 1, 0, 1, 2, 3, 4])
    assert boundary.band_confusions(truth, truth * 0, 2, [1, 2], "void").sum(axis=(1, 2)).tolist() == [10, 20]


def test_the_narrowest_band_of_a_label_edge_is_two_pixels_wide():
    truth = np.repeat(np.array([[0, 0, 0, 1, 1, 1]], dtype=np.uint8), 4, axis=0)
    np.testing.assert_array_equal(boundary.distance(truth, "label_edges")[0], [3, 2, 1, 1, 2, 3])


def test_bands_of_void_are_dilations_with_a_square():
    truth = sample("any", 5).truth
    away = boundary.distance(truth, "void")
    for width in (1, 2, 4, 7):
        square = np.ones((2 * width + 1, 2 * width + 1), dtype=bool)
        band = ndimage.binary_dilation(truth == 255, structure=square) & (truth != 255)
        np.testing.assert_array_equal((away >= 1) & (away <= width), band)


@pytest.mark.parametrize("seed", range(3))
def test_distance_equals_a_pixel_loop(seed):
    made = sample("any", seed, size=(15, 18))
    np.testing.assert_array_equal(boundary.distance(made.truth, "void"), nearest_by_loop(made.truth == 255))
    truth = made.exact.copy()
    truth[3:6, 4:9] = 255
    np.testing.assert_array_equal(boundary.label_edges(truth), edges_by_loop(truth))
    expected = nearest_by_loop(edges_by_loop(truth)) + 1
    np.testing.assert_array_equal(boundary.distance(truth, "label_edges"), expected)


@pytest.mark.parametrize("trimap", boundary.TRIMAPS)
def test_band_counts_equal_counts_with_the_rest_made_void(trimap):
    made, widths = sample("any", 8), [1, 2, 5]
    labels = np.random.default_rng(0).integers(0, 4, size=made.truth.shape).astype(np.uint8)
    truth = made.truth if trimap == "void" else made.exact
    counts = boundary.band_confusions(truth, labels, 4, widths, trimap)
    away = boundary.distance(truth, trimap)
    for width, found in zip(widths, counts, strict=True):
        outside = np.where(away <= width, truth, 255)
        np.testing.assert_array_equal(found, confusion(outside, labels, 4))


@pytest.mark.parametrize("trimap", boundary.TRIMAPS)
def test_an_image_without_boundary_has_empty_bands(trimap):
    truth = np.ones((6, 7), dtype=np.uint8)
    assert (boundary.distance(truth, trimap) == boundary.FAR).all()
    assert boundary.band_confusions(truth, truth, 3, [1, 40], trimap).sum() == 0


def test_an_unknown_trimap_is_refused():
    with pytest.raises(DataError, match=r"trimap: found 'edges', expected one of void, label_edges"):
        boundary.distance(np.zeros((2, 2), dtype=np.uint8), "edges")
