"""The embedded data set: shapes, repeatability, exact void, all classes everywhere, colour that tells little."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from pipeline import datasets
from pipeline.core import settings as settings_files
from pipeline.core.errors import SettingsError
from pipeline.datasets import embedded

SEED = 0
SETTINGS = settings_files.read(settings_files.ROOT / "config" / "packs" / "embedded.yaml", "packs")


@pytest.fixture(scope="module")
def source():
    return datasets.read(SETTINGS, SEED)


@pytest.fixture(scope="module")
def samples(source):
    return [source.sample(name) for name in source.splits["train"][:80]]


def test_shapes_and_types(samples):
    for sample in samples:
        height, width, channels = sample.image.shape
        assert channels == 3
        assert max(height, width) == SETTINGS.longest_side
        assert min(height, width) >= SETTINGS.shortest_side
        assert sample.truth.shape == sample.exact.shape == (height, width)
        assert sample.image.dtype == sample.truth.dtype == sample.exact.dtype == np.uint8


def test_both_orientations_and_many_sizes(samples):
    shapes = {sample.truth.shape for sample in samples}
    assert any(height > width for height, width in shapes)
    assert any(height < width for height, width in shapes)
    assert len(shapes) > 20


def test_same_arguments_same_bytes():
    first, again, other, neighbour = (
        embedded.render(index, seed, SETTINGS) for index, seed in ((3, 0), (3, 0), (3, 1), (4, 0))
    )
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    for different in (other, neighbour):
        assert first[0].tobytes() != different[0].tobytes()


def test_global_random_state_plays_no_part():
    np.random.seed(1)  # noqa: NPY002
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    embedded.render(0, SEED, SETTINGS)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_void_is_the_band_around_borders_and_nothing_else(samples):
    for sample in samples[:20]:
        near = np.zeros(sample.exact.shape, bool)
        for label in np.unique(sample.exact):
            inside = sample.exact == label
            if not inside.all():
                near |= inside & (ndimage.distance_transform_edt(inside) <= SETTINGS.void_band)
        np.testing.assert_array_equal(sample.truth == embedded.VOID, near)
        np.testing.assert_array_equal(sample.truth[~near], sample.exact[~near])


@pytest.mark.parametrize("band", [0, 1, 4])
def test_void_band_is_a_setting(band):
    exact = np.zeros((20, 20), np.uint8)
    exact[:, 10:] = 7
    settings = SimpleNamespace(longest_side=40, shortest_side=32, void_band=band)
    _, truth, whole = embedded.render(0, SEED, settings)
    assert (truth != whole).any() == (band > 0)
    assert (embedded._with_void(exact, band) == embedded.VOID).sum() == 2 * band * 20


def test_every_split_shows_every_class(source):
    assert len(source.class_names) == 21
    for names in source.splits.values():
        shown = set()
        for name in names[:60]:
            truth = source.sample(name).truth
            shown |= set(np.unique(truth[truth != embedded.VOID]).tolist())
        assert shown == set(range(21))


def test_splits_are_disjoint_and_as_long_as_asked(source):
    names = [name for split in source.splits.values() for name in split]
    assert len(names) == len(set(names))
    assert {split: len(names) for split, names in source.splits.items()} == {
        split: SETTINGS[split] for split in ("train", "heldout", "val")
    }
    images = {source.sample(split[0]).image.tobytes() for split in source.splits.values()}
    assert len(images) == 3
    assert source.blocks == {}


def test_a_longer_train_split_leaves_val_alone(source):
    longer = datasets.read(SimpleNamespace(**{**SETTINGS, "train": 500}), SEED)
    name = source.splits["val"][5]
    np.testing.assert_array_equal(longer.sample(name).image, source.sample(name).image)


def test_names_longer_than_their_padding_stay_apart():
    many = datasets.read(SimpleNamespace(**{**SETTINGS, "train": 10_002}), SEED)
    assert len(set(many.splits["train"])) == 10_002


def test_images_hold_one_to_four_objects_and_much_background(samples):
    background = np.mean([np.mean(sample.exact == 0) for sample in samples])
    assert 0.4 < background < 0.8
    assert max(len(np.unique(sample.exact)) for sample in samples) >= 4


def test_there_are_thin_parts(samples):
    square = np.ones((5, 5), bool)
    thin = total = 0
    for sample in samples:
        objects = np.pad(sample.exact > 0, 3, mode="edge")
        thin += (objects & ~ndimage.binary_opening(objects, square))[3:-3, 3:-3].sum()
        total += objects[3:-3, 3:-3].sum()
    assert thin > 0.015 * total  # legs, masts, handles; of objects' pixels, those no 5 × 5 px square reaches


def test_borders_are_seen_in_the_image(samples):
    """Colour changes more across borders of the truth than elsewhere."""
    across, elsewhere = [], []
    for sample in samples:
        image = sample.image.astype(int)
        change = np.abs(image[:, 2:] - image[:, :-2]).sum(-1)
        border = sample.exact[:, 2:] != sample.exact[:, :-2]
        across.append(change[border])
        elsewhere.append(change[~border])
    assert np.median(np.concatenate(across)) > 3 * np.median(np.concatenate(elsewhere))


def test_colour_does_not_tell_the_class(samples, source):
    """A histogram of colours, the best classifier that sees one pixel, stays far below any network."""
    counts = np.zeros((16**3, 21))
    for sample in samples[:60]:
        scored = sample.truth != embedded.VOID
        np.add.at(counts, (_bin(sample.image)[scored], sample.truth[scored]), 1)
    best = (counts / np.sqrt(counts.sum(0))).argmax(1)  # the root of the prior serves mean IoU best
    confusion = np.zeros((21, 21))
    for name in source.splits["val"][:40]:
        sample = source.sample(name)
        scored = sample.truth != embedded.VOID
        np.add.at(confusion, (sample.truth[scored], best[_bin(sample.image)][scored]), 1)
    hit = np.diag(confusion)
    assert (hit / (confusion.sum(0) + confusion.sum(1) - hit)).mean() < 0.15


def _bin(image):
    red, green, blue = np.moveaxis(image.astype(int) // 16, -1, 0)
    return (red * 16 + green) * 16 + blue


def test_an_unknown_reader_is_named_with_the_nearest_one():
    with pytest.raises(SettingsError, match=r"^reader: found 'embeddde', expected .*; did you mean 'embedded'\?$"):
        datasets.read(SimpleNamespace(reader="embeddde"), SEED)


def test_part_of_a_reader_is_no_reader():
    with pytest.raises(SettingsError, match="found 'embedded_shapes'"):
        datasets.read(SimpleNamespace(reader="embedded_shapes"), SEED)


def test_sides_the_wrong_way_round_are_refused():
    with pytest.raises(SettingsError, match="shortest_side: found 200 px, expected at most longest_side, 128 px"):
        datasets.read(SimpleNamespace(**{**SETTINGS, "shortest_side": 200}), SEED)
