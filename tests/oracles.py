"""Slow and sure: what the fast code computes, once more, pixel by pixel in float64, straight from the formulas."""

import itertools

import numpy as np


def kernel_matrix(features, radius):
    """Return K, (H·W, H·W): exp(−½ ‖f_i − f_j‖²) where j lies in the window of i, else 0; features (F, H, W)."""
    _, height, width = features.shape
    pixels = list(itertools.product(range(height), range(width)))
    matrix = np.zeros((len(pixels), len(pixels)))
    for i, (row, col) in enumerate(pixels):
        for j, (other_row, other_col) in enumerate(pixels):
            if max(abs(row - other_row), abs(col - other_col)) <= radius:
                difference = features[:, row, col] - features[:, other_row, other_col]
                matrix[i, j] = np.exp(-0.5 * (difference**2).sum())
    return matrix


def window_message(q, features, radius):
    """Return the windowed Gaussian message of one image: q (C, H, W), features (F, H, W)."""
    message = np.zeros(q.shape)
    matrix = kernel_matrix(features, radius)
    for label, plane in enumerate(q):
        for i, row in enumerate(matrix):
            message[label].flat[i] = sum(weight * value for weight, value in zip(row, plane.flat, strict=True))
    return message


def normalised(matrix, mode):
    """Return a kernel matrix in one of its normalisations."""
    total = matrix.sum(axis=1)
    return {
        "none": matrix,
        "symmetric": matrix / np.sqrt(total[:, None] * total[None, :]),
        "after": matrix / total[:, None],
        "before": matrix / total[None, :],
    }[mode]


def mean_field(unary, matrix, penalty, iterations):
    """Return Q (C, H, W) after some iterations of mean field, by its definition.

    Q_i(x) ∝ exp(U_i(x) − Σ_j K_ij Σ_y penalty[x, y] Q_j(y)); it starts at softmax(U).
    """
    classes = unary.shape[0]
    scores = unary.reshape(classes, -1)
    q = softmax(scores)
    for _ in range(iterations):
        energy = np.zeros_like(scores)
        for i, j in itertools.product(range(scores.shape[1]), repeat=2):
            for label, other in itertools.product(range(classes), repeat=2):
                energy[label, i] += matrix[i, j] * penalty[label, other] * q[other, j]
        q = softmax(scores - energy)
    return q.reshape(unary.shape)


def softmax(scores):
    """Softmax over the first axis."""
    powers = np.exp(scores - scores.max(axis=0))
    return powers / powers.sum(axis=0)
