"""`cache` from its command line: the same arrays twice, shards, given weights, refusals."""

import builders
import pytest
import torch
from observe import net_file, said, same_store
from tiny import CACHE, NETWORK, SCALING, TRAINED

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
