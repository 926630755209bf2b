"""The CUDA path: one kernel sums along rows and exchanges rows and columns; run twice it is the whole filter."""

import functools

import numpy as np
import torch

from pipeline.kernels import source

KERNEL = "spatial_gaussian/kernel.cu"
EDGE, PIXELS = 32, 4  # side of a block's square, rows that a thread sums


def spatial_gaussian(values, right, left, row_taps, col_taps, out):
    """Filter values (B, C, H, W) into out; right and left (B, H, W) multiply before and after."""
    batch, classes, height, width = values.shape
    between = values.new_empty(batch, classes, width, height)
    _along_rows(values, right, row_taps, between, before=True)
    _along_rows(between, left, col_taps, out, before=False)


def _along_rows(values, scale, taps, out, before):
    batch, classes, rows, cols = values.shape
    grid = batch * classes, -(-cols // EDGE), -(-rows // EDGE)
    arguments = values, scale, _there(taps.tobytes(), values.device), out, classes, rows, cols, len(taps) - 1
    block = EDGE, EDGE // PIXELS
    source.launch(KERNEL, "along_rows", grid, block, *arguments, BEFORE=before, PIXELS=PIXELS)


@functools.lru_cache(maxsize=1024)
def _there(taps, device):
    """Return weights on a device: kept there, as copying them waits, and a recorded CUDA graph reads where they lay.

    After so many others they are forgotten, and a graph recorded before must be recorded anew.
    """
    return torch.from_numpy(np.frombuffer(taps, np.float32).copy()).to(device)
