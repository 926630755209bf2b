"""Networks that work their parts out again in the backward pass: the same gradients, less kept."""

import pytest
import torch

from pipeline import nets
from pipeline.core.settings import Settings

NETWORKS = {
    "resnet_fcn": {"depth": 18, "output_stride": 16, "stride_in_1x1": False},
    "mobilenet_v2_fcn": {"output_stride": 16},
    "vgg16": {"batch_norm": False},
    "deeplab_vgg16": {"variant": "base", "multiscale": True},
    "difnet": {
        "depth": 18,
        "output_stride": 8,
        "stride_in_1x1": False,
        "head": "aspp",
        "walks": ["image", "layer1", "layer2", "layer3", "layer4"],
        "affinity": "product",
        "positions": 0,
        "feature_channels": 8,
        "feature_gain": 1.0,
    },
    "fcn_vgg16": {"variant": "8s", "padding": 0, "upsampling": "learned"},
}


def network(name):
    torch.manual_seed(7)
    chosen = {"architecture": name, "width": 0.125, "dropout": 0.5} | NETWORKS[name]
    made = nets.build(Settings(chosen), 3).train()
    for layer in made.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.eval()
    return made


@pytest.mark.parametrize("name", NETWORKS)
def test_recomputing_changes_no_gradient_and_keeps_less(name):
    images = torch.randn(2, 3, 65, 65, generator=torch.Generator().manual_seed(1))
    found, kept = [], []
    for recompute in (False, True):
        made = network(name)
        made.recompute = recompute
        held = {}

        def keep(tensor, held=held):
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        parameters = {parameter.untyped_storage().data_ptr() for parameter in made.parameters()}
        torch.manual_seed(3)  # of the dropout, the same in both passes
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            scores = made(images)
        scores.square().sum().backward()
        kept.append(sum(size for place, size in held.items() if place not in parameters))
        found.append([parameter.grad for parameter in made.parameters()])
    assert all(torch.equal(plain, again) for plain, again in zip(*found, strict=True))
    assert kept[1] < 0.6 * kept[0]
