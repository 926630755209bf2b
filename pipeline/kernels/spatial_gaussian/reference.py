"""The formula in plain PyTorch: one matrix of distances for rows, one for columns."""

import torch


def spatial_gaussian(values, theta):
    """See the contract in the package."""
    rows, cols = (_matrix(size, theta) for size in values.shape[-2:])
    return rows @ values @ cols


def _matrix(size, theta):
    position = torch.arange(size).to(theta)
    return torch.exp(-0.5 * ((position[:, None] - position) / theta).square())
