"""The CUDA path: the update reads the unary once and writes coarse cells; fine scores stay in registers."""

from pipeline.kernels import source

KERNEL = "blurred_update/kernel.cu"
THREADS = 128  # of a block that makes coarse cells
BLOCK = (32, 4)  # threads of a block elsewhere


def add_unblurred(unary, message, factor, top, left, out):
    """unary and out (B, C, H, W), message (B, C, h, w)."""
    arguments = unary, message, out, *_sizes(unary, message), top, left
    source.launch(KERNEL, "add_unblurred", _planes(unary), BLOCK, *arguments, **_constants(unary, factor))


def blurred_update(unary, message, factor, top, left, out):
    """unary (B, C, H, W), message and out (B, C, h, w)."""
    batch, _, rows, cols = message.shape
    constants = _constants(unary, factor)
    lanes, cells = constants["LANES"], constants["CELLS"]
    grid = -(-cols // cells), rows, batch
    arguments = unary, message, out, *_sizes(unary, message), top, left
    source.launch(KERNEL, "blurred_update", grid, (lanes * cells,), *arguments, **constants)


def backward(gradient, unary, message, factor, top, left, to_unary):
    """Return the gradient of `blurred_update` to the unary, which is that to the unblurred message too.

    gradient and message (B, C, h, w), unary and to_unary (B, C, H, W).
    """
    batch, _, height, width = unary.shape
    grid = -(-width // BLOCK[0]), -(-height // BLOCK[1]), batch
    arguments = gradient, unary, message, to_unary, *_sizes(unary, message), top, left
    source.launch(KERNEL, "backward", grid, BLOCK, *arguments, **_constants(unary, factor))


def unblur_backward(gradient, factor, top, left, out):
    """Return the gradient of `unblur`: gradient (B, C, H, W), out (B, C, h, w)."""
    arguments = gradient, out, *_sizes(gradient, out), top, left
    source.launch(KERNEL, "unblur_backward", _planes(out), BLOCK, *arguments, **_constants(out, factor))


def _constants(like, factor):
    """Return the constants of all kernels, so that they are compiled once."""
    lanes = min(factor, THREADS)
    return {"CLASSES": like.shape[1], "FACTOR": factor, "LANES": lanes, "CELLS": THREADS // lanes}


def _sizes(fine, coarse):
    return *fine.shape[2:], *coarse.shape[2:]


def _planes(like):
    """Return a grid with one plane after another, since only its first axis may be long."""
    batch, classes, height, width = like.shape
    return batch * classes, -(-width // BLOCK[0]), -(-height // BLOCK[1])
