"""Exact minimisation along the rows and columns of a grid with Potts costs: what DualMM is made of.

A chain of P nodes has costs f_i(k) and edges w_i ≥ 0 between i and i + 1::

    E(x) = Σ_i f_i(x_i) + Σ_i w_i [x_i ≠ x_{i+1}]

On a grid of H × W pixels with unaries u, rows and columns share the unaries out: the rows own any volume a, the columns
u − a. Each row and each column is then a chain by itself, and the sum of all their minima is a lower bound of the least
energy of the grid, whatever a is.

Source: Shekhovtsov, Reinbacher, Graber and Pock, arXiv:1601.06274 (dual minorise-maximise). The minorant was
derived without its text, see `reference.minorant`; docs/systems/hybrid.md tells how it works. Time grows as
B·C·H·W·log(max(H, W)).
"""

from typing import NamedTuple

import torch

from pipeline.core.errors import BackendError, DataError
from pipeline.kernels import checks, dispatch, source
from pipeline.kernels.potts_chains import cpu, cuda, reference

BACKENDS = {"cuda": cuda, "cpu": cpu, "reference": reference}
REFUSALS = {"cuda": source.refusal, "cpu": dispatch.cpu_refusal}
MOST_CLASSES = 256  # labels are bytes


class Edges(NamedTuple):
    """The weights w ≥ 0 of a grid's edges, of one floating dtype."""

    right: torch.Tensor  # (B, H, W − 1): from each pixel to the one right of it
    below: torch.Tensor  # (B, H − 1, W): to the one below


def hand_over(unary, rows, edges, axis, *, labels=None, backend="auto"):
    """Let the chains of one direction give the others all they do not need for their own minimum.

    Parameters
    ----------
    unary : Tensor of shape (B, C, H, W), floating
        u.
    rows : Tensor of shape (B, C, H, W), contiguous
        a, what the rows own of u. It is changed in place: rows lose their share, or columns give them theirs.
    edges : Edges
    axis : {"rows", "columns"}
        Which chains give.
    labels : Tensor of shape (B, H, W), uint8, optional
        Is filled with the class of the least share at every pixel, the lowest of equals.
    backend : {"auto", "cuda", "cpu", "reference"}
        ``"auto"`` takes the fastest that can run the call.

    Returns
    -------
    Tensor of shape (B, H) or (B, W), float64
        The minima of the chains, which this leaves as they are. Shares are not negative, so those of the other
        direction can only rise.

    Raises
    ------
    DataError
        If shapes or dtypes disagree.
    BackendError
        If the backend asked for cannot run the call; the message says why. There is no gradient.
    """
    chosen, unary, edges = _given("hand_over", backend, unary, edges, rows)
    down = _is_down(axis)
    minima = _minima(unary, down)
    if chosen != "reference" and labels is None:
        labels = torch.empty(len(unary), 0, 0, dtype=torch.uint8, device=unary.device)
    BACKENDS[chosen].hand_over(unary, rows, edges.below if down else edges.right, down, labels, minima)
    return minima


def minimum(unary, rows, edges, axis, *, backend="auto"):
    """Return the minima of the chains of one direction, computed in float64: (B, H) or (B, W).

    Parameters and errors as for `hand_over`; nothing is changed.
    """
    chosen, unary, edges = _given("minimum", backend, unary, edges, rows)
    down = _is_down(axis)
    weight = edges.below if down else edges.right
    if chosen == "reference":
        return reference.minimum(unary, rows, weight, down)
    minima = _minima(unary, down)
    BACKENDS[chosen].minimum(unary, rows, weight, down, minima)
    return minima


def relabel(unary, edges, labels, axis, first, *, backend="auto"):
    """Give every second chain its best labels while all other chains keep theirs.

    Parameters
    ----------
    unary : Tensor of shape (B, C, H, W), floating
    edges : Edges
    labels : Tensor of shape (B, H, W), uint8, contiguous
        Changed in place. Of labels that are as good as each other the one of the next node is taken, else the lowest.
    axis : {"rows", "columns"}
    first : {0, 1}
        The chains are first, first + 2, …
    backend : {"auto", "cuda", "cpu", "reference"}

    Raises
    ------
    As `hand_over`.
    """
    chosen, unary, edges = _given("relabel", backend, unary, edges)
    _fits("relabel, labels", labels, (unary.shape[0], *unary.shape[2:]), torch.uint8, "give one label for each pixel")
    down = _is_down(axis)
    along, across = (edges.below, edges.right) if down else (edges.right, edges.below)
    BACKENDS[chosen].relabel(unary, along, across, down, first, labels)


def _given(call, backend, unary, edges, rows=None):
    """Refuse what does not fit together; return the backend, and unary and edges as it wants them."""
    where = f"potts_chains.{call}"
    checks.image(f"{where}, unary", unary)
    batch, classes, height, width = unary.shape
    if classes > MOST_CLASSES:
        raise DataError(f"{where}, unary", f"{classes} classes", f"{MOST_CLASSES} at most", "merge classes")
    wanted = {"right": (batch, height, width - 1), "below": (batch, height - 1, width)}
    for name, shape in wanted.items():
        tensor = getattr(edges, name)
        if tuple(tensor.shape) != shape or tensor.dtype != unary.dtype:
            found = f"{tuple(tensor.shape)}, {tensor.dtype}"
            raise DataError(f"{where}, edges.{name}", found, f"{shape}, {unary.dtype}", "give one for each edge")
    tensors = [unary, *edges]
    if rows is not None:
        tensors.append(rows)
        _fits(f"{call}, rows", rows, unary.shape, unary.dtype, "copy the unary")
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        found = "a tensor that needs a gradient"
        raise BackendError(where, found, "tensors without", "learn by structured_svm, or detach them")
    chosen = dispatch.pick(where, backend, REFUSALS, *tensors)
    return chosen, unary.contiguous(), Edges(*(tensor.contiguous() for tensor in edges))


def _fits(what, tensor, shape, dtype, advice):
    """Refuse what is read or written as it lies if it is not that."""
    if tensor.shape != shape or tensor.dtype != dtype or not tensor.is_contiguous():
        found = f"{tuple(tensor.shape)}, {tensor.dtype}{'' if tensor.is_contiguous() else ', strided'}"
        raise DataError(f"potts_chains.{what}", found, f"{tuple(shape)}, {dtype}, contiguous", advice)


def _is_down(axis):
    return {"rows": False, "columns": True}[axis]


def _minima(unary, down):
    batch, _, height, width = unary.shape
    return torch.empty(batch, width if down else height, dtype=torch.float64, device=unary.device)
