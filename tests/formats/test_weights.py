"""Weights: round trip, files from elsewhere, what matches a network and what is refused."""

import hashlib
import os
import pickle
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch

from pipeline import nets
from pipeline.core.errors import DataError
from pipeline.formats import weights


def resnet(classes=3, depth=18, width=0.125, seed=0):
    torch.manual_seed(seed)
    chosen = {"depth": depth, "width": width, "output_stride": 16, "stride_in_1x1": False, "dropout": 0.5}
    return nets.build(SimpleNamespace(architecture="resnet_fcn", **chosen), classes)


def classification(network):
    """Tensors as torchvision's classification file would hold them."""
    tensors = {
        name.removeprefix("backbone."): tensor.clone()
        for name, tensor in network.state_dict().items()
        if name.startswith("backbone.")
    }
    features = network.backbone.features
    return tensors | {"fc.weight": torch.ones(1000, features), "fc.bias": torch.ones(1000)}


def same_backbone(first, second):
    other = second.backbone.state_dict()
    names = (name for name in other if not name.endswith("num_batches_tracked"))
    return all(torch.equal(first.backbone.state_dict()[name], other[name]) for name in names)


def assert_refused(call, *said):
    with pytest.raises(DataError) as caught:
        call()
    assert "\n" not in str(caught.value)
    for part in said:
        assert part in str(caught.value)


# Channel order


RGB, BGR = SimpleNamespace(channels="rgb"), SimpleNamespace(channels="bgr")


@pytest.mark.parametrize(("name", "path"), [("conv1_1.weight", "vgg.pth"), ("features.0.weight", "vgg16-00b39a1b.pth")])
def test_weights_of_caffe_want_blue_first(name, path):
    tensors = {name: torch.ones(64, 3, 3, 3)}
    weights.check_channels(tensors, BGR, path)
    said = (f"{path}: found weights of Caffe, trained on BGR images, expected RGB as in the network's", "channels: bgr")
    assert_refused(lambda: weights.check_channels(tensors, RGB, path), *said)


def test_weights_of_torchvision_want_red_first():
    tensors = {"features.0.weight": torch.ones(64, 3, 3, 3)}
    weights.check_channels(tensors, RGB, "vgg16-397923af.pth")
    refused = (
        "found weights trained on RGB images, expected BGR as in the network's settings; set scaling to channels: rgb"
    )
    assert_refused(lambda: weights.check_channels(tensors, BGR, "vgg16-397923af.pth"), refused)
    # Of another file nothing is known.
    weights.check_channels(tensors, BGR, "mine.pth")


# Our own files


def test_round_trip(tmp_path):
    tensors = {
        "b": torch.randn(2, 3).T,  # not contiguous
        "a": torch.arange(4),
        "counter": torch.tensor(7),
        "half": torch.ones(2, dtype=torch.bfloat16),
    }
    tensors["tied"] = tensors["a"]
    stamp = {"commit": "abc", "seed": 1, "settings": {"width": 0.5, "ü": None}}
    path = tmp_path / "plain"
    weights.write(path, tensors, stamp)
    found, found_stamp = weights.read(path)
    assert found_stamp == stamp
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor)
        assert found[name].dtype == tensor.dtype


def test_equal_contents_give_equal_bytes(tmp_path):
    tensors = {"a": torch.ones(2), "b": torch.zeros(3)}
    weights.write(tmp_path / "first", tensors, {"x": 1, "y": 2})
    weights.write(tmp_path / "second", dict(reversed(tensors.items())), {"y": 2, "x": 1})
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_files_have_the_usual_permissions(tmp_path):
    weights.write(tmp_path / "weights", {"a": torch.ones(2)}, {})
    (tmp_path / "plain").touch()
    assert (tmp_path / "weights").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("kept", [0, 4, 40, -1])
def test_truncated_files_are_refused(tmp_path, kept):
    path = tmp_path / "net.safetensors"
    weights.write(path, {"a": torch.ones(50)}, {})
    path.write_bytes(path.read_bytes()[:kept])
    said = (str(path), "a damaged or foreign file", "expected safetensors; write or fetch it again")
    assert_refused(lambda: weights.read(path), *said)
    assert_refused(lambda: weights.read_foreign(path), *said)


