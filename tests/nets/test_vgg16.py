"""VGG-16 and DeepLab: torchvision's names, Table 2 of arXiv:1412.7062, what the holes keep, decimation, MSc."""

from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from pipeline import nets
from pipeline.core.errors import DataError, SettingsError
from pipeline.formats import weights
from pipeline.nets import deeplab_vgg16, vgg16
from pipeline.nets.vgg16 import NAMES

CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
CHANNELS = (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
VARIANTS = tuple(deeplab_vgg16.VARIANTS)
# Table 2: field of view in px, parameters in millions with 21 classes.
TABLE_2 = {"base": (128, 65.1), "4x4": (224, 65.1), "7x7": (224, 134.3), "largefov": (224, 20.5)}


def vgg(width=0.125, classes=3, batch_norm=False):
    return nets.build(SimpleNamespace(architecture="vgg16", width=width, dropout=0.5, batch_norm=batch_norm), classes)


def deeplab(variant="largefov", multiscale=False, width=0.125, classes=3, dropout=0.5):
    chosen = {"variant": variant, "multiscale": multiscale, "width": width, "dropout": dropout}
    return nets.build(SimpleNamespace(architecture="deeplab_vgg16", **chosen), classes)


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def torchvision_file(inner=4096, width=1.0):
    """A classification file's names and shapes; the values are meaningless, but all different along every axis."""
    channels = [3] + [nets.channels(standard, width) for standard in CHANNELS[1:]]
    shapes = {}
    for place, (arriving, leaving) in zip(CONVOLUTIONS, pairwise(channels), strict=True):
        shapes[f"features.{place}"] = (leaving, arriving, 3, 3)
    shapes |= {"classifier.0": (inner, channels[-1] * 49), "classifier.3": (inner, inner), "classifier.6": (10, inner)}
    tensors = {}
    for name, shape in shapes.items():
        tensors[f"{name}.weight"] = torch.arange(torch.Size(shape).numel(), dtype=torch.float32).view(shape)
        tensors[f"{name}.bias"] = torch.arange(shape[0], dtype=torch.float32)
    return tensors


def test_names_shapes_and_count_are_torchvisions():
    with torch.device("meta"):
        network = vgg(width=1.0, classes=1000)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.backbone.state_dict().items()}
    expected = {}
    for place, arriving, leaving in zip(CONVOLUTIONS, CHANNELS, CHANNELS[1:], strict=False):
        expected |= {f"features.{place}.weight": (leaving, arriving, 3, 3), f"features.{place}.bias": (leaving,)}
    assert shapes == expected
    assert parameters(network) == 138_357_544  # torchvision's vgg16


@pytest.mark.parametrize("variant", VARIANTS)
def test_table_2(variant):
    with torch.device("meta"):
        network = deeplab(variant, width=1.0, classes=21)
    field, millions = TABLE_2[variant]
    assert deeplab_vgg16.field_of_view(variant) == field
    assert round(parameters(network) / 1e6, 1) == millions
    kernel, _, fewer = deeplab_vgg16.VARIANTS[variant]
    inner, convolutions = 4096 // fewer, 14_714_688
    assert parameters(network) == convolutions + (512 * kernel**2 + 1 + inner + 1) * inner + (inner + 1) * 21


def test_facts_are_the_columns_of_table_2():
    chosen = {"variant": "largefov", "multiscale": False, "width": 1.0, "dropout": 0.5}
    told = nets.facts(SimpleNamespace(architecture="deeplab_vgg16", **chosen), 21)
    assert told.pop(nets.MULTIPLY_ADDS) > 0
    assert told == {
        "architecture": "deeplab_vgg16", "parameters": 20_505_429, "stride, px": 8,
        "fc6": "3 × 3", "hole": 12, "field of view, px": 224,
    }  # fmt: skip
    told = nets.facts(SimpleNamespace(architecture="vgg16", width=1.0, dropout=0.5, batch_norm=False), 1000)
    assert told.pop(nets.MULTIPLY_ADDS) > 0
    assert told == {"architecture": "vgg16", "parameters": 138_357_544, "stride, px": 32}


@pytest.mark.parametrize("variant", VARIANTS)
def test_multi_scale_features_add_640_channels(variant):
    with torch.device("meta"):
        with_them, without = (deeplab(variant, several, width=1.0, classes=21) for several in (True, False))
    added = with_them.classifier[0].in_channels - without.classifier[0].in_channels
    assert added == 5 * 128
    branches = sum(9 * arriving * 128 + 128 + 128 * 128 + 128 for arriving in (3, 64, 128, 256, 512))
    assert parameters(with_them) - parameters(without) == branches + 21 * 640


