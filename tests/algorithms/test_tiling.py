"""Tiles: they cover an image once; labels are those of the whole one where what is beyond the halo has no say."""

import numpy as np
import pytest
import torch

from pipeline.algorithms import tiling
from pipeline.core.grids import Grid
from pipeline.core.unaries import Unaries


@pytest.mark.parametrize(("size", "tile", "halo"), [(10, 3, 0), (10, 3, 2), (100, 100, 5), (101, 100, 5), (7, 50, 9)])
def test_cuts_cover_an_axis_once_and_see_further(size, tile, halo):
    cuts = tiling.cuts(size, tile, halo)
    assert [place for begin, end, *_ in cuts for place in range(begin, end)] == list(range(size))
    assert all(end - begin <= tile for begin, end, *_ in cuts)
    assert all((low, high) == (max(0, begin - halo), min(size, end + halo)) for begin, end, low, high in cuts)


def blurred(image, unaries):
    """The best class of scores averaged over 7 × 7 px: no pixel further than 3 px has a say."""
    scores = unaries.log_probability(*image.shape[:2])
    mean = torch.nn.functional.avg_pool2d(scores[None], 7, stride=1, padding=3, count_include_pad=False)[0]
    return mean.max(dim=0).indices.byte().numpy()


@pytest.mark.parametrize("stride", [1, 4])
def test_labels_are_those_of_the_whole_image(rng, stride):
    image = rng.integers(256, size=(61, 83, 3)).astype(np.uint8)
    scores = torch.from_numpy(rng.standard_normal((4, -(-61 // stride), -(-83 // stride))).astype(np.float32))
    unaries = Unaries(scores, "logits", Grid("cells", stride))
    whole = blurred(image, unaries)
    assert np.array_equal(tiling.refine(blurred, image, unaries, 20, 3), whole)
    assert not np.array_equal(tiling.refine(blurred, image, unaries, 20, 0), whole)


def test_an_estimate_grows_with_the_pixels():
    image = np.zeros((1000, 2000, 3), np.uint8)
    unaries = Unaries(torch.zeros(3, 250, 500), "logits", Grid("cells", 4))
    seen = []

    def peak(call):
        call()
        return 1000 + 7 * seen[-1]

    def refined(square, part):
        assert part.scores.shape[1:] == tuple(side // 4 for side in square.shape[:2])
        seen.append(square.shape[0] * square.shape[1])

    assert tiling.estimate(refined, image, unaries, peak) == pytest.approx(1000 + 7 * 1000 * 2000)
