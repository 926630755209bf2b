"""The CUDA path: blocks of eight chains, whose segments are dealt to threads; scratch in global memory."""

import torch

from pipeline.kernels import source

KERNEL = "potts_chains/kernel.cu"
LANES, WALKERS = 8, 64  # chains of a block, threads that share the segments of one
THREADS = 32  # chains of a block where a thread walks along a whole one
BITS = 32  # classes whose bits are one number


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
    chosen = labels[:, :, first::2] if down else labels[:, first::2]
    if chosen.numel() == 0:
        return
    found = torch.empty(chosen.shape, dtype=torch.uint8, device=labels.device)
    grid = -(-(width if down else height) // (2 * THREADS)), batch
    bests = torch.empty(chosen.shape, dtype=torch.int32, device=unary.device)
    kept = bests.new_empty(batch, -(-classes // BITS), *chosen.shape[1:])
    arguments = unary, weight, across, labels, bests, kept, found, height, width, first
    source.launch(KERNEL, "relabel", grid, (THREADS,), *arguments, CLASSES=classes, DOWN=down)
    chosen.copy_(found)
