"""Tiles: they cover an image once; labels are those of the whole one where what is beyond the halo has no say."""

import numpy as np
import pytest
import torch

from pipeline import systems
from pipeline.algorithms import tiling
from pipeline.core import settings
from pipeline.core.grids import Grid
from pipeline.core.unaries import Unaries


@pytest.mark.parametrize(("size", "tile", "halo"), [(10, 3, 0), (10, 3, 2), (400, 100, 5), (401, 100, 5), (7, 50, 9)])
def test_cuts_cover_an_axis_once_and_see_further(size, tile, halo):
    cuts = tiling.cuts(size, tile, halo)
    assert [place for begin, end, *_ in cuts for place in range(begin, end)] == list(range(size))
    assert all(end - begin <= tile for begin, end, *_ in cuts)
    for begin, end, low, high in cuts:
        assert low <= max(0, begin - halo) and low % tiling.ALIGNED == 0
        assert high >= min(size, end + halo) and (high % tiling.ALIGNED == 0 or high == size)


def blurred(image, unaries):
    """The best class of scores averaged over 7 × 7 px: no pixel further than 3 px has a say."""
    scores = unaries.log_probability(*image.shape[:2])
    mean = torch.nn.functional.avg_pool2d(scores[None], 7, stride=1, padding=3, count_include_pad=False)[0]
    return mean.max(dim=0).indices.byte().numpy()


def given(rng, height, width, stride):
    image = rng.integers(256, size=(height, width, 3)).astype(np.uint8)
    scores = rng.standard_normal((4, -(-height // stride), -(-width // stride))).astype(np.float32)
    return image, Unaries(torch.from_numpy(scores), "logits", Grid("cells", stride))


@pytest.mark.parametrize("stride", [1, 4])
def test_labels_are_those_of_the_whole_image(rng, stride):
    image, unaries = given(rng, 261, 283, stride)
    whole = blurred(image, unaries)
    assert np.array_equal(tiling.refine(blurred, image, unaries, 50, 3), whole)
    assert not np.array_equal(tiling.refine(blurred, image, unaries, 50, 0), whole)


@pytest.mark.parametrize("blur", [2, 3, 4])
def test_cells_of_a_system_stay_in_place(rng, blur):
    """A ConvCRF's window of 3 px on cells of `blur` px, twice: no pixel further than a few cells away has a say."""
    image, unaries = given(rng, 300, 336, 1)
    preset = settings.read(settings.ROOT / "config/systems/convcrf.yaml", "systems").plain()
    chosen = settings.check(preset | {"iterations": 2, "filter_size": 3, "blur": blur}, "systems", "a test")
    system = systems.build(chosen, 4, torch.device("cpu"))
    assert np.array_equal(tiling.refine(system.refine, image, unaries, 64, 5 * blur), system.refine(image, unaries))


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
