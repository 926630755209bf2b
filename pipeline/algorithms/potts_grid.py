"""The Potts CRF of four neighbours: unaries of a network's probabilities, weights of the contrast of the image.

The energy of labels x, in the notation of docs/systems/hybrid.md::

    E(x) = Σ_i −p_i(x_i) + Σ_ij w_ij [x_i ≠ x_j],      w_ij = λ exp(−α ‖I_i − I_j‖^β)

with p the probabilities of a network and I the colours, 0 to 1. Source: Colovic et al. (CVWW 2017), equations 2 to 6.
"""

import itertools
import math

import numpy as np
import torch
import torch.nn.functional as F

from pipeline.algorithms import dual_mm, structured_svm
from pipeline.algorithms.parameters import Parameters
from pipeline.core.errors import DataError
from pipeline.kernels.potts_chains import Edges

CHANNELS = (3, 16, 16, 2)  # of the edge network, from the image to the edges right and below
BEYOND = 0.1  # how far rounding may carry a colour out of its range
GREY = (0.299, 0.587, 0.114)  # luma of ITU-R BT.601


class PottsGrid(Parameters):
    """The model; ``config/systems/hybrid.yaml`` explains the settings.

    Parameters
    ----------
    settings : Settings
    classes : int
        C; any will do.
    state : dict of str to ndarray
        Values that replace those of the settings, by name.
    """

    positive = ("alpha", "beta", "lambda")
    recompute = False  # nothing is kept that could be worked out again

    def __init__(self, settings, classes, state):
        starts = {"edge_network": edge_network()} if settings.weights == "network" else {}
        super().__init__(settings, starts, state)

    def unary(self, log_probability):
        """Return the unaries (B, C, H, W) of a network's log p: −p."""
        return -log_probability.softmax(dim=1)

    def edges(self, images):
        """Return the weights of the edges of images (B, 3, H, W), 0..255, as Edges; other colours are refused."""
        images = _as_shares(images)
        powers = [self._power(difference) for difference in differences(images, self.settings.colours)]
        weights = [self.value("lambda") * torch.exp(-self.value("alpha") * power) for power in powers]
        learnt = self.value("edge_network")
        if learnt is not None:
            factors = log_factors(images, learnt)
            weights = [weight * factor.exp() for weight, factor in zip(weights, factors, strict=True)]
        return Edges(*weights)

    def solve(self, images, log_probability):
        """Return the `dual_mm.Solution` of images (B, 3, H, W), 0..255, and log p (B, C, H, W)."""
        unary, edges = self.unary(log_probability), self.edges(images)
        return dual_mm.solve(unary, edges, self.settings.iterations, self.settings.sweeps)

    def loss(self, images, log_probability, truth):
        """Return the structured SVM's loss, summed, and the number of labelled pixels."""
        found = self.bounds(images, log_probability, truth)
        return found.lower.sum().float(), found.labelled.sum()

    def bounds(self, images, log_probability, truth):
        """Return that loss from both sides: the `structured_svm.Surrogate` of every image."""
        return structured_svm.surrogate(
            self.unary(log_probability),
            self.edges(images),
            truth,
            self.settings.margin,
            self.settings.iterations,
            self.settings.sweeps,
            complete=any(parameter.requires_grad for parameter in self.parameters()),
        )

    def _power(self, difference):
        """Return ‖·‖^β of squared distances; 0 where they are, with gradient 0 too."""
        apart = difference > 0
        logarithm = 0.5 * torch.where(apart, difference, torch.ones_like(difference)).log()
        return torch.where(apart, torch.exp(self.value("beta") * logarithm), torch.zeros_like(difference))


def costs(edges):
    """Return what a jump costs at every pixel, the sum of its edges to the right and below: (B, H, W)."""
    return F.pad(edges.right, (0, 1)) + F.pad(edges.below, (0, 0, 0, 1))


def differences(images, colours):
    """Return the squared distances of neighbours' colours, right and below: (B, H, W − 1), (B, H − 1, W).

    Parameters
    ----------
    images : Tensor of shape (B, 3, H, W)
        RGB, 0..1.
    colours : {"rgb", "grey"}
    """
    if colours == "grey":
        images = torch.einsum("bchw,c->bhw", images, images.new_tensor(GREY))[:, None]
    right, below = images[..., 1:] - images[..., :-1], images[..., 1:, :] - images[..., :-1, :]
    return right.square().sum(dim=1), below.square().sum(dim=1)


def _as_shares(images):
    """Return images 0..1 of images 0..255; of a wider range next to all weights would vanish, so it is refused."""
    least, most = torch.stack(images.detach().aminmax()).tolist()
    # Not the other way round: NaN is not below anything.
    if not (least >= -BEYOND and most <= 255 + BEYOND):
        found = f"colours from {least:g} to {most:g}"
        raise DataError("potts_grid, images", found, "0 to 255, or all weights would vanish", "give 8-bit levels")
    return images / 255


def edge_network():
    """Return the flat start of the edge network's numbers: its last layer is 0, so that all factors are 1."""
    generator = np.random.default_rng(0)
    layers = []
    for number, (arriving, leaving) in enumerate(_layers()):
        last = number == len(CHANNELS) - 2
        spread = 0.0 if last else math.sqrt(2 / (9 * arriving))
        layers += [spread * generator.standard_normal((leaving, arriving, 3, 3)), np.zeros(leaving)]
    return np.concatenate([layer.ravel() for layer in layers]).astype(np.float32)


def log_factors(images, numbers):
    """Return the logarithms of the edge network's factors on the weights, right and below, of images 0..1."""
    x, place = images - 0.5, 0
    for arriving, leaving in _layers():
        if place:
            x = x.relu()
        between = place + 9 * arriving * leaving
        kernels, place = numbers[place:between], between + leaving
        x = F.conv2d(x, kernels.view(leaving, arriving, 3, 3), numbers[between:place], padding=1)
    return x[:, 0, :, :-1], x[:, 1, :-1]


def _layers():
    return list(itertools.pairwise(CHANNELS))
