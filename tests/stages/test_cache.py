"""`cache` from its command line: the same arrays twice, shards, given weights, the truth with noise, refusals."""

import builders
import pytest
import torch
from observe import net_file, said, same_store
from tiny import CACHE, NETWORK, NOISY, SCALING, TRAINED

from pipeline.core import settings
from pipeline.core.errors import SettingsError
from pipeline.core.grids import Grid
from pipeline.formats import packs, unaries, weights


def test_cache_gives_the_same_arrays_twice(tiny_run, tmp_path):
    assert tiny_run("cache", output=tmp_path / "u.zarr") == 0
    one, other = unaries.Cache([tmp_path / "u.zarr"]), unaries.Cache([tiny_run.unaries])
    assert same_store(one.stores[0], other.stores[0])
    assert one.digest == other.digest


def test_shards_hold_each_image_once(tiny_run, tmp_path):
    paths = [tmp_path / "1.zarr", tmp_path / "2.zarr"]
    assert [tiny_run("cache", shard=f"{k}-of-2", output=path) for k, path in enumerate(paths, 1)] == [0, 0]
    cache, whole, pack = unaries.Cache(paths), unaries.Cache([tiny_run.unaries]), packs.Pack(tiny_run.pack)
    assert sorted(cache.names) == sorted(whole.names)
    assert all(store.names for store in cache.stores)
    for name in whole.names:
        image = pack.sample(name).image
        assert torch.equal(cache.unaries(name, image).scores, whole.unaries(name, image).scores)


def spoil_weights(run, value):
    tensors, stamp = weights.read(run.weights)
    tensors["classifier.4.bias"][1] = value
    weights.write(run.weights, tensors, stamp)


def test_cache_names_the_image_of_a_bad_score(spoilt_run, tmp_path, capsys):
    spoil_weights(spoilt_run, float("nan"))
    assert spoilt_run("cache", output=tmp_path / "u.zarr") == 2
    line = said(capsys)
    assert "image heldout_0, class 1, row 0, col 0: found the score nan" in line
    assert str(spoilt_run.weights) in line
    assert not (tmp_path / "u.zarr").exists()


def test_cache_refuses_scores_too_large_for_float16(spoilt_run, tmp_path, capsys):
    spoil_weights(spoilt_run, 1e6)
    net = net_file(tmp_path, spoilt_run, TRAINED | {"cache": CACHE | {"dtype": "float16"}})
    assert spoilt_run("cache", net=net, output=tmp_path / "u.zarr") == 2
    assert "heldout_0: found a score of 1e+06, expected at most 65504" in said(capsys)


def test_cache_refuses_weights_for_other_classes(tiny_run, tmp_path, capsys):
    other = builders.pack(tmp_path / "other.h5", classes=3)
    assert tiny_run("cache", pack=other, output=tmp_path / "u.zarr") == 2
    assert "expected those of the pack; train on this pack" in said(capsys)


def given_net(weights_path, **changed):
    given = {"source": "given", "network": NETWORK | changed, "weights": str(weights_path)}
    return given | {"scaling": SCALING, "cache": CACHE}


def test_cache_runs_given_weights(tiny_run, tmp_path):
    net = net_file(tmp_path, tiny_run, given_net(tiny_run.weights))
    assert tiny_run("cache", net=net, output=tmp_path / "u.zarr") == 0
    one, other = unaries.Cache([tmp_path / "u.zarr"]), unaries.Cache([tiny_run.unaries])
    assert same_store(one.stores[0], other.stores[0])


def test_cache_refuses_given_weights_for_other_classes(tiny_run, tmp_path, capsys):
    net = net_file(tmp_path, tiny_run, given_net(tiny_run.weights))
    other = builders.pack(tmp_path / "other.h5", classes=3)
    assert tiny_run("cache", net=net, pack=other, output=tmp_path / "u.zarr") == 2
    assert "2 mismatched (classifier.4.weight, classifier.4.bias)" in (line := said(capsys))
    assert "every tensor of the network with 3 classes" in line


def test_cache_refuses_given_weights_of_another_network(tiny_run, tmp_path, capsys):
    net = net_file(tmp_path, tiny_run, given_net(tiny_run.weights, depth=34))
    assert tiny_run("cache", net=net, output=tmp_path / "u.zarr") == 2
    assert "set architecture, depth and width as the file needs them" in said(capsys)


@pytest.mark.parametrize("splits", [["heldout", "test"], ["valid"]])
def test_cache_refuses_an_unknown_split(tiny_run, tmp_path, capsys, splits):
    net = net_file(tmp_path, tiny_run, TRAINED | {"cache": CACHE | {"splits": splits}})
    assert tiny_run("cache", net=net, output=tmp_path / "u.zarr") == 2
    assert f"found no split '{splits[-1]}'" in said(capsys)


