"""ResNet FCN: torchvision's names and counts, output sizes, dilation, width, refusals."""

from types import SimpleNamespace

import pytest
import torch

from pipeline import nets
from pipeline.core.errors import SettingsError

BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
# Parameters of torchvision's classifiers, with their fully connected layer for 1000 classes.
PUBLISHED = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032, 101: 44_549_160}


def settings(**changed):
    plain = {"depth": 18, "width": 1.0, "output_stride": 8, "stride_in_1x1": False, "dropout": 0.5}
    return SimpleNamespace(architecture="resnet_fcn", **(plain | changed))


def torchvision_names(depth):
    """Names of a classification file's tensors, fully connected layer left out."""
    blocks = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}[depth]
    names = {"conv1.weight"} | {f"bn1.{part}" for part in BATCH_NORM}
    for layer, count in enumerate(blocks, start=1):
        for block in range(count):
            stem = f"layer{layer}.{block}."
            for index in range(1, 3 if depth < 50 else 4):
                names |= {f"{stem}conv{index}.weight"} | {f"{stem}bn{index}.{part}" for part in BATCH_NORM}
        if layer > 1 or depth >= 50:
            shortcut = f"layer{layer}.0.downsample."
            names |= {f"{shortcut}0.weight"} | {f"{shortcut}1.{part}" for part in BATCH_NORM}
    return names


@pytest.mark.parametrize("depth", PUBLISHED)
def test_names_and_counts_are_torchvisions(depth):
    with torch.device("meta"):
        network = nets.build(settings(depth=depth), classes=21)
    assert set(network.backbone.state_dict()) == torchvision_names(depth)
    features = 512 if depth < 50 else 2048
    count = sum(parameter.numel() for parameter in network.backbone.parameters())
    assert count + (features + 1) * 1000 == PUBLISHED[depth]


@pytest.mark.parametrize("depth, features", [(18, 512), (50, 2048)])
def test_head_is_torchvisions(depth, features):
    with torch.device("meta"):
        head = nets.build(settings(depth=depth), classes=21).classifier.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in head.items() if tensor.ndim}
    inner = features // 4
    assert shapes.pop("0.weight") == (inner, features, 3, 3)
    assert (shapes.pop("4.weight"), shapes.pop("4.bias")) == ((21, inner, 1, 1), (21,))
    assert shapes == {f"1.{part}": (inner,) for part in BATCH_NORM[:4]}


@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize("depth, stride_in_1x1", [(18, False), (50, False), (50, True)])
def test_output_is_the_size_over_the_stride_rounded_up(depth, stride_in_1x1, output_stride):
    chosen = settings(depth=depth, width=0.125, output_stride=output_stride, stride_in_1x1=stride_in_1x1)
    network = nets.build(chosen, classes=3).eval()
    assert network.grid.stride == output_stride
    sizes = [*range(1, 70, 4), 127, 128, 129]
    with torch.no_grad():
        for height, width in zip(sizes, reversed(sizes), strict=True):
            logits = network(torch.zeros(1, 3, height, width))
            assert logits.shape == (1, 3, -(-height // output_stride), -(-width // output_stride))
            assert logits.dtype == torch.float32


@pytest.mark.parametrize("depth, stride_in_1x1", [(18, False), (50, False), (50, True)])
def test_dilation_keeps_every_entry_of_the_strided_network(depth, stride_in_1x1):
    torch.manual_seed(0)
    chosen = {"depth": depth, "width": 0.125, "stride_in_1x1": stride_in_1x1}
    strided = nets.build(settings(output_stride=32, **chosen), 2).double().eval()
    images = torch.randn(2, 3, 77, 101, dtype=torch.float64)
    with torch.no_grad():
        expected = strided.backbone(images)
        for output_stride in (8, 16):
            dilated = nets.build(settings(output_stride=output_stride, **chosen), 2).double().eval()
            dilated.load_state_dict(strided.state_dict())
            step = 32 // output_stride
            torch.testing.assert_close(dilated.backbone(images)[:, :, ::step, ::step], expected)


def test_the_place_of_the_stride_matters():
    torch.manual_seed(0)
    in_3x3 = nets.build(settings(depth=50, width=0.125), 2).eval()
    in_1x1 = nets.build(settings(depth=50, width=0.125, stride_in_1x1=True), 2).eval()
    in_1x1.load_state_dict(in_3x3.state_dict())
    images = torch.randn(1, 3, 65, 65)
    with torch.no_grad():
        assert not torch.allclose(in_3x3(images), in_1x1(images))


def test_width_scales_channels_to_multiples_of_eight():
    network = nets.build(settings(width=0.3), classes=2)
    sizes = [getattr(network.backbone, f"layer{index}")[-1].features for index in range(1, 5)]
    assert sizes == [16, 40, 80, 152]
    assert all(size % 8 == 0 for size in sizes)
    assert nets.build(settings(width=0.01), classes=2).backbone.features == 8


def test_gradients_reach_every_parameter():
    torch.manual_seed(0)
    network = nets.build(settings(depth=50, width=0.125), classes=4).train()
    network(torch.randn(2, 3, 33, 41)).square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
    assert all(parameter.grad.any() for name, parameter in network.named_parameters() if "conv" in name)


def test_fresh_networks_favour_no_class_and_repeat_with_the_seed():
    torch.manual_seed(0)
    first = nets.build(settings(width=0.25), classes=4)
    torch.manual_seed(0)
    second = nets.build(settings(width=0.25), classes=4).state_dict()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.state_dict().items())
    assert first.classifier[4].weight.std().item() == pytest.approx(0.01, rel=0.2)
    assert not first.classifier[4].bias.any()


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"depth": 20}, "depth: found 20, expected 18, 34, 50 or 101; choose one of these"),
        ({"output_stride": 4}, "output_stride: found 4, expected 8, 16 or 32; choose one of these"),
    ],
)
def test_settings_that_no_network_has_are_refused(changed, said):
    with pytest.raises(SettingsError) as caught:
        nets.build(settings(**changed), classes=2)
    assert str(caught.value) == said


def test_an_unknown_architecture_is_refused_with_the_nearest():
    with pytest.raises(SettingsError, match=r"expected a known architecture; did you mean 'resnet_fcn'\?$"):
        nets.build(SimpleNamespace(architecture="resnet_fnc"), classes=2)
