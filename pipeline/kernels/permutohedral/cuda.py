"""The CUDA path: one lattice for the whole batch, each image with vertices of its own.

An entry is a pixel's share in one vertex. Entries are sorted by their vertex's key; equal keys are one vertex, which
gathers its entries in their order. Nothing is added by atomics, so that equal inputs give equal bits.
"""

from typing import NamedTuple

import numpy as np
import torch

from pipeline.kernels import source
from pipeline.kernels.permutohedral import numbering

KERNEL = "permutohedral/kernel.cu"
THREADS = 128
TURN = (32, 8)  # threads of a block that turns 32 × 32 numbers
PIECE = 32  # most entries that one thread sums
MOST_ENTRIES = 2**31 - 1  # are numbered in 32 bits


class Lattice(NamedTuple):
    """A batch's lattice; B images of N pixels, d features, V vertices, E = B·N·(d + 1) entries."""

    cells: torch.Tensor  # (E,) int32: the vertex of each pixel's corners
    weights: torch.Tensor  # (E,) float32: its barycentric coordinates, which sum to 1
    entries: torch.Tensor  # (E,) int32: entries by vertex
    pieces: torch.Tensor  # (pieces + 1,) int32: where each piece of at most PIECE entries begins in `entries`
    first_pieces: torch.Tensor  # (V + 1,) int32: each vertex's first piece
    neighbours: torch.Tensor  # (V, d + 1, 2) int32: next and previous vertex along each axis; −1 where there is none


def refusal(tensor):
    """Say why CUDA code cannot take a tensor (B, C, H, W), or return None."""
    batch, _, height, width = tensor.shape
    if batch * height * width * 9 > MOST_ENTRIES:
        return f"a batch of {batch * height * width} pixels; it numbers at most {MOST_ENTRIES // 9}"
    return source.refusal(tensor)


def build(features, low, high):
    """Place the pixels of every image: `features` (B, d, H, W) float32, contiguous, their ends (B, d) on the host.

    The only number read back is how many vertices and pieces there are.
    """
    features = features.flatten(2)
    batch, dimensions, pixels = features.shape
    corners = dimensions + 1
    keys, weights, steps = _embed(features, low, high)
    # Stable, so that a vertex's entries are summed in the order of the pixels.
    keys, order = keys.sort(dim=1, stable=True)
    starting = torch.ones_like(keys, dtype=torch.bool)
    torch.ne(keys[:, 1:], keys[:, :-1], out=starting[:, 1:])
    places = torch.arange(batch, device=keys.device)[:, None] * (pixels * corners)
    entries = order.add_(places).int().flatten()
    del order
    cut = starting.clone()
    cut[:, ::PIECE] = True
    vertex, piece = (begin.flatten().cumsum(0, dtype=torch.int32) for begin in (starting, cut))  # counted from 1
    starts, pieces = (_firsts(*each) for each in zip((vertex, piece), _last(vertex, piece), strict=True))
    first_pieces = piece[starts] - 1
    cells = _tell(entries, vertex.sub_(1), dimensions)
    neighbours = _neighbours(keys.flatten()[starts], starts, steps, pixels * corners)
    return Lattice(cells, weights, entries, _ends(pieces, entries), _ends(first_pieces, pieces), neighbours)


def filtered(values, lattice, left, right, transposed, out):
    """Splat, blur and slice `values` (B, C, H, W) into `out`; `right` and `left` (B, N) multiply before and after."""
    batch, classes = values.shape[:2]
    pixels = left.shape[1]
    vertices, corners = lattice.neighbours.shape[:2]
    quads = -(-classes // 4)
    sizes = {"DIMENSIONS": corners - 1, "QUADS": quads}
    rows = values.new_empty(batch * pixels, 4 * quads)
    grid = -(-pixels // 32), -(-4 * quads // 32), batch
    source.launch(KERNEL, "turn", grid, TURN, values, right, rows, classes, pixels, **sizes)
    count = len(lattice.pieces) - 1
    pieces = values.new_empty(count, 4 * quads)
    arguments = rows, lattice.weights, lattice.entries, lattice.pieces, pieces, count
    source.launch(KERNEL, "splat", _blocks(count * quads), (THREADS,), *arguments, **sizes)
    del rows
    now = values.new_empty(vertices, 4 * quads)
    every = _blocks(vertices * quads)
    source.launch(KERNEL, "gather", every, (THREADS,), pieces, lattice.first_pieces, now, vertices, **sizes)
    del pieces
    then = torch.empty_like(now)
    for axis in reversed(range(corners)) if transposed else range(corners):
        source.launch(KERNEL, "blur", every, (THREADS,), now, lattice.neighbours, then, vertices, axis, **sizes)
        now, then = then, now
    arguments = now, lattice.cells, lattice.weights, left, out, classes, pixels
    source.launch(KERNEL, "slice", (*_blocks(pixels), batch), (THREADS,), *arguments, **sizes)


def _embed(features, low, high):
    """Return every entry's key (B, N·(d + 1)) and weight, and what a key grows by along each axis (B, d + 1)."""
    batch, dimensions, pixels = features.shape
    numbers = [numbering.numbering(*edges) for edges in zip(low, high, strict=True)]
    strides, lowest = (np.stack(parts) for parts in zip(*numbers, strict=True))
    steps = np.stack([numbering.steps(image) for image in strides])
    scales = numbering.scales(dimensions)
    host = (torch.from_numpy(array) for array in (scales, strides, lowest, steps))
    scales, strides, lowest, steps = (tensor.to(features.device, non_blocking=True) for tensor in host)
    keys = torch.empty(batch, pixels * (dimensions + 1), dtype=torch.int64, device=features.device)
    weights = features.new_empty(keys.numel())
    grid = (*_blocks(pixels), batch)
    arguments = features, scales, strides, lowest, keys, weights, pixels
    source.launch(KERNEL, "embed", grid, (THREADS,), *arguments, DIMENSIONS=dimensions)
    return keys, weights, steps


def _last(*numbers):
    """Return the last of each, read back together."""
    return torch.stack([each[-1] for each in numbers]).tolist()


def _firsts(numbers, count):
    """Return where each of 1 to `count` is first among `numbers`, which rise by at most one."""
    return torch.searchsorted(numbers, torch.arange(1, count + 1, dtype=torch.int32, device=numbers.device))


def _tell(entries, vertices, dimensions):
    """Return the vertex of every pixel's corners."""
    cells = torch.empty_like(entries)
    arguments = entries, vertices, cells, len(entries)
    source.launch(KERNEL, "tell", _blocks(len(entries)), (THREADS,), *arguments, DIMENSIONS=dimensions)
    return cells


def _neighbours(keys, starts, steps, entries_per_image):
    batch, corners = steps.shape
    images = (starts // entries_per_image).int()
    edges = torch.arange(batch + 1, device=keys.device) * entries_per_image
    first_vertices = torch.searchsorted(starts, edges, out_int32=True)
    out = torch.empty(len(keys), corners, 2, dtype=torch.int32, device=keys.device)
    arguments = keys, images, first_vertices, steps, out, len(keys)
    sizes = {"DIMENSIONS": corners - 1}
    source.launch(KERNEL, "neighbours", _blocks(out.numel()), (THREADS,), *arguments, **sizes)
    return out


def _ends(starts, parts):
    """Return where runs of `parts` begin, and behind them where the last ends."""
    return torch.cat([starts, starts.new_full((1,), len(parts))]).int()


def _blocks(threads):
    return (-(-threads // THREADS),)