def cache_noisy(run, tmp_path, name="noisy.zarr", seed=3, weights=None, **options):
    """Run the stage on the truth with noise; return its exit status and where its output goes."""
    changed = {key: options.pop(key) for key in [*options] if key in NOISY}
    net = net_file(tmp_path, run, NOISY | changed)
    return run("cache", net=net, weights=weights, seed=seed, output=tmp_path / name, **options), tmp_path / name


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_cache_makes_unaries_of_the_truth_at_full_size(tiny_run, tmp_path, dtype):
    status, path = cache_noisy(tiny_run, tmp_path, cache=CACHE | {"dtype": dtype})
    assert status == 0
    cache, pack = unaries.Cache([path]), packs.Pack(tiny_run.pack)
    cache.belongs_to(pack)
    assert (cache.kind, cache.grid) == ("probability", Grid("cells", 1))
    assert cache.names == pack.names("heldout") + pack.names("val")
    assert cache.stores[0].stamp["seed"] == 3
    for name in cache.names:
        sample = pack.sample(name)
        found = cache.unaries(name, sample.image).scores
        assert found.shape == (pack.classes, *sample.truth.shape)
        torch.testing.assert_close(found.sum(dim=0), torch.ones(sample.truth.shape), atol=1e-3, rtol=0)


def test_cache_makes_the_same_noise_twice_and_in_shards(tiny_run, tmp_path):
    whole = unaries.Cache([cache_noisy(tiny_run, tmp_path)[1]])
    again = unaries.Cache([cache_noisy(tiny_run, tmp_path, "again.zarr")[1]])
    assert whole.digest == again.digest
    parts = [cache_noisy(tiny_run, tmp_path, f"{k}.zarr", shard=f"{k}-of-2")[1] for k in (1, 2)]
    parts, pack = unaries.Cache(parts), packs.Pack(tiny_run.pack)
    for name in whole.names:
        image = pack.sample(name).image
        assert torch.equal(parts.unaries(name, image).scores, whole.unaries(name, image).scores)
    other = unaries.Cache([cache_noisy(tiny_run, tmp_path, "other.zarr", seed=4)[1]])
    assert other.digest != whole.digest


def test_noise_taken_for_logits_has_the_same_best_classes_and_is_flatter(tiny_run, tmp_path):
    paths = [cache_noisy(tiny_run, tmp_path, f"{kind}.zarr", kind=kind)[1] for kind in ("probability", "logits")]
    probability, logits = (unaries.Cache([path]) for path in paths)
    pack = packs.Pack(tiny_run.pack)
    assert (logits.kind, logits.grid) == ("logits", Grid("cells", 1))
    for name in logits.names:
        image = pack.sample(name).image
        sure, flat = (cache.unaries(name, image).log_probability(*image.shape[:2]) for cache in (probability, logits))
        assert torch.equal(sure.argmax(dim=0), flat.argmax(dim=0))
        # e / (e + C − 1), where one class has all.
        assert flat.max().exp() < torch.e / (torch.e + pack.classes - 1) + 1e-3
        assert sure.max().exp() > 0.95


def test_noise_can_be_refined_but_not_with_weights_nor_networks_without(tiny_run, tmp_path, capsys):
    _, path = cache_noisy(tiny_run, tmp_path)
    assert tiny_run("refine", unaries=path, output=tmp_path / "labels.zarr") == 0
    assert cache_noisy(tiny_run, tmp_path, "no.zarr", seed=None, weights=tiny_run.weights)[0] == 2
    assert "key 'source': found 'noisy_truth', expected a network; give --seed, no --weights" in said(capsys)
    assert tiny_run("cache", weights=None, seed=0, output=tmp_path / "no.zarr") == 2
    assert "key 'source': found 'train', expected 'noisy_truth'; give --weights, no --seed" in said(capsys)
    assert not (tmp_path / "no.zarr").exists()


def test_an_image_smaller_than_a_cell_is_named(tiny_run, tmp_path, capsys):
    assert cache_noisy(tiny_run, tmp_path, cell=22)[0] == 2
    assert "image heldout_0: found 17 × 40 px (rows × cols), expected at least one cell of 22 × 22" in said(capsys)


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"keep_probability": 1.5}, "key 'keep_probability': found 1.5, expected maximum 1"),
        ({"keep_probability": -0.1}, "key 'keep_probability': found -0.1, expected minimum 0"),
        ({"cell": 1}, "key 'cell': found 1, expected minimum 2"),
        ({"cell": 8.5}, "key 'cell': found 8.5, expected a value of type integer"),
        ({"kind": "neg_log_probability"}, "key 'kind': found 'neg_log_probability', expected one of probability, log"),
    ],
)
def test_a_recipe_that_cannot_be_is_named(tiny_run, tmp_path, capsys, changed, line):
    assert cache_noisy(tiny_run, tmp_path, **changed)[0] == 2
    assert line in said(capsys)


def test_an_unknown_key_of_the_noise_is_named():
    with pytest.raises(SettingsError, match=r"key 'keep_probabilty': found an unknown key.*'keep_probability'\?"):
        settings.check(NOISY | {"keep_probabilty": 0.5}, "nets", "net.yaml")
