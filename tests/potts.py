"""Potts grids to test with, and their exact solutions."""

import itertools

import numpy as np
import torch

from pipeline.kernels.potts_chains import Edges


def problem(classes, height, width, most, seed=0, batch=1):
    """Draw unaries from 0 to 1 and weights from 0 to `most`."""
    generator = torch.Generator().manual_seed(seed)
    unary = torch.rand(batch, classes, height, width, generator=generator)
    sizes = (batch, height, width - 1), (batch, height - 1, width)
    return unary, Edges(*(most * torch.rand(size, generator=generator) for size in sizes))


def least_energy(unary, edges):
    """Return the least energy of one image, by dynamic programming over the labels of whole columns."""
    classes, height, width = unary.shape[1:]
    own = unary[0].detach().double().numpy()
    right, below = (weight[0].detach().double().numpy() for weight in edges)
    columns = np.array(list(itertools.product(range(classes), repeat=height)))
    jumps = columns[:, 1:] != columns[:, :-1]

    def inside(col):
        return own[columns, np.arange(height), col].sum(axis=1) + jumps @ below[:, col]

    best = inside(0)
    for col in range(1, width):
        step = np.zeros((len(columns), len(columns)))
        for row in range(height):
            step += right[row, col - 1] * (columns[:, row][:, None] != columns[:, row])
        best = (best[:, None] + step).min(axis=0) + inside(col)
    return best.min()
