"""DualMM: labels of a Potts grid, their energy, and a lower bound of all energies.

The energy of labels x of H × W pixels with edges between neighbours in rows and columns::

    E(x) = Σ_i u_i(x_i) + Σ_ij w_ij [x_i ≠ x_j]

Source: Shekhovtsov, Reinbacher, Graber and Pock, arXiv:1601.06274; Colovic et al. (CVWW 2017), section 4.2, take 15
iterations. Rows and columns take turns in handing over what they do not need (`potts_chains.hand_over`), which can only
raise the sum of their minima; the labels are those of the last shares, relabelled chain by chain.
"""

from typing import NamedTuple

import torch

from pipeline.core.errors import DataError
from pipeline.kernels import checks, potts_chains
from pipeline.kernels.potts_chains import Edges

AXES = ("rows", "columns")


class Solution(NamedTuple):
    """What `solve` found for B images."""

    labels: torch.Tensor  # (B, H, W) uint8
    energy: torch.Tensor  # (B,) float64, of the labels
    bound: torch.Tensor  # (B,) float64: no labels have less
    rows: torch.Tensor  # (B, C, H, W): what the rows own in the end; a later call may go on from it

    @property
    def gap(self):
        """(B,) How far the energy may be above the least one, as a share of the bound's magnitude."""
        return (self.energy - self.bound) / self.bound.abs().clamp_min(torch.finfo(torch.float64).tiny)


def solve(unary, edges, iterations, sweeps, *, rows=None, backend="auto"):
    """Look for the labels of least energy.

    Parameters
    ----------
    unary : Tensor of shape (B, C, H, W), floating
        u, finite.
    edges : Edges
        w, finite and not negative.
    iterations : int
        At 0 the labels are the best ones of each pixel alone, and the bound is that of the rows.
    sweeps : int
        How often all rows and columns are relabelled at the end.
    rows : Tensor of shape (B, C, H, W), optional
        Where to begin; without it the rows begin with all of u. It is changed in place.
    backend : {"auto", "cuda", "cpu", "reference"}

    Returns
    -------
    Solution

    Raises
    ------
    DataError
        If a number is not finite, a weight negative, or shapes or dtypes disagree.
    """
    _check(unary, edges)
    if rows is not None:
        checks.finite("dual_mm, rows", rows)
    unary, edges = unary.detach().contiguous(), Edges(*(weight.detach().contiguous() for weight in edges))
    rows = unary.clone() if rows is None else rows
    labels = torch.empty(unary[:, 0].shape, dtype=torch.uint8, device=unary.device)
    if iterations == 0:
        labels.copy_(unary.min(dim=1).indices)
    with torch.no_grad():
        for iteration in range(iterations):
            potts_chains.hand_over(unary, rows, edges, "rows", backend=backend)
            last = labels if iteration + 1 == iterations else None
            potts_chains.hand_over(unary, rows, edges, "columns", labels=last, backend=backend)
        for _ in range(sweeps):
            for axis in AXES:
                for first in (0, 1):
                    potts_chains.relabel(unary, edges, labels, axis, first, backend=backend)
        bound = sum(potts_chains.minimum(unary, rows, edges, axis, backend=backend).sum(dim=1) for axis in AXES)
    return Solution(labels, energy(unary, edges, labels), bound, rows)


def energy(unary, edges, labels):
    """Return the energy of labels (B, H, W), (B,) float64."""
    terms = [unary.gather(1, labels.long()[:, None])]
    terms += [weight * jump for weight, jump in zip(edges, jumps(labels), strict=True)]
    return sum(term.flatten(1).sum(dim=1, dtype=torch.float64) for term in terms)


def jumps(labels):
    """Return, as Edges, whether labels (B, H, W) differ from those on the right and from those below, bool."""
    return Edges(labels[:, :, 1:] != labels[:, :, :-1], labels[:, 1:] != labels[:, :-1])


def _check(unary, edges):
    # Not the other way round: NaN is not below anything.
    bad = [~((weight >= 0) & (weight < torch.inf)) for weight in edges]
    # All is looked at together, as each look waits for a GPU. One NaN or infinity makes the sum one.
    finite = torch.isfinite(unary.sum(dtype=torch.float64))
    if torch.stack([finite, *(~each.any() for each in bad)]).all():
        return
    checks.finite("dual_mm, unary", unary)
    for name, weight, wrong in zip(edges._fields, edges, bad, strict=True):
        if wrong.any():
            image, row, col = (int(place) for place in wrong.nonzero()[0])
            where = f"dual_mm, edges.{name}, image {image}, row {row}, col {col}"
            found = str(float(weight[image, row, col]))
            raise DataError(where, found, "a finite number of 0 or more", "look where the weight comes from")
