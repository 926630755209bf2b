"""DifNet's diffusion: seeds walk over the image in a cascade of random walks (Jiang et al., NeurIPS 2018).

Arrays in, arrays out; docs/systems/difnet.md has the symbols.
"""

import torch
import torch.nn.functional as F

from pipeline.core.errors import DataError
from pipeline.kernels.random_walk import random_walk, transition


def walk(seed, previous, features, mu, beta):
    """Take one random walk::

        y = β [ μ P y' + (1 − μ) s ] + (1 − β) y'        P = row softmax of ⟨ψ_i, ψ_j⟩

    Parameters
    ----------
    seed, previous : Tensor of shape (B, C, h, w)
        s, and y' of the walk before; s itself at the first.
    features : Tensor of shape (B, K, h, w)
        ψ.
    mu, beta : Tensor of shape ()
        In [0, 1]: what is walked to rather than the seed; what is new rather than y'.

    Returns
    -------
    Tensor of shape (B, C, h, w)

    Notes
    -----
    Source: arXiv version of DifNet, equation 5, with μ and β before their sigmoids.
    """
    return beta * (mu * random_walk(features, previous) + (1 - mu) * seed) + (1 - beta) * previous


def cascade(seed, levels, mu, beta):
    """Yield y⁰ = s, then y after each walk.

    Parameters
    ----------
    seed : Tensor of shape (B, C, h, w)
    levels : sequence of T Tensors of shape (B, K, h, w)
        ψ of each walk, in order. Without any the seed stays as it is.
    mu, beta : Tensor of shape (T,)

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
            raise DataError(f"cascade, walk {number + 1}", found, "one stride", "pool the features to the seed's size")
        state = walk(seed, state, features, mu[number], beta[number])
        yield state


def pooled(features, size):
    """Pool features (B, K, H, W) to the seed's size (h, w): the largest of each bin, as DifNet's code does."""
    return features if features.shape[2:] == size else F.adaptive_max_pool2d(features, size)


def influence(scores):
    """Return how much a position says in all classes, Σ_c |x_c|: (B, C, h, w) → (B, h, w); section 5.3."""
    return scores.abs().sum(dim=1)


def transition_rows(levels, rows):
    """Return rows of each walk's P, list of T Tensors (B, R, h, w); rows (R,) are numbers row · w + col."""
    return [transition(features, rows) for features in levels]


def limit(seed, features, mu):
    """Return where many equal walks end: (1 − μ)(I − μ P)⁻¹ s, by a linear system; small images only.

    Parameters
    ----------
    seed : Tensor of shape (B, C, h, w)
    features : Tensor of shape (B, K, h, w)
    mu : Tensor of shape ()
        Below 1.

    Returns
    -------
    Tensor of shape (B, C, h, w)
    """
    positions = seed.shape[2] * seed.shape[3]
    matrix = transition(features, torch.arange(positions, device=features.device)).flatten(2)
    left = torch.eye(positions).to(matrix) - mu * matrix
    return torch.linalg.solve(left, (1 - mu) * seed.flatten(2).mT).mT.view_as(seed)
