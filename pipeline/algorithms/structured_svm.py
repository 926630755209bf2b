"""The structured SVM of a Potts grid: a bound of the share of wrong labels that has a subgradient.

With E the energy of `dual_mm`, x* the truth, V the labelled pixels and γ the margin::

    S = max_x γ Σ_V [x_i ≠ x*_i] + E(x*) − E(x)  ≥  γ Σ_V [x̄_i ≠ x*_i]      for the labels x̄ of least energy

The maximum is a problem of least energy whose unaries are lower by γ wherever a label is wrong. DualMM gives labels x̂
near it and a bound of it, so S is known from both sides. What is differentiated is the lower one, E(x*) less the
augmented energy of x̂, linear in unaries and weights for a given x̂: its gradient is a subgradient of S up to the gap.

Source: Colovic et al., "End-to-end training of hybrid CNN-CRF models for semantic segmentation using structured
learning" (CVWW 2017), equations 8 to 10.
"""

from typing import NamedTuple

import torch

from pipeline.algorithms.dual_mm import energy, solve
from pipeline.core.sample import VOID
from pipeline.kernels.potts_chains import Edges


class Surrogate(NamedTuple):
    """The bound S of B images, from both sides."""

    lower: torch.Tensor  # (B,) float64; differentiable in unaries and weights, not negative
    upper: torch.Tensor  # (B,) float64, without gradient
    labelled: torch.Tensor  # (B,) how many pixels are


def surrogate(unary, edges, truth, margin, iterations, sweeps, *, complete=False):
    """Return the bound S.

    Parameters
    ----------
    unary : Tensor of shape (B, C, H, W), floating
    edges : Edges
    truth : Tensor of shape (B, H, W), int64
        Class, or 255 for void.
    margin : float
        γ.
    iterations, sweeps : int
        Of DualMM.
    complete : bool
        What the truth of void pixels is. False: void pixels and their edges count for nothing. True: it is what has
        the least energy beside the labelled pixels. The latter takes a second solution, and is needed as soon as edges
        are learnt: where void covers all borders of classes, the truth of the former has no jump, and larger weights
        always look better.

    Returns
    -------
    Surrogate
    """
    known = truth != VOID
    given = truth.where(known, 0)
    if complete:
        given = _completed(unary, edges, given, known, iterations, sweeps)
    else:
        unary = unary * known[:, None]
        edges = Edges(edges.right * (known[:, :, 1:] & known[:, :, :-1]), edges.below * (known[:, 1:] & known[:, :-1]))
    with torch.no_grad():
        augmented = unary - margin * _wrong(unary, given, known)
        found = solve(augmented, edges, iterations, sweeps)
        labels = found.labels.long()
        if not complete:
            given = given.where(known, labels)
        # The truth itself may be better than what was found; S is then 0, and so is its subgradient.
        worse = found.energy > energy(augmented, edges, given)
        labels = given.where(worse[:, None, None], labels)
        wrong = ((labels != given) & known).flatten(1).sum(dim=1).double()
    of_truth = energy(unary, edges, given)
    lower = of_truth - energy(unary, edges, labels) + margin * wrong
    return Surrogate(lower, of_truth.detach() - found.bound, known.flatten(1).sum(dim=1))


def _completed(unary, edges, given, known, iterations, sweeps):
    """Return the truth (B, H, W) whose void pixels have labels of least energy beside the others."""
    with torch.no_grad():
        # More than a pixel of its image can ever save: no labelled pixel is worth another label.
        costs = unary.flatten(1)
        most = 1 + costs.amax(dim=1) - costs.amin(dim=1)
        for weights in edges:
            if weights.numel():
                most = most + 2 * weights.flatten(1).amax(dim=1)
        forbidden = unary + most.view(-1, 1, 1, 1) * _wrong(unary, given, known)
        return given.where(known, solve(forbidden, edges, iterations, sweeps).labels.long())


def _wrong(unary, given, known):
    """Return 1 for every label but the given one of every known pixel, (B, C, H, W), else 0."""
    return torch.ones_like(unary).scatter_(1, given[:, None], 0.0) * known[:, None]
