"""MobileNetV2 FCN: torchvision's names and count, output sizes, dilation, width."""

from types import SimpleNamespace

import pytest
import torch

from pipeline import nets
from pipeline.core.errors import SettingsError

BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def settings(**changed):
    plain = {"width": 1.0, "output_stride": 8, "dropout": 0.5}
    return SimpleNamespace(architecture="mobilenet_v2_fcn", **(plain | changed))


def torchvision_names():
    """Names of a classification file's tensors up to the last bottleneck."""
    pairs = [("features.0.0", "features.0.1"), ("features.1.conv.0.0", "features.1.conv.0.1")]
    pairs.append(("features.1.conv.1", "features.1.conv.2"))
    for index in range(2, 18):
        stem = f"features.{index}.conv."
        pairs += [(f"{stem}{pair[0]}", f"{stem}{pair[1]}") for pair in (("0.0", "0.1"), ("1.0", "1.1"), "23")]
    return {f"{conv}.weight" for conv, _ in pairs} | {f"{norm}.{part}" for _, norm in pairs for part in BATCH_NORM}


def test_names_and_count_are_torchvisions():
    with torch.device("meta"):
        network = nets.build(settings(), classes=21)
    assert set(network.backbone.state_dict()) == torchvision_names()
    count = sum(parameter.numel() for parameter in network.backbone.parameters())
    last = 320 * 1280 + 2 * 1280  # features.18, which the network leaves out
    assert count + last + (1280 + 1) * 1000 == 3_504_872  # torchvision's classifier for 1000 classes


def test_head_stands_on_the_last_bottleneck():
    with torch.device("meta"):
        head = nets.build(settings(), classes=21).classifier
    assert head[0].weight.shape == (80, 320, 3, 3)
    assert head[4].weight.shape == (21, 80, 1, 1)


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_output_is_the_size_over_the_stride_rounded_up(output_stride):
    network = nets.build(settings(width=0.25, output_stride=output_stride), classes=3).eval()
    assert network.grid.stride == output_stride
    sizes = [*range(1, 70, 4), 127, 128, 129]
    with torch.no_grad():
        for height, width in zip(sizes, reversed(sizes), strict=True):
            logits = network(torch.zeros(1, 3, height, width))
            assert logits.shape == (1, 3, -(-height // output_stride), -(-width // output_stride))
            assert logits.dtype == torch.float32


def test_dilation_keeps_every_entry_of_the_strided_network():
    torch.manual_seed(0)
    strided = nets.build(settings(width=0.25, output_stride=32), 2).double()
    images = torch.randn(2, 3, 77, 101, dtype=torch.float64)
    with torch.no_grad():
        strided.train()(images)  # so that the running statistics keep the features well above zero
        expected = strided.eval().backbone(images)
        for output_stride in (8, 16):
            dilated = nets.build(settings(width=0.25, output_stride=output_stride), 2).double().eval()
            dilated.load_state_dict(strided.state_dict())
            step = 32 // output_stride
            found = dilated.backbone(images)[:, :, ::step, ::step]
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12 * expected.abs().max().item())


def test_width_scales_channels_to_multiples_of_eight():
    backbone = nets.build(settings(width=0.5), classes=2).backbone
    sizes = [backbone.features[index].conv[-1].num_features for index in (1, 3, 6, 10, 13, 16, 17)]
    assert sizes == [8, 16, 16, 32, 48, 80, 160]


def test_gradients_reach_every_parameter():
    torch.manual_seed(0)
    network = nets.build(settings(width=0.25), classes=4).train()
    network(torch.randn(2, 3, 33, 41)).square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
    assert all(parameter.grad.any() for parameter in network.parameters() if parameter.ndim == 4)


def test_an_output_stride_no_network_has_is_refused():
    with pytest.raises(SettingsError) as caught:
        nets.build(settings(output_stride=4), classes=2)
    assert str(caught.value) == "output_stride: found 4, expected 8, 16 or 32; choose one of these"
