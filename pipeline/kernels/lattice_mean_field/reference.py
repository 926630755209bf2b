"""The iterations in plain PyTorch."""

from pipeline.kernels.mean_field_update import mean_field_update
from pipeline.kernels.permutohedral import permutohedral


def lattice_mean_field(unary, lattices, lefts, rights, weights, iterations):
    """See the contract in the package."""
    q = unary.softmax(dim=1)
    scores = unary
    for _ in range(iterations):
        both = zip(lattices, lefts, rights, strict=True)
        messages = [permutohedral(q, lattice, left, right) for lattice, left, right in both]
        scores = mean_field_update(unary, messages, weights, result="scores", backend="reference")
        q = scores.softmax(dim=1)
    return scores
