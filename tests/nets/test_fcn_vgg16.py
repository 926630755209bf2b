"""FCN-32s, 16s and 8s: the published networks to the pixel, sizes, counts, starts and names of weight files."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from pipeline import nets
from pipeline.core.errors import SettingsError
from pipeline.core.grids import Grid
from pipeline.formats import weights
from pipeline.nets.vgg16 import NAMES

STRIDES = {"32s": 32, "16s": 16, "8s": 8}
STAGES = (2, 2, 3, 3, 3)  # convolutions before each pool
CONVOLUTIONS = 14_714_688
FULLY_CONNECTED = 102_764_544 + 16_781_312
# Score layers with 21 classes: 4,096, 512 and 256 channels and a bias.
SCORES = {"32s": 4097 * 21, "16s": (4097 + 513) * 21, "8s": (4097 + 513 + 257) * 21}
# Deconvolutions between 21 classes; only the first has a bias.
LEARNED = {"32s": 0, "16s": 21 * 21 * 16 + 21, "8s": 2 * 21 * 21 * 16 + 21}
ORIGINS = {"32s": 12.5, "16s": -11.5, "8s": -7.5}  # with padding
# Every remainder by 32, one after the other long and broad, 64 to 512 px.
SIZES = tuple((64 + 13 * step, 64 + 11 * step % 32)[:: 1 - 2 * (step % 2)] for step in range(32))


def settings(variant="8s", **changed):
    plain = {"variant": variant, "width": 0.01, "dropout": 0.5, "padding": 0, "upsampling": "fixed"}
    return SimpleNamespace(architecture="fcn_vgg16", **(plain | changed))


def fcn(variant="8s", classes=3, **changed):
    return nets.build(settings(variant, **changed), classes)


def vgg(batch_norm=False, classes=3):
    chosen = {"width": 0.01, "dropout": 0.5, "batch_norm": batch_norm}
    return nets.build(SimpleNamespace(architecture="vgg16", **chosen), classes)


def shaken(network):
    """Move every parameter, so that no score, bias or deconvolution is special."""
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator).to(parameter)
    return network.double().eval()


def bilinear(kernel, classes):
    """Caffe's filler of a deconvolution: (C C kernel kernel), every class to itself."""
    ramp = 1 - (torch.arange(kernel, dtype=torch.float64) - (kernel - 1) / 2).abs() / (kernel / 2)
    return torch.eye(classes, dtype=torch.float64).view(classes, classes, 1, 1) * ramp.view(-1, 1) * ramp


def literal(network, images):
    """Return what the published network gives at the images' size: its layers in its order, with its pads and crops."""
    layers = iter(layer for layer in network.backbone.features if isinstance(layer, torch.nn.Conv2d))
    x, pools = images, []
    for stage, count in enumerate(STAGES):
        for number in range(count):
            layer = next(layers)
            padding = 100 if (stage, number) == (0, 0) else 1
            x = functional.conv2d(x, layer.weight, layer.bias, padding=padding).relu()
        x = functional.max_pool2d(x, 2, 2, ceil_mode=True)
        pools.append(x)
    for layer in (network.fc6, network.fc7):
        x = functional.conv2d(x, layer.weight, layer.bias).relu()
    scores, stride = network.classifier.score_fr(x), STRIDES[network.variant]
    skips = (("upscore2", "score_pool4", pools[3], 5), ("upscore_pool4", "score_pool3", pools[2], 9))
    for deconvolution, score, pool, crop in skips[: len(network.upsampling)]:
        learned = dict(network.upsampling[deconvolution].named_parameters())
        kernel = learned.get("weight", bilinear(4, scores.shape[1]))
        scores = functional.conv_transpose2d(scores, kernel, learned.get("bias"), stride=2)
        rows, cols = (slice(crop, crop + size) for size in scores.shape[2:])
        scores = scores + network.classifier[score](pool)[..., rows, cols]
    scores = functional.conv_transpose2d(scores, bilinear(2 * stride, scores.shape[1]), stride=stride)
    crop = {"32s": 19, "16s": 27, "8s": 31}[network.variant]
    rows, cols = (slice(crop, crop + size) for size in images.shape[2:])
    return scores[..., rows, cols]