def test_a_flipped_bit_anywhere_is_found_or_harmless(tmp_path):
    path = tmp_path / "net.safetensors"
    weights.write(path, {"a": torch.arange(50.0), "b": torch.tensor(3)}, {"stage": "train", "seed": 1})
    content, expected, found = path.read_bytes(), weights.read(path), 0
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 0x01
        path.write_bytes(damaged)
        try:
            assert str(weights.read(path)) == str(expected), place
        except DataError as error:
            assert str(path) in str(error)
            found += 1
    assert found > 0.9 * len(content)


def test_files_without_our_stamp_are_refused(tmp_path):
    path = tmp_path / "net.safetensors"
    safetensors.torch.save_file({"a": torch.ones(2)}, path)
    said = "found no stamp, expected weights written by this pipeline; give weights from elsewhere as"
    assert_refused(lambda: weights.read(path), said)
    assert torch.equal(weights.read_foreign(path)["a"], torch.ones(2))


def test_absent_files_are_refused(tmp_path):
    said = "found no such file, expected a weight file; check the path"
    assert_refused(lambda: weights.read(tmp_path / "none"), said)
    assert_refused(lambda: weights.read_foreign(tmp_path / "none.pth"), said)


# Files from elsewhere


@pytest.mark.parametrize("zipped", [True, False])  # torch.save's form before 1.6 and since
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_wrappers_and_prefixes_are_taken_off(tmp_path, zipped, wrapper, prefix):
    tensors = {"conv.weight": torch.randn(2, 2), "conv.bias": torch.randn(2)}
    held = {prefix + name: tensor for name, tensor in tensors.items()}
    if wrapper:
        held = {wrapper: held, "epoch": 3, "optimizer": {"state": {0: torch.ones(2)}}}
    torch.save(held, tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
    found = weights.read_foreign(tmp_path / "net.pth")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_a_checksum_in_the_name_is_checked(tmp_path):
    plain = tmp_path / "resnet18.pth"
    torch.save({"a": torch.ones(2)}, plain)
    digest = hashlib.sha256(plain.read_bytes()).hexdigest()[:8]
    named = tmp_path / f"resnet18-{digest}.pth"
    named.write_bytes(plain.read_bytes())
    assert weights.read_foreign(named).keys() == {"a"}
    other = plain.rename(tmp_path / "resnet18-0badf00d.pth")
    said = (f"found SHA-256 {digest}…, expected 0badf00d… as in the name", "the download is damaged")
    assert_refused(lambda: weights.read_foreign(other), *said)


class Intruder:
    """Would make a directory on unpickling."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_pickled_code_is_refused_and_not_run(tmp_path):
    trace, path = tmp_path / "trace", tmp_path / "net.pth"
    torch.save({"a": torch.ones(2), "b": Intruder(trace)}, path)
    said = "found objects other than tensors, expected plain tensors as torch.save writes them; save its"
    assert_refused(lambda: weights.read_foreign(path), said)
    path.write_bytes(pickle.dumps(Intruder(trace), protocol=2))
    assert_refused(lambda: weights.read_foreign(path))
    assert not trace.exists()


def test_whole_pickled_networks_are_refused(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "net.pth")
    assert_refused(lambda: weights.read_foreign(tmp_path / "net.pth"), "save its state_dict() alone")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kept", [0, 100, -60])
def test_truncated_pickles_are_refused(tmp_path, zipped, kept):
    path = tmp_path / "net.pth"
    torch.save({"a": torch.ones(100)}, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[:kept])
    assert_refused(lambda: weights.read_foreign(path), "found an unreadable file (", "fetch or save it again")


def test_web_pages_saved_as_weights_are_refused(tmp_path):
    (tmp_path / "net.pth").write_text("<!DOCTYPE html><title>404</title>")
    assert_refused(lambda: weights.read_foreign(tmp_path / "net.pth"), "found an unreadable file (")


@pytest.mark.parametrize("held", [torch.ones(2), [1, 2], {"net": {"a": 1}}, {"state_dict": 3}, {}])
def test_files_without_named_tensors_are_refused(tmp_path, held):
    torch.save(held, tmp_path / "net.pth")
    assert_refused(lambda: weights.read_foreign(tmp_path / "net.pth"), "found no named tensors", "state_dict()")


# Into a network


@pytest.mark.parametrize("counters", [True, False])
def test_classification_files_fill_the_backbone(counters):
    source, network = resnet(seed=1), resnet(seed=2)
    head = network.classifier[4].weight.clone()
    tensors = classification(source)
    if not counters:
        tensors = {name: tensor for name, tensor in tensors.items() if "num_batches" not in name}
    match = weights.load_into(network, tensors, "resnet18.pth")
    assert same_backbone(network, source)
    assert torch.equal(network.classifier[4].weight, head)
    assert set(match.matched) == {"backbone." + name for name in tensors if not name.startswith("fc.")}
    assert match.unexpected == ("fc.weight", "fc.bias")
    assert match.mismatched == ()
    assert all(name.startswith("classifier.") for name in match.missing)
    assert match.report() == (
        f"{len(match.matched)} tensors loaded; 7 missing (classifier.0.weight, classifier.1.weight, "
        "classifier.1.bias, …); 2 unexpected (fc.weight, fc.bias); none mismatched"
    )


def test_a_mobilenet_classifier_is_not_taken_for_the_head():
    chosen = SimpleNamespace(architecture="mobilenet_v2_fcn", width=0.25, output_stride=16, dropout=0.5)
    network = nets.build(chosen, 2)
    tensors = {name: tensor + 1 for name, tensor in network.backbone.state_dict().items()}
    tensors |= {"features.18.0.weight": torch.ones(3), "classifier.1.weight": torch.ones(20)}
    before = network.classifier[1].weight.clone()  # 20 values as well, were it matched by name
    match = weights.load_into(network, tensors, "mobilenet_v2.pth")
    assert torch.equal(network.classifier[1].weight, before)
    assert match.unexpected == ("backbone.features.18.0.weight", "classifier.1.weight")


def test_our_own_files_fill_the_whole_network(tmp_path):
    source, network = resnet(seed=1), resnet(seed=2)
    weights.write(tmp_path / "net", source.state_dict(), {})
    match = weights.load_into(network, weights.read(tmp_path / "net")[0], "net")
    assert match.missing == match.unexpected == match.mismatched == ()
    assert same_backbone(network, source)
    assert torch.equal(network.classifier[4].weight, source.classifier[4].weight)


def test_a_head_for_other_classes_is_left_alone():
    source, network = resnet(classes=5, seed=1), resnet(classes=3, seed=2)
    last = network.classifier[4].weight.clone()
    match = weights.load_into(network, source.state_dict(), "net")
    assert match.mismatched == ("classifier.4.weight", "classifier.4.bias")
    assert torch.equal(network.classifier[4].weight, last)
    assert torch.equal(network.classifier[0].weight, source.classifier[0].weight)


@pytest.mark.parametrize(
    "other",
    [
        {"depth": 34},  # holds all that a ResNet-18 wants, and more
        {"depth": 50},
        {"width": 0.25},
    ],
)
@pytest.mark.parametrize("as_file", [classification, lambda network: network.state_dict()])
def test_the_wrong_architecture_is_refused(other, as_file):
    network = resnet()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    said = ("other.pth: found ", " backbone tensors that fit, of 100 in the network and ", "at least 90%")
    call = lambda: weights.load_into(network, as_file(resnet(seed=1, **other)), "other.pth")  # noqa: E731
    assert_refused(call, *said, "set architecture, depth and width as the file needs them; nothing was loaded")
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_least_is_a_share_of_the_backbone():
    network = resnet()
    tensors = list(classification(resnet(seed=1)).items())
    some = dict(tensor for tensor in tensors if "num_batches" not in tensor[0] and "fc" not in tensor[0])
    lacking = dict(list(some.items())[:90])
    assert len(weights.load_into(network, lacking, "net").matched) == 90
    lacking.popitem()
    assert_refused(lambda: weights.load_into(network, lacking, "net"), "found 89 backbone tensors")
    assert len(weights.load_into(network, lacking, "net", least=0.8).matched) == 89
