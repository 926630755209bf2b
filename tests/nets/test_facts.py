"""What a table tells of a network: multiply-adds against a count by hand."""

import pytest
import torch

from pipeline import nets
from pipeline.core.settings import Settings

PLAIN = {"depth": 18, "width": 0.125, "output_stride": 8, "stride_in_1x1": False}
DIFNET = PLAIN | {"architecture": "difnet", "head": "aspp", "feature_channels": 16, "feature_gain": 1.0}
WALKS = ["image", "layer2", "layer4"]


def counted(settings, classes):
    """Count the multiply-adds of all convolutions from the shapes that pass through them."""
    network, found = nets.build(Settings(settings), classes).eval(), []

    def count(layer, given, made):
        found.append(made.numel() * layer.weight[0].numel())

    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(count)
    with torch.no_grad():
        network(torch.zeros(1, 3, nets.COUNTED_AT, nets.COUNTED_AT))
    return sum(found)


@pytest.mark.parametrize("affinity", ["product", "distance"])
def test_multiply_adds_of_convolutions_and_walks(affinity):
    settings = DIFNET | {"walks": WALKS, "affinity": affinity, "positions": 0}
    # Each walk has N² pairs of positions of 64 × 64; keys and values are padded to 24 channels for 17 of them.
    walks = len(WALKS) * 64**4 * 2 * 24
    told = nets.facts(Settings(settings), 17)
    assert told[nets.MULTIPLY_ADDS] == round((counted(settings, 17) + walks) / 1e9, 1)


def test_a_network_without_walks_is_its_convolutions():
    settings = PLAIN | {"architecture": "resnet_fcn", "dropout": 0.5}
    told = nets.facts(Settings(settings), 21)
    assert told[nets.MULTIPLY_ADDS] == round(counted(settings, 21) / 1e9, 1)