def fade(size, count):
    """Return how much of FCN-32s' outermost entry is left at each pixel beyond it, 1 elsewhere."""
    pixels, last = torch.arange(size, dtype=torch.float64), 32 * (count - 1) + 12.5
    return 1 - torch.maximum(12.5 - pixels, pixels - last).clamp_min(0) / 32


@pytest.mark.parametrize(
    ("variant", "upsampling", "sizes"),
    [
        *((variant, "fixed", SIZES) for variant in STRIDES),
        ("16s", "learned", SIZES[::8]),
        ("8s", "learned", SIZES[::8]),
    ],
)
def test_the_published_network_is_met_at_every_pixel(variant, upsampling, sizes):
    torch.manual_seed(0)
    network = shaken(fcn(variant, padding=100, upsampling=upsampling))
    for height, width in (*sizes, (512, 64)):
        images = torch.randn(1, 3, height, width, dtype=torch.float64)
        with torch.inference_mode():
            logits, expected = network(images), literal(network, images)
        found = network.grid.resize(logits, height, width)
        assert found.shape == expected.shape == (1, 3, height, width)
        if variant == "32s":
            assert torch.equal(found.argmax(dim=1), expected.argmax(dim=1))
            rows, cols = (fade(size, count) for size, count in zip((height, width), logits.shape[2:], strict=True))
            found = found * rows.view(-1, 1) * cols
        # Roundings of float64, some ten thousand terms deep.
        assert (found - expected).abs().max() <= 1e-11 * expected.abs().max()


