"""DifNet: names, counts, sizes, the head, walks in any order and number, both branches from one file, refusals."""

import pytest
import torch

from pipeline import nets
from pipeline.core.errors import SettingsError
from pipeline.core.settings import Settings
from pipeline.formats import weights
from pipeline.nets import difnet

WALKS = ["image", "layer1", "layer2", "layer3", "layer4"]
PLAIN = {"architecture": "difnet", "depth": 18, "width": 0.125, "output_stride": 8, "stride_in_1x1": False}
PLAIN |= {
    "head": "aspp",
    "walks": WALKS,
    "affinity": "product",
    "positions": 0,
    "feature_channels": 64,
    "feature_gain": 1.0,
}


def network(classes=3, seed=0, **changed):
    torch.manual_seed(seed)
    return nets.build(Settings(PLAIN | changed), classes)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("output_stride", [8, 16])
def test_output_is_the_size_over_the_stride_rounded_up(output_stride):
    made = network(output_stride=output_stride).eval()
    with torch.no_grad():
        for height, width in ((1, 1), (1, 40), (33, 65), (64, 47)):
            found = made(torch.zeros(2, 3, height, width))
            assert found.shape == (2, 3, -(-height // output_stride), -(-width // output_stride))
            assert found.dtype == torch.float32


def test_sizes_of_the_paper():
    made = network(walks=[]).eval()
    with torch.no_grad():
        assert [made(torch.zeros(1, 3, size, size)).shape[2] for size in (321, 505)] == [41, 64]


def test_counts_of_parameters():
    """Of ResNet-18 and ASPP over 21 classes as published, and of what the diffusion adds."""
    with torch.device("meta"):
        whole, seed = (network(21, width=1.0, walks=walks) for walks in (WALKS, []))
    resnet = 11_689_512 - 513 * 1000
    assert count(seed) == resnet + 4 * (9 * 512 * 21 + 21)
    features = sum((width + 1) * 64 + 2 * 64 for width in (3, 64, 128, 256, 512))
    importance = 25 * (21 * 8 + 8 * 4 + 4 * 1) + 2 * (21 + 8 + 4)
    assert count(whole) - count(seed) == resnet + features + importance + 2 * 5


def test_the_head_sums_its_convolutions():
    aspp, single = (network(head=head).eval().classifier for head in ("aspp", "single"))
    assert [layer.dilation for layer in aspp] == [(6, 6), (12, 12), (18, 18), (24, 24)]
    assert [layer.kernel_size for layer in single] == [(1, 1)]
    features = torch.randn(1, 64, 5, 6)
    assert torch.equal(aspp(features), sum(layer(features) for layer in aspp))


def test_mixing_weights_start_at_a_half_and_learn():
    made = network()
    assert [each.tolist() for each in made.diffusion.mixing()] == [[0.5] * 5] * 2
    made(torch.randn(2, 3, 48, 48)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in made.parameters())
    gradients = made.diffusion.mu.grad, made.diffusion.beta.grad
    assert torch.allclose(gradients[0][0], gradients[1][0], rtol=1e-3)


def test_stages_that_no_walk_looks_at_are_not_there():
    made = network(walks=["image", "layer2"])
    assert {name.split(".")[2] for name in made.state_dict() if name.startswith("diffusion.similarity.layer")} == {
        "layer1",
        "layer2",
    }
    made(torch.randn(2, 3, 48, 48)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in made.parameters())
    donor = network(seed=1, walks=[])
    weights.load_into(made, donor.backbone.state_dict(), "resnet18.pth")
    assert torch.equal(made.diffusion.similarity.layer2[0].conv1.weight, donor.backbone.layer2[0].conv1.weight)


@pytest.mark.parametrize("walks", [["layer4"], ["layer4", "image", "layer4"], ["image", "layer2", "layer4"]])
def test_any_number_and_order_of_walks(walks):
    made = network(walks=walks).eval()
    images, scores = torch.randn(1, 3, 48, 40), torch.randn(1, 3, 6, 5)
    with torch.no_grad():
        states = made.diffusion.walked(images, scores).states
    assert len(states) == len(walks) + 1
    assert torch.equal(states[0], made.diffusion.importance(scores) * scores)


def test_the_importance_map_weighs_all_classes_alike():
    made = network().eval().diffusion
    scores = torch.randn(1, 3, 6, 5)
    with torch.no_grad():
        found = made.importance(scores)
    assert found.shape == (1, 1, 6, 5)
    assert found.min() > 0
    assert found.max() < 1


def test_mixed_precision_diffuses_in_float32():
    made = network(width=0.25).eval()
    images = torch.randn(1, 3, 48, 48)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert {state.dtype for state in made.walked(images).states} == {torch.float32}


def test_a_classifiers_file_starts_both_branches():
    donor, made = network(seed=1, walks=[]), network(seed=2)
    file = donor.backbone.state_dict() | {"fc.weight": torch.zeros(1000, 64)}
    match = weights.load_into(made, file, "resnet18.pth")
    assert match.unexpected == ("fc.weight",)
    for name, tensor in donor.backbone.state_dict().items():
        if not name.endswith(weights.COUNTER):
            assert torch.equal(made.backbone.state_dict()[name], tensor)
            assert torch.equal(made.diffusion.similarity.state_dict()[name], tensor)


def test_a_whole_file_keeps_its_own_branches():
    donor, made = network(seed=1), network(seed=2)
    weights.load_into(made, donor.state_dict(), "difnet.safetensors")
    assert all(torch.equal(made.state_dict()[name], tensor) for name, tensor in donor.state_dict().items())


def test_unknown_settings_are_refused():
    for changed, message in (
        ({"head": "deep"}, "head: found 'deep', expected aspp or single; choose one of these"),
        ({"depth": 20}, "depth: found 20, expected 18, 34, 50 or 101; choose one of these"),
        (
            {"walks": ["image", "layer5"]},
            "walks: found 'layer5', expected of image, layer1, layer2, layer3, layer4; walk on one of these",
        ),
    ):
        with pytest.raises(SettingsError) as caught:
            network(**changed)
        assert str(caught.value) == message


def test_seeds_may_have_a_stride_of_their_own():
    made = network().eval().diffusion
    with torch.no_grad():
        for size in ((12, 10), (3, 2), (48, 40)):
            assert made(torch.zeros(1, 3, 48, 40), torch.zeros(1, 3, *size)).shape == (1, 3, *size)


def test_walks_over_the_image_alone_have_no_branch():
    made = network(walks=["image", "image"], positions=60).eval()
    assert made.diffusion.similarity is None
    assert weights.load_into(made, network(seed=1, walks=[]).state_dict(), "seed.safetensors").missing
    with torch.no_grad():
        assert made(torch.randn(1, 3, 40, 48)).shape == (1, 3, 5, 6)


def test_positions_stand_behind_the_colours():
    found = difnet.with_positions(torch.zeros(2, 3, 4, 6), 2)
    assert found.shape == (2, 5, 4, 6)
    assert found[1, 3, :, 0].tolist() == [0, 0.5, 1, 1.5]
    assert found[1, 4, 0].tolist() == [0, 0.5, 1, 1.5, 2, 2.5]


def test_levels_are_the_outputs_of_the_four_stages():
    made = network().eval().backbone
    images = torch.randn(1, 3, 40, 48)
    with torch.no_grad():
        levels = made.levels(images)
        assert torch.equal(levels[-1], made(images))
    assert [tuple(level.shape[1:]) for level in levels] == [
        (width, size, size * 6 // 5) for width, size in zip(made.widths, (10, 5, 5, 5), strict=True)
    ]
    assert made.widths == [8, 16, 32, 64]
    assert difnet.LEVELS == ("image", "layer1", "layer2", "layer3", "layer4")
