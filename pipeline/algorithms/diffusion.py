"""DifNet's diffusion: seeds walk over the image in a cascade of random walks (Jiang et al., NeurIPS 2018).

Arrays in, arrays out; docs/systems/difnet.md has the symbols.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F

from pipeline.core.errors import DataError
from pipeline.kernels.random_walk import random_walk, transition


class Walked(NamedTuple):
    """All that there is on the way of a diffusion.

    Attributes
    ----------
    scores : Tensor of shape (B, C, h, w)
        x.
    importance : Tensor of shape (B, 1, h, w)
        M.
    states : list of T + 1 Tensors of shape (B, C, h, w)
        The seed M x, then y after each walk.
    levels : list of T Tensors of shape (B, K, h, w)
        ψ of each walk.
    mixing : (Tensor, Tensor) of shape (T,)
        μ and β of each walk.
    affinity : {"product", "distance"}
    """

    scores: torch.Tensor
    importance: torch.Tensor
    states: list
    levels: list
    mixing: tuple
    affinity: str

    def influence(self):
        """Return how much each position says in all classes, Σ_c |x_c|: (B, h, w); section 5.3."""
        return self.scores.abs().sum(dim=1)

    def labels(self, enlarged):
        """Yield the labels (H, W), int64, of the first image: of the scores, of the seed, and after each walk.

        `enlarged` brings scores (1, C, h, w) to the image's size, (1, C, H, W).
        """
        for state in (self.scores, *self.states):
            yield enlarged(state[:1])[0].max(dim=0).indices

    def position(self, pixel, size):
        """Return the number of the position that a pixel (row, col) of an image (H, W) lies in, row · w + col."""
        row, col = (at * cells // whole for at, cells, whole in zip(pixel, self.scores.shape[2:], size, strict=True))
        return row * self.scores.shape[3] + col

    def rows(self, positions):
        """Return rows of each walk's P, list of T Tensors (B, R, h, w); positions (R,) are numbers row · w + col."""
        return [transition(features, positions, self.affinity) for features in self.levels]


def walk(seed, previous, features, mu, beta, affinity):
    """Take one random walk::

        y = β [ μ P y' + (1 − μ) s ] + (1 − β) y'

    Parameters
    ----------
    seed, previous : Tensor of shape (B, C, h, w)
        s, and y' of the walk before; s itself at the first.
    features : Tensor of shape (B, K, h, w)
        ψ.
    mu, beta : Tensor of shape ()
        In [0, 1]: what is walked to rather than the seed; what is new rather than y'.
    affinity : {"product", "distance"}
        Of `kernels.random_walk`, whose P this is; DifNet's is the product.

    Returns
    -------
    Tensor of shape (B, C, h, w)

    Notes
    -----
    Source: equations 4 and 5.
    """
    return beta * (mu * random_walk(features, previous, affinity=affinity) + (1 - mu) * seed) + (1 - beta) * previous


def cascade(seed, levels, mu, beta, affinity):
    """Yield y⁰ = s, then y after each walk.

    Parameters
    ----------
    seed : Tensor of shape (B, C, h, w)
    levels : sequence of T Tensors of shape (B, K, h, w)
        ψ of each walk, in order. Without any the seed stays as it is.
    mu, beta : Tensor of shape (T,)
    affinity : {"product", "distance"}

    Raises
    ------
    DataError
        If there are not as many μ and β as levels, or a level has another stride than the seed.
    """
    if not len(levels) == len(mu) == len(beta):
        found = f"{len(levels)} levels of features, {len(mu)} μ, {len(beta)} β"
        raise DataError("cascade", found, "one of each for every walk", "give each walk its level")
    state = seed
    yield state
    for number, features in enumerate(levels):
        if features.shape[2:] != seed.shape[2:]:
            found = "features of {} × {} positions for a seed of {} × {}".format(*features.shape[2:], *seed.shape[2:])
            raise DataError(f"cascade, walk {number + 1}", found, "one stride", "bring the features to the seed's size")
        state = walk(seed, state, features, mu[number], beta[number], affinity)
        yield state


def resized(features, size):
    """Bring features (B, K, H, W) to the seed's size (h, w).

    Finer ones give the largest of each bin, as DifNet's code has it; coarser ones, which that never meets, are enlarged
    bilinearly.
    """
    if features.shape[2:] == size:
        return features
    if features.shape[2] >= size[0] and features.shape[3] >= size[1]:
        # Gathered, since the gradient of the pooling itself has no fixed order of sums on CUDA.
        _, largest = F.adaptive_max_pool2d(features, size, return_indices=True)
        return features.flatten(2).gather(2, largest.flatten(2)).view(largest.shape)
    return F.interpolate(features, size=size, mode="bilinear", align_corners=False)


def limit(seed, features, mu, affinity):
    """Return where many equal walks end: (1 − μ)(I − μ P)⁻¹ s, by a linear system; small images only.

    Parameters
    ----------
    seed : Tensor of shape (B, C, h, w)
    features : Tensor of shape (B, K, h, w)
    mu : Tensor of shape ()
        Below 1.
    affinity : {"product", "distance"}

    Returns
    -------
    Tensor of shape (B, C, h, w)
    """
    positions = seed.shape[2] * seed.shape[3]
    matrix = transition(features, torch.arange(positions, device=features.device), affinity).flatten(2)
    left = torch.eye(positions).to(matrix) - mu * matrix
    return torch.linalg.solve(left, (1 - mu) * seed.flatten(2).mT).mT.view_as(seed)