@pytest.mark.parametrize("variant", STRIDES)
def test_padded_entries_reach_over_the_image_and_no_farther(variant):
    with torch.device("meta"):
        network = fcn(variant, padding=100).eval()
    grid = network.grid
    assert grid == Grid("points", STRIDES[variant], ORIGINS[variant])
    for size in [*range(1, 130), *range(130, 513, 3)]:
        counts = network(torch.empty(1, 3, size, 513 - size, device="meta")).shape[2:]
        for pixels, count in zip((size, 513 - size), counts, strict=True):
            assert count >= -(-pixels // grid.stride)
            last = grid.origin + (count - 1) * grid.stride
            # None is left out between the last one needed and the one before it.
            assert count == 1 or last - grid.stride < pixels - 1
            assert last >= pixels - 1 - (12.5 if variant == "32s" else 0)


@pytest.mark.parametrize("variant", STRIDES)
def test_output_without_padding_is_the_size_over_the_stride_rounded_up(variant):
    with torch.device("meta"):
        network = fcn(variant).eval()
    stride = STRIDES[variant]
    assert network.grid == Grid("cells", stride)
    for size in [*range(1, 130), 255, 256, 257, 500]:
        logits = network(torch.empty(2, 3, size, 501 - size, device="meta"))
        assert logits.shape == (2, 3, -(-size // stride), -(-(501 - size) // stride))


@pytest.mark.parametrize("padding", [0, 100])
@pytest.mark.parametrize("variant", STRIDES)
def test_a_single_pixel_has_an_answer_at_its_size(variant, padding):
    network = fcn(variant, padding=padding).eval()
    with torch.inference_mode():
        logits = network(torch.rand(1, 3, 1, 1))
    assert logits.dtype == torch.float32
    assert network.grid.resize(logits, 1, 1).shape == (1, 3, 1, 1)


@pytest.mark.parametrize("upsampling", ["fixed", "learned"])
@pytest.mark.parametrize("variant", STRIDES)
def test_parameters(variant, upsampling):
    told = nets.facts(settings(variant, width=1.0, padding=100, upsampling=upsampling), 21)
    learned = LEARNED[variant] if upsampling == "learned" else 0
    assert told.pop(nets.MULTIPLY_ADDS) > 0
    assert told == {
        "architecture": "fcn_vgg16",
        "parameters": CONVOLUTIONS + FULLY_CONNECTED + SCORES[variant] + learned,
        "stride, px": STRIDES[variant],
        "variant": variant,
        "padding, px": 100,
    }


@pytest.mark.parametrize("padding", [0, 100])
@pytest.mark.parametrize("upsampling", ["fixed", "learned"])
@pytest.mark.parametrize("variant", STRIDES)
def test_gradients_reach_every_parameter(variant, upsampling, padding):
    torch.manual_seed(0)
    network = fcn(variant, width=0.05, padding=padding, upsampling=upsampling, dropout=0)
    network(torch.randn(2, 3, 70, 90)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.any(), name


def test_fixed_deconvolutions_have_no_parameters_and_are_bilinear():
    network = fcn("8s", classes=5).double()
    assert not list(network.upsampling.parameters())
    assert not any(name.startswith("upsampling") for name in network.state_dict())
    learned = fcn("8s", classes=5, upsampling="learned").double()
    assert {name for name in learned.state_dict() if name.startswith("upsampling")} == {
        "upsampling.upscore2.weight", "upsampling.upscore2.bias", "upsampling.upscore_pool4.weight",
    }  # fmt: skip
    scores = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    expected = functional.interpolate(scores, scale_factor=2, mode="bilinear", align_corners=False)
    for deconvolution in ("upscore2", "upscore_pool4"):
        for chosen in (network, learned):
            assert torch.allclose(chosen.upsampling[deconvolution](scores), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("upsampling", ["fixed", "learned"])
@pytest.mark.parametrize(("coarser", "finer"), [("32s", "16s"), ("16s", "8s")])
def test_a_finer_network_starts_with_the_answers_of_the_coarser_one(coarser, finer, upsampling):
    torch.manual_seed(0)
    source = shaken(fcn(coarser, upsampling=upsampling))
    network = fcn(finer, upsampling=upsampling).double().eval()
    match = weights.load_into(network, source.state_dict(), "ours")
    assert torch.equal(network.classifier.score_fr.weight, source.classifier.score_fr.weight)
    pool, deconvolution = {"16s": ("pool4", "upscore2"), "8s": ("pool3", "upscore_pool4")}[finer]
    missing = [f"classifier.score_{pool}.weight", f"classifier.score_{pool}.bias"]
    own = dict(network.upsampling[deconvolution].named_parameters())
    assert match.missing == (*missing, *(f"upsampling.{deconvolution}.{name}" for name in own))
    assert (match.unexpected, match.mismatched) == ((), ())
    assert f"{len(match.missing)} missing (classifier.score_{pool}.weight" in match.report()
    for size in ((64, 96), (50, 77)):
        images = torch.randn(1, 3, *size, dtype=torch.float64)
        with torch.inference_mode():
            answer, found = source(images), network(images)
        twice = functional.interpolate(answer, scale_factor=2, mode="bilinear", align_corners=False)
        assert torch.allclose(found, twice[..., : found.shape[2], : found.shape[3]], rtol=0, atol=1e-12)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_fcn_32s_starts_as_the_classifier_of_ours(batch_norm):
    torch.manual_seed(0)
    source, network = shaken(vgg(batch_norm)), fcn("32s").double().eval()
    match = weights.load_into(network, source.state_dict(), "ours")
    assert (match.missing, match.unexpected, match.mismatched) == ((), (), ())
    images = torch.randn(2, 3, 70, 90, dtype=torch.float64)
    with torch.inference_mode():
        found, expected = network(images), source(images)
    assert (found - expected).abs().max() <= 1e-11 * expected.abs().max()


def test_scores_of_other_classes_are_left_alone():
    network = fcn("16s", classes=4)
    before = network.classifier.score_fr.weight.clone()
    for source in (fcn("32s"), vgg()):
        match = weights.load_into(network, source.state_dict(), "ours")
        assert match.mismatched == ("classifier.score_fr.weight", "classifier.score_fr.bias")
    assert torch.equal(network.classifier.score_fr.weight, before)


def of_caffe(network):
    """Return a network's tensors under Caffe's names."""
    back = {ours: theirs.removeprefix("backbone.") for theirs, ours in NAMES.items()}  # the last ones: conv1_1 … fc7
    return {
        back.get(name, name.removeprefix("classifier.").removeprefix("upsampling.")): tensor.clone()
        for name, tensor in network.state_dict().items()
    }


def of_torchvision(network):
    """Return a classifier's tensors under torchvision's names, its fully connected layers as matrices."""
    tensors = {"classifier.6.weight": torch.zeros(10, 8), "classifier.6.bias": torch.zeros(10)}
    for name, tensor in network.state_dict().items():
        if name.startswith("backbone."):
            tensors[name.removeprefix("backbone.")] = tensor
        for ours, theirs in (("fc6", "classifier.0"), ("fc7", "classifier.3")):
            if name.startswith(ours):
                tensors[name.replace(ours, theirs)] = tensor.flatten(1) if tensor.ndim > 1 else tensor
    return tensors


def assert_equal_states(one, other):
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def test_a_file_of_torchvision_loads_by_name():
    torch.manual_seed(0)
    source, network = fcn("8s", width=0.05), fcn("8s", width=0.05)
    match = weights.load_into(network, of_torchvision(source), "vgg16.pth")
    assert len(match.matched) == 30
    assert match.unexpected == ("classifier.6.weight", "classifier.6.bias")
    assert {name.split(".")[1] for name in match.missing} == {"score_fr", "score_pool4", "score_pool3"}
    assert torch.equal(network.fc6.weight, source.fc6.weight)
    assert torch.equal(network.backbone.features[28].weight, source.backbone.features[28].weight)


def test_a_file_of_caffe_loads_by_name():
    source, network = shaken(fcn("8s")), fcn("8s").double()
    tensors = of_caffe(source)
    layers = {"conv1_1", "conv5_3", "fc6", "fc7", "score_fr", "score_pool4", "score_pool3"}
    assert layers < {name.split(".")[0] for name in tensors}
    kernels = {"upscore2": 4, "upscore_pool4": 4, "upscore8": 16}
    fixed = {f"{name}.weight": bilinear(size, 3) for name, size in kernels.items()}
    match = weights.load_into(network, tensors | fixed, "fcn8s.pth")
    assert (match.missing, match.mismatched) == ((), ())
    assert match.unexpected == tuple(f"upsampling.{name}" for name in fixed)
    assert_equal_states(source, network)


def test_a_file_of_the_port_of_crf_rnn_loads_by_name():
    source, network = shaken(fcn("8s", upsampling="learned")), fcn("8s", upsampling="learned").double()
    crf = {f"crfrnn.{name}": torch.eye(3) for name in ("spatial_ker_weights", "bilateral_ker_weights")}
    crf |= {"crfrnn.compatibility_matrix": torch.eye(3)}
    tensors = of_caffe(source)
    assert {"upscore2.weight", "upscore2.bias", "upscore_pool4.weight"} < set(tensors)
    match = weights.load_into(network, tensors | {"upscore8.weight": bilinear(16, 3)} | crf, "crfasrnn.pth")
    assert (match.missing, match.mismatched) == ((), ())
    assert match.unexpected == ("upsampling.upscore8.weight", *crf)
    assert_equal_states(source, network)


def test_a_fresh_network_favours_no_class_and_repeats_with_the_seed():
    torch.manual_seed(0)
    first = fcn("8s", width=0.25)
    torch.manual_seed(0)
    assert_equal_states(first, fcn("8s", width=0.25))
    assert first.classifier.score_fr.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert not any(first.classifier[f"score_{pool}"].weight.any() for pool in ("pool4", "pool3"))
    assert not any(layer.bias.any() for layer in first.classifier.values())


@pytest.mark.parametrize("padding", [0, 100])
def test_dropout_acts_in_training_alone(padding):
    torch.manual_seed(0)
    network, images = fcn("8s", padding=padding), torch.randn(1, 3, 40, 56)
    with torch.no_grad():
        assert not torch.equal(network(images), network(images))
        network.eval()
        assert torch.equal(network(images), network(images))


def test_half_precision_trains():
    network = fcn("8s", upsampling="learned")
    with torch.autocast("cpu", torch.bfloat16):
        loss = network.grid.resize(network(torch.randn(1, 3, 40, 56)), 40, 56).float().square().sum()
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


def test_an_unknown_variant_is_refused():
    with pytest.raises(SettingsError) as caught:
        fcn("4s")
    assert str(caught.value) == "variant: found '4s', expected a known variant; did you mean '8s'?"
