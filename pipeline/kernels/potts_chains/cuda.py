"""The CUDA path: blocks of eight chains, whose segments are dealt to threads; scratch in global memory."""

import torch

from pipeline.kernels import source

KERNEL = "potts_chains/kernel.cu"
LANES, WALKERS = 8, 32  # chains of a block, threads that share the segments of one
THREADS = 32  # chains of a block where a thread walks along a whole one


def hand_over(unary, rows, weight, down, labels, minima):
    """See the contract in the package; without labels they are of size 0."""
    batch, classes, height, width = unary.shape
    nodes, chains = (height, width) if down else (width, height)
    grid = -(-chains // LANES), batch
    cost, messages = (unary.new_empty(batch * grid[0] * nodes * classes * LANES) for _ in range(2))
    arguments = unary, rows, weight, cost, messages, rows, labels, minima, height, width, bool(labels.numel())
    constants = {"CLASSES": classes, "DOWN": down, "WALKERS": WALKERS}
    source.launch(KERNEL, "hand_over", grid, (LANES, WALKERS), *arguments, **constants)


def minimum(unary, rows, weight, down, minima):
    """See the contract in the package."""
    batch, classes, height, width = unary.shape
    grid = -(-(width if down else height) // THREADS), batch
    arguments = unary, rows, weight, minima, height, width
    source.launch(KERNEL, "minimum", grid, (THREADS,), *arguments, CLASSES=classes, DOWN=down)


def relabel(unary, weight, across, down, first, labels):
    """See the contract in the package."""
    batch, classes, height, width = unary.shape
    grid = -(-(width if down else height) // THREADS), batch
    lows = unary.new_empty(labels.shape)
    bests = torch.empty(labels.shape, dtype=torch.int32, device=unary.device)
    arguments = unary, weight, across, labels, torch.empty_like(unary), lows, bests, labels, height, width, first
    source.launch(KERNEL, "relabel", grid, (THREADS,), *arguments, CLASSES=classes, DOWN=down)
