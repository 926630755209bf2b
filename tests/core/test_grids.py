"""Where entries stand in an image, and how they are enlarged to it."""

import pytest
import torch

from pipeline.core.errors import DataError
from pipeline.core.grids import KINDS, Grid


def test_cells_share_the_image():
    scores = torch.tensor([0.0, 4.0]).view(1, 1, 1, 2)
    assert Grid("cells", 2).resize(scores, 1, 4).flatten().tolist() == [0.0, 1.0, 3.0, 4.0]


@pytest.mark.parametrize(
    ("width", "expected"),
    [(3, [0, 1, 2]), (5, [0, 1, 2, 3, 4]), (6, [0, 1, 2, 3, 4, 4]), (9, [0, 1, 2, 3, 4, 4, 4, 4, 4])],
)
def test_points_stand_on_their_pixels(width, expected):
    """Entries of stride 4 on the pixels 0 and 4; beyond the last, its value."""
    scores = torch.tensor([0.0, 4.0]).view(1, 1, 1, 2)
    assert Grid("points", 4).resize(scores, 1, width).flatten().tolist() == expected


def test_pixels_before_the_first_point_have_its_value():
    scores = torch.tensor([1.0, 5.0]).view(1, 1, 1, 2)
    assert Grid("points", 4, 1.5).resize(scores, 1, 7).flatten().tolist() == [1, 1, 1.5, 2.5, 3.5, 4.5, 5]


@pytest.mark.parametrize("origin", [0.0, -7.5, -3.5, 3.5])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (8, 9), (9, 8), (33, 40), (41, 17)])
def test_a_plane_stays_a_plane_between_points(height, width, origin):
    rows, cols = (8 * torch.arange(-(-(size - 1 - origin) // 8) + 1.0) + origin for size in (height, width))
    found = Grid("points", 8, origin).resize((rows.view(-1, 1) + 0.5 * cols)[None, None], height, width)[0, 0]
    # Before the first point its value goes on.
    down, across = (torch.arange(size).clamp_min(origin) for size in (height, width))
    expected = down.view(-1, 1) + 0.5 * across
    assert torch.allclose(found, expected, rtol=0, atol=1e-5)  # float32 roundings of numbers up to 60


def test_points_are_enlarged_as_torch_does_with_aligned_corners():
    scores = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(1))
    expected = torch.nn.functional.interpolate(scores, size=(13, 21), mode="bilinear", align_corners=True)
    found = Grid("points", 4).resize(scores, 13, 21)
    assert torch.allclose(found, expected, rtol=0, atol=1e-6)


def test_scores_are_enlarged_in_their_own_precision():
    scores = torch.randn(1, 2, 3, 3, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16):
        found = Grid("points", 4).resize(scores, 9, 9)
    assert torch.equal(found, Grid("points", 4).resize(scores, 9, 9))


def test_pixels_that_entries_stand_for():
    assert Grid("cells", 4).standing(10).tolist() == [1, 5, 8]
    assert Grid("points", 4).standing(10).tolist() == [0, 4, 8]


@pytest.mark.parametrize(("size", "missing"), [(1, 0), (8, 1), (9, 0), (10, 7)])
def test_what_is_missing_brings_an_entry_behind_the_last_pixel(size, missing):
    assert Grid("points", 8).missing(size) == missing
    assert Grid("cells", 8).missing(size) == Grid("points", 8, -7.5).missing(size) == 0


def test_points_off_the_pixels_are_enlarged_though_the_sizes_agree():
    scores = torch.arange(3.0).expand(1, 1, 3, 3)
    found = Grid("points", 8, -7.5).resize(scores, 3, 3)
    assert torch.allclose(found[0, 0, 0], torch.tensor([7.5, 8.5, 9.5]) / 8)


@pytest.mark.parametrize("kind", KINDS)
def test_the_own_size_is_left_alone(kind):
    scores = torch.zeros(1, 3, 4, 5)
    assert Grid(kind, 1).resize(scores, 4, 5) is scores


@pytest.mark.parametrize(
    "wrong", [("grid", 4, 0.0), ("cells", 0, 0.0), ("cells", 4, 0.5), ("points", 4, 1.0), ("points", 4, 5.5)]
)
def test_a_grid_that_cannot_be_is_refused(wrong):
    with pytest.raises(DataError, match=r"grid: found .* expected cells or points, a stride of 1 or more"):
        Grid(*wrong)
