"""What Gaussian CRFs share: features of both kernels, the unary's clip and temperature, any number of channels."""

import numpy as np
import pytest
import torch

from pipeline.algorithms.gaussian_crf import GaussianCRF
from pipeline.core import settings
from pipeline.systems.fullcrf import FullCRF

CONFIG = settings.ROOT / "config" / "systems"
# Sums of ≲ 100 numbers of size ≲ 100 in another order, over a few iterations, in float64.
ROUNDING = 1e-10


def tiny(**changed):
    values = settings.read(CONFIG / "fullcrf.yaml", "systems").plain()
    felt = {"filter": "exact", "iterations": 3, "theta_alpha": 2.0, "theta_beta": 60.0, "theta_gamma": 1.5, "clip": 0}
    return settings.check(values | felt | changed, "systems", where="a test")


def case(channels=3, height=4, width=5, classes=3):
    """Draw images (1 channels H W), 0..255, and log-probabilities (1 C H W), float64."""
    generator = torch.Generator().manual_seed(11)
    images = torch.rand(1, channels, height, width, generator=generator, dtype=torch.float64) * 255
    scores = torch.randn(1, classes, height, width, generator=generator, dtype=torch.float64)
    return images, scores.log_softmax(dim=1)


class Parts(GaussianCRF):
    """Returns what it is given: unary and the features of both kernels."""

    def scores(self, unary, appearance, smoothness):
        return unary, appearance, smoothness


def parts(images, log_probability, extra=None, **changed):
    return Parts(tiny(**changed), 3, {}).double()(images, log_probability, extra)


def test_features_are_positions_and_colours_by_their_bandwidths():
    images, log_probability = case()
    _, appearance, smoothness = parts(images, log_probability)
    cols, rows = torch.arange(5.0).expand(4, 5), torch.arange(4.0)[:, None].expand(4, 5)
    # The parameters went through a float32 logarithm.
    expected = torch.cat([torch.stack([cols, rows])[None] / 2, images / 60], dim=1)
    assert torch.allclose(appearance, expected, rtol=1e-6, atol=0)
    assert torch.allclose(smoothness, torch.stack([cols, rows])[None].double() / 1.5, rtol=1e-6, atol=0)
    _, colours, _ = parts(images, log_probability, appearance_position=False)
    assert torch.equal(colours, appearance[:, 2:])


@pytest.mark.parametrize("channels", [1, 5])
def test_images_of_any_number_of_channels(channels):
    images, log_probability = case(channels)
    _, appearance, _ = parts(images, log_probability)
    assert appearance.shape[1] == 2 + channels
    found = FullCRF(tiny(), 3, {}).double()(images, log_probability)
    assert found.shape == log_probability.shape
    assert (found - log_probability).abs().max() > 1e-2


def test_extra_features_join_the_appearance_kernel():
    images, log_probability = case()
    crf = FullCRF(tiny(), 3, {}).double()
    extra = torch.randn(1, 2, 4, 5, generator=torch.Generator().manual_seed(1)).double()
    assert torch.equal(parts(images, log_probability, extra)[1][:, 5:], extra)
    found = crf(images, log_probability, extra)
    assert (found - crf(images, log_probability)).abs().max() > 1e-3
    # One feature that is the same everywhere tells nothing; channels and features are one if their bandwidth is.
    assert torch.equal(crf(images, log_probability, torch.full_like(extra, 7.0)), crf(images, log_probability))
    joined = crf(images[:, :2], log_probability, images[:, 2:] / crf.value("theta_beta").detach())
    assert (joined - crf(images, log_probability)).abs().max() <= ROUNDING


def test_clip_is_the_smallest_probability_the_unary_states():
    images, _ = case()
    p = torch.tensor([1 - 1e-7 - 1e-3, 1e-3, 1e-7], dtype=torch.float64)
    log_probability = p.log().view(1, 3, 1, 1).expand(1, 3, 4, 5)
    unary, _, _ = parts(images, log_probability, clip=1e-2)
    clipped = p.clamp_min(1e-2)
    # The unary may differ by a number per pixel, which changes no Q: its softmax tells.
    assert torch.allclose(unary[0, :, 0, 0].softmax(dim=0), clipped / clipped.sum(), rtol=1e-9, atol=0)
    whole, _, _ = parts(images, log_probability, clip=0)
    assert torch.allclose(whole[0, :, 0, 0].exp(), p, rtol=1e-9, atol=0)


def test_clip_makes_a_probability_of_0_finite():
    images, log_probability = case()
    log_probability[:, 0, 1, 2] = -torch.inf
    found = FullCRF(tiny(clip=1e-5), 3, {}).double()(images, log_probability)
    assert torch.isfinite(found).all()


def test_temperature_divides_the_log_probabilities():
    images, log_probability = case()
    unary, _, _ = parts(images, log_probability, temperature=2.0)
    expected = (log_probability / 2).softmax(dim=1)
    assert torch.allclose(unary.softmax(dim=1), expected, rtol=1e-6, atol=0)


def test_classes_are_treated_alike():
    images, log_probability = case(classes=4)
    order = [2, 0, 3, 1]
    for changed in ({"filter": "lattice", "smoothness": "lattice"}, {"filter": "window", "normalisation": "after"}):
        crf = FullCRF(tiny(**changed), 3, {}).double()
        found = crf(images, log_probability[:, order])
        assert (found - crf(images, log_probability)[:, order]).abs().max() <= ROUNDING


def test_a_batch_is_its_images_one_by_one():
    images, log_probability = (torch.cat([x, x.flip(2)]) for x in case())
    crf = FullCRF(tiny(filter="lattice"), 3, {}).double()
    both = crf(images, log_probability)
    for image in range(2):
        part = slice(image, image + 1)
        assert (crf(images[part], log_probability[part]) - both[part]).abs().max() <= ROUNDING


def test_state_replaces_settings_and_values_return_it():
    crf = FullCRF(tiny(), 3, {"theta_beta": np.float32(7.5)})
    # One float32 logarithm and exponential.
    assert crf.values()["theta_beta"] == pytest.approx(7.5, rel=1e-6)
    assert crf.values()["theta_gamma"] == pytest.approx(1.5, rel=1e-6)
    assert set(crf.values()) == set(FullCRF.positive)


def test_only_what_is_fitted_needs_a_gradient():
    crf = FullCRF(tiny(), 3, {})
    learnt = {name for name, parameter in crf.named_parameters() if parameter.requires_grad}
    assert learnt == {f"log_{name}" for name in tiny().fit.parameters}
    assert crf.weights(4).shape == (2, 4)
