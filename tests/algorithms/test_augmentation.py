"""Random views: what stays as it was, what moves together, and the ranges the random numbers keep to."""

import numpy as np
import pytest
import torch
from scipy.stats import truncnorm

from pipeline.algorithms import augmentation
from pipeline.algorithms.augmentation import VOID, augment
from pipeline.core.settings import Settings

FILL = (0.5, 0.25, 0.75)
# Coordinates and colours pass through a few float32 operations near 1, the colour through HSV and back as well;
# half an 8-bit level is 2e-3, so this is far from visible.
FLOAT32 = 2e-5


def settings(**changed):
    still = {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0}
    return Settings({"flip": False, "rotation": 0, "resize": [1, 1], "jitter": still} | changed)


def jitter(**changed):
    return settings(jitter={"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0} | changed)


def coded(rng, size=(20, 26), classes=6, block=4):
    """Return square blocks of classes and an image whose red says the class."""
    truth = rng.integers(0, classes, (size[0] // block + 1, size[1] // block + 1)).repeat(block, 0).repeat(block, 1)
    truth = truth[: size[0], : size[1]].astype(np.uint8)
    image = np.stack([truth * 40, np.full_like(truth, 90), np.full_like(truth, 30)], axis=-1)
    return image, truth


def view(image, truth, chosen, crop, seed=0):
    return augment(image, truth, chosen, crop, FILL, np.random.default_rng(seed))


def test_nothing_asked_for_nothing_changes(rng):
    image = rng.integers(0, 256, (20, 26, 3), dtype=np.uint8)
    truth = rng.integers(0, 6, (20, 26), dtype=np.uint8)
    found, labels = view(image, truth, settings(), (20, 26))
    assert found.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert np.array_equal(labels.numpy(), truth)
    expected = torch.from_numpy(image).permute(2, 0, 1).float() / 255
    # Where neighbours differ by 1, a coordinate wrong by its rounding at 26 px shifts the value as much.
    assert (found - expected).abs().max() <= 26 * FLOAT32


def test_a_smaller_view_is_a_window_of_the_image(rng):
    image, truth = coded(rng)
    places = set()
    for seed in range(20):
        _, labels = view(image, truth, settings(), (9, 11), seed)
        windows = np.lib.stride_tricks.sliding_window_view(truth, (9, 11))
        hits = np.argwhere((windows == labels.numpy()).all(axis=(2, 3)))
        assert len(hits) >= 1
        places |= {tuple(map(int, hit)) for hit in hits[:1]}
    assert len(places) > 5


def test_outside_is_void_and_fill(rng):
    image, truth = coded(rng)
    found, labels = view(image, truth, settings(), (40, 50))
    assert sorted(np.unique(labels)) == sorted({*np.unique(truth), VOID})
    # The whole image is in the larger view, give or take the pixels that a shift between pixels cuts.
    assert 19 * 25 <= int((labels != VOID).sum()) <= 20 * 26
    # Bilinear blending reaches one pixel beyond the last labelled one.
    near = torch.nn.functional.max_pool2d((labels != VOID).float()[None], 3, stride=1, padding=1)[0].bool()
    outside = found[:, ~near]
    assert outside.shape[1] > 1000
    assert (outside - torch.tensor(FILL)[:, None]).abs().max() <= FLOAT32


@pytest.mark.parametrize("seed", range(5))
def test_labels_stay_classes(rng, seed):
    image, truth = coded(rng)
    truth[3:6] = VOID
    chosen = settings(flip=True, rotation=45, resize=[0.5, 2])
    _, labels = view(image, truth, chosen, (24, 24), seed)
    assert set(np.unique(labels)) <= {*range(6), VOID}


@pytest.mark.parametrize("seed", range(8))
def test_image_and_labels_move_together(rng, seed):
    image, truth = coded(rng, (64, 56), block=10)
    found, labels = view(image, truth, settings(flip=True, rotation=30, resize=[0.7, 1.5]), (32, 32), seed)
    seen = (found[0] * 255 / 40).round().long()
    # Colours blend across borders within one pixel of the image, which is at most two of the view; so only pixels
    # whose 5 × 5 neighbours bear one label can be compared.
    windows = labels.unfold(0, 5, 1).unfold(1, 5, 1)
    seen, middle = seen[2:-2, 2:-2], labels[2:-2, 2:-2]
    inner = (windows == middle[..., None, None]).flatten(2).all(dim=2) & (middle != VOID)
    assert int(inner.sum()) > 50
    assert torch.equal(seen[inner], middle[inner])


def test_half_of_the_views_are_mirrored(rng):
    image, truth = coded(rng)
    mirrored = 0
    for seed in range(60):
        _, labels = view(image, truth, settings(flip=True), (20, 26), seed)
        kinds = [np.array_equal(labels, truth), np.array_equal(labels, truth[:, ::-1])]
        assert sum(kinds) == 1
        mirrored += kinds[1]
    # A fair coin tossed 60 times falls outside 14..46 once in 30,000; the seeds are fixed.
    assert 14 <= mirrored <= 46


def test_rotation_keeps_to_its_range_and_size(rng):
    angles, scales = [], []
    for seed in range(300):
        linear = augmentation._affine(
            (20, 26), (16, 16), settings(rotation=10, resize=[0.5, 2]), np.random.default_rng(seed)
        )[:, :2].double()
        scales.append(float(torch.linalg.det(linear)) ** 0.5)
        angles.append(float(torch.rad2deg(torch.atan2(linear[1, 0], linear[0, 0]))))
    # Rounding of the float32 matrix.
    assert -10 - 1e-4 <= min(angles) < -8
    assert 8 < max(angles) <= 10 + 1e-4
    assert 0.5 - 1e-6 <= min(scales) < 0.6
    assert 1.7 < max(scales) <= 2 + 1e-6
    # Halving is as likely as doubling: the logarithm's mean is 0, here within 4 standard errors.
    logs = np.log(scales)
    assert abs(logs.mean()) <= 4 * logs.std() / 300**0.5


def test_normals_are_cut_at_two_standard_deviations(rng):
    drawn = np.array([augmentation._around(5, 2, rng) for _ in range(2000)])
    assert drawn.min() >= 3
    assert drawn.max() <= 7
    # The standard deviation of a normal cut at ±2 is 0.880 of the uncut one's, here 1; 4 standard errors of it.
    assert drawn.std() == pytest.approx(0.880, abs=4 * 0.880 / (2 * 2000) ** 0.5)


def test_normals_are_scipys():
    ours, theirs = np.random.default_rng(3), np.random.default_rng(3)
    drawn = [augmentation._around(0, 2, ours) for _ in range(200)]
    assert drawn == pytest.approx(truncnorm.rvs(-2, 2, size=200, random_state=theirs), abs=1e-14)


@pytest.mark.parametrize("changed", [{"brightness": 0.3}, {"contrast": 0.3}, {"saturation": 0.5}, {"hue": 0.2}])
def test_jitter_changes_colours_within_range_and_no_label(rng, changed):
    image, truth = coded(rng)
    plain, labels = view(image, truth, settings(), (20, 26))
    found, jittered = view(image, truth, jitter(**changed), (20, 26))
    assert torch.equal(jittered, labels)
    # Above what rounding does, for every kind of jitter.
    assert (found - plain).abs().max() > 100 * FLOAT32
    assert 0 <= float(found.min()) <= float(found.max()) <= 1


@pytest.mark.parametrize("seed", range(10))
def test_brightness_moves_by_its_share_at_most(rng, seed):
    image, truth = coded(rng)
    plain, _ = view(image, truth, settings(), (20, 26), seed)
    found, _ = view(image, truth, jitter(brightness=0.1), (20, 26), seed)
    assert (found - plain).abs().max() <= 0.1 + FLOAT32


def test_the_same_numbers_give_the_same_view(rng):
    image, truth = coded(rng)
    chosen = settings(
        flip=True,
        rotation=20,
        resize=[0.8, 1.2],
        jitter={"brightness": 0.1, "contrast": 0.1, "saturation": 0.1, "hue": 0.1},
    )
    one, other = (view(image, truth, chosen, (16, 16), seed=4) for _ in range(2))
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])
