"""The weights of a Potts grid: equation 6 pixel by pixel, gradients where colours are equal too, the edge network."""

import itertools
import math

import numpy as np
import pytest
import torch
from observe import refusal
from potts import least_energy

from pipeline.algorithms.dual_mm import energy
from pipeline.algorithms.potts_grid import PottsGrid, differences, edge_network, log_factors
from pipeline.core import settings
from pipeline.core.errors import SettingsError
from pipeline.core.settings import Settings
from pipeline.kernels.potts_chains import Edges

CONFIG = settings.ROOT / "config" / "systems"
LEARNT = {"alpha": 1, "beta": 1, "lambda": 1}


def grid(name="hybrid_svm", parameters=None, **changed):
    values = settings.read(CONFIG / f"{name}.yaml", "systems").plain()
    if "fit" in values:
        values["fit"] = values["fit"] | {"parameters": LEARNT if parameters is None else parameters}
    return PottsGrid(settings.check(values | changed, "systems", where="a test"), 3, {}).double()


def drawn(height=4, width=9, classes=3, seed=0):
    """Draw an image with equal neighbours, and log-probabilities."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 4, (1, 3, height, width), generator=generator).double() * 8 + 40
    images[..., : width // 2] = images[..., :1]
    return images, torch.randn(1, classes, height, width, generator=generator).double().log_softmax(dim=1)


@pytest.mark.parametrize("colours", ["rgb", "grey"])
def test_weights_are_those_of_equation_6(colours):
    images, _ = drawn()
    module = grid(colours=colours)
    found = Edges(*(weight.detach() for weight in module.edges(images)))
    pixels = images[0].permute(1, 2, 0).numpy() / 255
    if colours == "grey":
        pixels = pixels @ np.array([[0.299], [0.587], [0.114]])
    for row, col in itertools.product(range(4), range(9)):
        for other, weight in (((row, col + 1), found.right), ((row + 1, col), found.below)):
            if other[0] < 4 and other[1] < 9:
                distance = np.linalg.norm(pixels[row, col] - pixels[other])
                expected = 2.5 * math.exp(-35.0 * distance**0.9)
                assert float(weight[0, row, col]) == pytest.approx(expected, rel=1e-5)


def test_the_unary_is_minus_the_probability():
    _, log_probability = drawn()
    assert torch.allclose(grid().unary(log_probability), -log_probability.exp())


def test_gradients_of_the_weights_equal_neighbours_included():
    images, _ = drawn()
    module = grid()
    leaves = [module.log_alpha, module.log_beta, module.log_lambda]

    def weights(*values):
        for leaf, value in zip(leaves, values, strict=True):
            leaf.data.copy_(value)
        replaced = dict(zip(("log_alpha", "log_beta", "log_lambda"), values, strict=True))
        return tuple(torch.func.functional_call(Weights(module), {f"grid.{k}": v for k, v in replaced.items()}, images))

    values = tuple(leaf.detach().clone().requires_grad_() for leaf in leaves)
    assert torch.autograd.gradcheck(weights, values)
    assert (differences(images / 255, "rgb")[0] == 0).any()


class Weights(torch.nn.Module):
    """A grid whose call returns its weights."""

    def __init__(self, grid):
        super().__init__()
        self.grid = grid

    def forward(self, images):
        return self.grid.edges(images)


@pytest.mark.parametrize("name", ["hybrid_svm", "hybrid_network"])
def test_the_loss_has_the_gradient_of_the_exact_bound(name):
    """To log-probabilities and to all that is learnt, where DualMM solves the problem."""
    images, log_probability = drawn(height=4, width=30)
    truth = log_probability.argmax(dim=1)
    truth[:, :, 12:16] = (truth[:, :, 12:16] + 1) % 3
    module = grid(name, {"edge_network": 1} if name == "hybrid_network" else None, iterations=30, sweeps=2)
    leaves = [log_probability.requires_grad_(), *(p for p in module.parameters() if p.requires_grad)]
    assert len(leaves) == (2 if name == "hybrid_network" else 4)

    def exact():
        unary, edges = module.unary(log_probability), module.edges(images)
        wrong = torch.ones_like(unary).scatter_(1, truth[:, None], 0.0)
        return float((energy(unary, edges, truth) - least_energy(unary - 0.1 * wrong, edges)).detach())

    loss, count = module.loss(images, log_probability, truth)
    assert count == truth.numel()
    assert float(loss.detach()) == pytest.approx(exact(), rel=1e-6)
    gradients = torch.autograd.grad(loss, leaves)
    generator = torch.Generator().manual_seed(0)
    for leaf, gradient in zip(leaves, gradients, strict=True):
        way = torch.randn(leaf.shape, generator=generator, dtype=torch.float64)
        ends = []
        for step in (1e-6, -2e-6):
            with torch.no_grad():
                leaf.add_(step * way)
            ends.append(exact())
        with torch.no_grad():
            leaf.add_(1e-6 * way)
        slope = float((gradient * way).sum())
        assert slope == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5, abs=1e-7)


def test_the_edge_network_starts_as_no_factor():
    images, _ = drawn()
    plain, learnt = grid(), grid("hybrid_network", {"edge_network": 1})
    for one, other in zip(plain.edges(images), learnt.edges(images), strict=True):
        assert torch.equal(one, other)
    assert learnt.numbers()["edge_network"].shape == edge_network().shape == (3 * 16 * 9 + 16 + 16 * 16 * 9 + 16 + 290,)


def test_the_edge_network_is_three_convolutions():
    generator = torch.Generator().manual_seed(0)
    layers = [torch.nn.Conv2d(a, b, 3, padding=1) for a, b in ((3, 16), (16, 16), (16, 2))]
    network = torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1], torch.nn.ReLU(), layers[2])
    numbers = torch.cat([x.detach().flatten() for layer in layers for x in (layer.weight, layer.bias)])
    images = torch.rand(2, 3, 7, 11, generator=generator)
    right, below = log_factors(images, numbers)
    expected = network(images - 0.5)
    assert torch.allclose(right, expected[:, 0, :, :-1], atol=1e-6)
    assert torch.allclose(below, expected[:, 1, :-1], atol=1e-6)


@pytest.mark.parametrize(
    ("colour", "found"), [(257.0, "257 to 257"), (65535.0, "65535 to 65535"), (-0.5, "-0.5 to -0.5"),
                          (torch.nan, "nan to nan")],
)  # fmt: skip
def test_colours_elsewhere_are_refused(colour, found):
    """Levels of 16 bits would let all weights vanish."""
    assert refusal(lambda: grid().edges(torch.full((1, 3, 2, 2), colour))) == (
        f"potts_grid, images: found colours from {found}, expected 0 to 255, or all weights would vanish; "
        "give 8-bit levels"
    )


def test_one_pixel_one_row_and_one_class():
    for height, width, classes in ((1, 1, 3), (1, 7, 3), (5, 1, 2), (3, 4, 1)):
        images, log_probability = torch.rand(1, 3, height, width) * 255, torch.rand(1, classes, height, width)
        found = grid().float().solve(images, log_probability)
        assert found.labels.shape == (1, height, width)
        assert float(found.bound) <= float(found.energy) + 1e-6


def test_settings_that_go_together_only():
    values = settings.read(CONFIG / "hybrid_svm.yaml", "systems").plain()
    bad = Settings(values | {"fit": values["fit"] | {"parameters": {"edge_network": 1}}})
    with pytest.raises(SettingsError, match="expected what these settings use: alpha, beta, lambda; take it out"):
        PottsGrid(bad, 3, {})
