"""Which view comes when: a function of seed, epoch and position alone, however many processes share a batch."""

import builders
import pytest
import torch

from pipeline.algorithms.batches import Views, scaled
from pipeline.core.errors import SettingsError
from pipeline.core.settings import Settings

NAMES = tuple(f"image_{number}" for number in range(9))
SAMPLES = {name: builders.sample(name, seed, (20, 24)) for seed, name in enumerate(NAMES)}
JITTER = {"brightness": 0.1, "contrast": 0.2, "saturation": 0.2, "hue": 0.02}
AUGMENTATION = {"flip": True, "rotation": 10, "resize": [0.8, 1.25], "jitter": JITTER}
STILL = {
    "flip": False,
    "rotation": 0,
    "resize": [1, 1],
    "jitter": {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0},
}


def views(seed=0, batch=4, names=NAMES, augmentation=AUGMENTATION):
    settings = Settings({"crop": [16, 16], "batch": batch, "augmentation": augmentation})
    return Views(SAMPLES.__getitem__, names, settings, (0.5, 0.5, 0.5), seed)


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_view_depends_on_seed_epoch_and_position_alone():
    wanted = views()[2, 5]
    torch.manual_seed(99)
    other = views()
    _ = other[0, 0], other[7, 3]
    assert same(other[2, 5], wanted)
    assert not same(other[3, 5], wanted)
    assert not same(other[2, 6], wanted)
    assert not same(views(seed=1)[2, 5], wanted)


def test_the_batch_size_changes_no_view():
    assert same(views(batch=2)[1, 3], views(batch=4)[1, 3])


def test_an_epoch_shows_every_image_once():
    still = views(augmentation=STILL, names=NAMES)
    # Whole images, unaugmented, so that each can be told from the others.
    still.settings = Settings({"crop": [20, 24], "batch": 4, "augmentation": STILL})
    seen = []
    for position in range(len(NAMES)):
        _, truth = still[0, position]
        seen += [name for name in NAMES if torch.equal(truth.byte(), torch.from_numpy(SAMPLES[name].truth))]
    assert sorted(seen) == sorted(NAMES)
    assert seen != list(NAMES)


def test_only_full_batches_count():
    assert views(batch=4).steps_per_epoch == 2
    assert views(batch=9).steps_per_epoch == 1


def test_batches_can_begin_anywhere():
    whole = list(views().loader(0, 5, workers=0))
    assert [tuple(images.shape) for images, _ in whole] == [(4, 3, 16, 16)] * 5
    for got, wanted in zip(views().loader(3, 5, workers=0), whole[3:], strict=True):
        assert same(got, wanted)


def test_the_second_epoch_has_another_order():
    (first, _), _, (second, _) = views().loader(0, 3, workers=0)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("ranks", [2, 4])
def test_the_shares_of_all_processes_are_the_joint_batch(ranks):
    shares = [list(views().loader(0, 3, workers=0, rank=rank, ranks=ranks)) for rank in range(ranks)]
    for step, joint in enumerate(views().loader(0, 3, workers=0)):
        together = [torch.cat([share[step][part] for share in shares]) for part in (0, 1)]
        assert same(together, joint)


def test_workers_change_no_view():
    for got, wanted in zip(views().loader(1, 3, workers=2), views().loader(1, 3, workers=0), strict=True):
        assert same(got, wanted)


def test_a_batch_larger_than_the_split_is_refused():
    with pytest.raises(SettingsError, match="batch: found 10, expected at most the 9 images of the split"):
        views(batch=10)


def test_a_batch_must_divide_among_the_processes():
    with pytest.raises(SettingsError, match="batch: found 4, expected a multiple of the 3 processes"):
        views().loader(0, 1, workers=0, rank=0, ranks=3)


def test_scaling():
    images = torch.tensor([0.5, 0.25, 1.0]).view(1, 3, 1, 1).expand(2, 3, 4, 5)
    settings = Settings({"channels": "rgb", "mean": [0.5, 0.0, 0.5], "std": [0.5, 0.25, 0.125]})
    found = scaled(images, settings)
    assert found.shape == images.shape
    assert found[1, :, 2, 3].tolist() == [0.0, 1.0, 4.0]


def test_scaling_for_weights_that_want_blue_first():
    images = torch.tensor([0.5, 0.25, 1.0]).view(1, 3, 1, 1)
    settings = Settings({"channels": "bgr", "mean": [0.5, 0.0, 0.5], "std": [0.5, 0.25, 0.125]})
    assert scaled(images, settings).flatten().tolist() == [4.0, 1.0, 0.0]