@pytest.mark.parametrize("multiscale", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_output_is_the_size_over_8_rounded_up(variant, multiscale):
    network = deeplab(variant, multiscale).eval()
    for size in ((1, 2), (8, 9), (16, 17), (18, 19), (31, 33), (64, 41)):
        with torch.inference_mode():
            logits = network(torch.rand(2, 3, *size))
        assert logits.shape == (2, 3, *(-(-side // 8) for side in size))


@pytest.mark.parametrize(("variant", "crop", "entries"), [("base", 306, 39), ("base", 514, 65), ("largefov", 321, 41)])
def test_output_of_the_paper_s_crops(variant, crop, entries):
    with torch.inference_mode():
        assert deeplab(variant).eval()(torch.rand(1, 3, crop, 10)).shape[2] == entries


def seen(network, size, entry):
    """Return first and last column that one entry of the output rests on."""
    # Positive weights, and means in place of maxima: whatever is seen has a gradient.
    for parameter in network.parameters():
        parameter.data = parameter.data.abs() + 1e-3 if parameter.ndim > 1 else torch.zeros_like(parameter)
    for layers in [module for module in network.modules() if isinstance(module, torch.nn.Sequential)]:
        for place, layer in enumerate(layers):
            if isinstance(layer, torch.nn.MaxPool2d):
                mean = torch.nn.AvgPool2d(layer.kernel_size, layer.stride, layer.padding, ceil_mode=layer.ceil_mode)
                layers[place] = mean
    image = torch.rand(1, 3, 130, size, dtype=torch.float64, requires_grad=True)
    network.double().eval()(image)[0, :, 8, entry].sum().backward()
    columns = image.grad.abs().sum(dim=(0, 1, 2)).nonzero().flatten()
    return int(columns[0]), int(columns[-1])


@pytest.mark.parametrize(("variant", "pixels"), [("base", 308), ("4x4", 404), ("7x7", 404)])
def test_receptive_field(variant, pixels):
    """Section 3.2: 308 px instead of VGG-16's 404, applied convolutionally."""
    size, entry = 8 * 80 + 2, 40
    first, last = seen(deeplab(variant), size, entry)
    assert last - first + 1 == pixels
    # Around the pixel 8 n + ½.
    assert (first + last) / 2 == 8 * entry + 0.5


def test_receptive_field_of_large_fov_lies_on_its_pixel():
    first, last = seen(deeplab("largefov"), 8 * 100 + 1, 50)
    assert (first + last) / 2 == 8 * 50


def test_the_hole_algorithm_keeps_every_entry_of_the_strided_network():
    """Section 3.1: without any approximation; here up to the last convolution, as the pools behind it differ."""
    holes, strided = (deeplab("7x7").double().eval() for _ in range(2))
    strided.load_state_dict(holes.state_dict())
    layers = strided.backbone.features
    layers[23].stride = 2
    for place in (24, 26, 28):
        layers[place].dilation = layers[place].padding = (1, 1)
    images = torch.rand(1, 3, 8 * 50 + 2, 8 * 48 + 2, dtype=torch.float64)
    with torch.inference_mode():
        dense, coarse = (network.backbone.features[:30](images) for network in (holes, strided))
    assert coarse.shape[2:] == dense[..., ::2, ::2].shape[2:]
    # At the edge the padding of the two stands for other pixels.
    inner = (..., slice(4, -4), slice(4, -4))
    assert torch.allclose(dense[..., ::2, ::2][inner], coarse[inner], rtol=0, atol=1e-9)


def test_decimation_takes_positions_and_channels():
    """fc6 and fc7 of a made-up classifier, 4,096 × 512 × 7 × 7 in small: which value stands where is known exactly."""
    network = deeplab("largefov", width=0.125)
    inner = 512
    tensors = torchvision_file(inner, 0.125)
    weights.load_into(network, tensors, "made-up")
    whole = tensors["classifier.0.weight"].view(inner, -1, 7, 7)
    # 1,024 of 4,096 channels: every fourth; 3 × 3 of 7 × 7: the first, the middle and the last.
    assert torch.equal(network.fc6.weight.data, whole[::4][..., ::3, ::3])
    assert torch.equal(network.fc6.bias.data, tensors["classifier.0.bias"][::4])
    # What fc6 gives is what fc7 takes.
    assert torch.equal(network.fc7.weight.data[..., 0, 0], tensors["classifier.3.weight"][::4, ::4])
    assert torch.equal(network.fc7.bias.data, tensors["classifier.3.bias"][::4])


@pytest.mark.parametrize(
    ("variant", "places"), [("base", [0, 2, 4, 6]), ("4x4", [0, 2, 4, 6]), ("7x7", list(range(7)))]
)
def test_decimation_of_the_kernel_alone(variant, places):
    network, tensors = deeplab(variant, width=0.125), torchvision_file(512, 0.125)
    match = weights.load_into(network, tensors, "made-up")
    whole = tensors["classifier.0.weight"].view(512, -1, 7, 7)
    assert torch.equal(network.fc6.weight.data, whole[..., places, :][..., places])
    assert torch.equal(network.fc7.weight.data[..., 0, 0], tensors["classifier.3.weight"])
    assert match.missing == ("classifier.0.weight", "classifier.0.bias")
    assert match.unexpected == ("classifier.6.weight", "classifier.6.bias")
    assert match.mismatched == ()


def test_a_deeplab_starts_from_a_vgg16_of_ours():
    source, network = vgg(), deeplab("base")
    match = weights.load_into(network, source.state_dict(), "ours")
    assert torch.equal(network.fc6.weight, source.fc6.weight[..., ::2, ::2])
    # The classifier is one for every pixel in both: it comes along.
    assert torch.equal(network.classifier[0].weight, source.classifier[0].weight)
    assert (match.missing, match.unexpected, match.mismatched) == ((), (), ())


def test_names_with_batch_normalisation_are_torchvisions():
    with torch.device("meta"):
        names = set(vgg(batch_norm=True).backbone.state_dict())
    convolutions = (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40)
    parts = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    expected = {f"features.{place}.{part}" for place in convolutions for part in parts[:2]}
    assert names == expected | {f"features.{place + 1}.{part}" for place in convolutions for part in parts}


def test_batch_normalisation_is_folded():
    source, network = vgg(batch_norm=True).double(), vgg().double()
    for module in source.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean):
                tensor.uniform_(-1, 1)
            module.running_var.uniform_(0.1, 3)
        if isinstance(module, torch.nn.Conv2d):
            module.bias.data.uniform_(-1, 1)
    match = weights.load_into(network, source.state_dict(), "ours")
    assert (match.missing, match.unexpected, match.mismatched) == ((), (), ())
    images = torch.rand(2, 3, 40, 50, dtype=torch.float64)
    with torch.inference_mode():
        found, expected = network.eval()(images), source.eval()(images)
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-9)
    # A network that has it takes it as it is.
    other = vgg(batch_norm=True).double()
    weights.load_into(other, source.state_dict(), "ours")
    assert torch.equal(other.backbone.features[1].running_mean, source.backbone.features[1].running_mean)


def test_multi_scale_starts_from_the_single_scale_network():
    source, network = deeplab("base"), deeplab("base", multiscale=True)
    match = weights.load_into(network, source.state_dict(), "ours")
    assert torch.equal(network.fc7.weight, source.fc7.weight)
    assert match.mismatched == ("classifier.0.weight",)
    assert all(name.startswith("multiscale.") for name in match.missing)


def test_caffe_s_names_are_known():
    tensors = {name.removeprefix("backbone."): tensor for name, tensor in torchvision_file(512, 0.125).items()}
    back = {ours.removeprefix("backbone."): theirs.removeprefix("backbone.") for theirs, ours in NAMES.items()}
    fully = {"classifier.0": "fc6", "classifier.3": "fc7", "classifier.6": "fc8"}
    caffe = {}
    for name, tensor in tensors.items():
        stem, kind = name.rsplit(".", 1)
        caffe[f"{fully[stem]}.{kind}" if stem in fully else back[name]] = tensor
    assert {"conv1_1.weight", "conv5_3.bias", "fc6.weight"} < set(caffe)
    one, other = deeplab(), deeplab()
    other.load_state_dict(one.state_dict())
    weights.load_into(one, tensors, "torchvision's")
    match = weights.load_into(other, caffe, "Caffe's")
    assert match.unexpected == ("fc8.weight", "fc8.bias")
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


def test_convolutions_alone_are_a_start():
    tensors = {name: t for name, t in torchvision_file(512, 0.125).items() if name.startswith("features.")}
    match = weights.load_into(deeplab(), tensors, "features")
    assert len(match.matched) == 26
    assert [name for name in match.missing if name.startswith("fc")] == [
        "fc6.weight", "fc6.bias", "fc7.weight", "fc7.bias",
    ]  # fmt: skip


def test_another_architecture_is_refused():
    resnet = SimpleNamespace(
        architecture="resnet_fcn", depth=18, width=0.125, output_stride=8, stride_in_1x1=False, dropout=0.5
    )
    tensors = nets.build(resnet, 3).state_dict()
    with pytest.raises(DataError, match=r"found 0 backbone tensors that fit, of 26 in the network and 100 in the file"):
        weights.load_into(deeplab(), tensors, "resnet.pth")


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize(("batch", "height", "width"), [(1, 7, 7), (2, 8, 11), (3, 20, 20)])
def test_the_product_of_a_fully_connected_layer_is_a_convolution(batch, height, width, padding):
    """Of few points, which are multiplied, and of more points than channels, which are not."""
    torch.manual_seed(0)
    layer = vgg16.FullyConnected(5, 48, 7, padding=padding).double()
    x = torch.randn(batch, 5, height, width, dtype=torch.float64, requires_grad=True)
    found, expected = layer(x), functional.conv2d(x, layer.weight, layer.bias, padding=padding)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)
    sent, inputs = torch.randn_like(found), (x, layer.weight, layer.bias)
    for one, other in zip(
        torch.autograd.grad(found, inputs, sent), torch.autograd.grad(expected, inputs, sent), strict=True
    ):
        assert torch.allclose(one, other, rtol=0, atol=1e-11)


def test_an_unknown_variant_is_refused():
    with pytest.raises(SettingsError, match="did you mean 'largefov'"):
        deeplab("largefow")
