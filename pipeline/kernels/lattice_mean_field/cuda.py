"""The CUDA path: the lattices' and the update's own kernels in turn, Q in the place of the result."""

import torch

from pipeline.kernels.mean_field_update import RESULTS
from pipeline.kernels.mean_field_update.cuda import mean_field_update
from pipeline.kernels.permutohedral.cuda import filtered

Q, SCORES = RESULTS.index("q"), RESULTS.index("scores")


def lattice_mean_field(unary, lattices, scales, weights, iterations, out):
    """As the contract; scales ((left, right), (left, right)) of (B, N), weights (B, S, 2, C), out (B, S, C, H, W)."""
    for number in range(weights.shape[1]):
        # Of one setting alone, a view of the result; of several, what is copied there.
        own = out[:, 0] if weights.shape[1] == 1 else torch.empty_like(unary)
        _one_setting(unary, lattices, scales, weights[:, number].contiguous(), iterations, own)
        if weights.shape[1] > 1:
            out[:, number] = own


def _one_setting(unary, lattices, scales, weights, iterations, out):
    if iterations == 0:
        out.copy_(unary)
        return
    messages = [torch.empty_like(unary) for _ in lattices]
    flat, q, *sent = (x.flatten(2) for x in (unary, out, *messages))
    mean_field_update(flat, (flat,), weights[:, :0], Q, q)
    for step in range(iterations):
        for lattice, (left, right), message in zip(lattices, scales, messages, strict=True):
            filtered(out, lattice, left, right, False, message)
        mean_field_update(flat, tuple(sent), weights, Q if step < iterations - 1 else SCORES, q)
