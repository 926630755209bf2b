"""Mean field inference in CRFs whose pairwise terms are Gaussian kernels."""

import torch

NORMALISATIONS = ("none", "symmetric", "after", "before")


def mean_field(unary, message, *, iterations, combine, start):
    """Iterate the mean-field update and return the last scores before their softmax.

    Parameters
    ----------
    unary : Tensor of shape (B, C, H, W)
        U = −ψ_u, the log-probabilities of the network.
    message : callable
        Takes q (B, C, H, W) and returns what the pairwise terms add to the score, same shape: the filtered
        q with weights and compatibility applied.
    iterations : int
        T; at 0 the unary is returned.
    combine : callable
        Takes (unary, message) and returns the new scores; for equation 2 of arXiv:1805.04777 their sum.
    start : Tensor of shape (B, C, H, W)
        What the first message is computed of, usually softmax(unary).

    Returns
    -------
    Tensor of shape (B, C, H, W)
        Scores; their softmax is Q after T iterations. Differentiable in all that `message` rests on.

    Notes
    -----
    Source: Zheng et al., arXiv:1502.03240, Algorithm 1; Krähenbühl and Koltun, NIPS 2011.
    """
    q, scores = start, unary
    for _ in range(iterations):
        scores = combine(unary, message(q))
        q = scores.softmax(dim=1)
    return scores


def normalised(kernel, like, mode):
    """Return `kernel`, a linear filter K of q, in one of its normalisations; D = K·1.

    Parameters
    ----------
    kernel : callable
        Takes q (B, C, H, W), returns K q of the same shape.
    like : Tensor of shape (B, C, H, W)
        Gives batch, size, dtype and device.
    mode : {"none", "symmetric", "after", "before"}
        K, D^−½ K D^−½, D^−1 K, K D^−1.

    Returns
    -------
    callable
        Takes q (B, C, H, W), returns the normalised message.
    """
    if mode == "none":
        return kernel
    total = kernel(torch.ones_like(like[:, :1]))
    if mode == "symmetric":
        root = total.rsqrt()
        return lambda q: root * kernel(root * q)
    if mode == "after":
        return lambda q: kernel(q) / total
    return lambda q: kernel(q / total)
