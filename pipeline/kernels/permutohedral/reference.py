"""The lattice in plain PyTorch: vertices found by sorting, blur and slice by indexing; differentiable in the values."""

from typing import NamedTuple

import torch


class Lattice(NamedTuple):
    """One image's lattice; N pixels, d features, V vertices."""

    cells: torch.Tensor  # (N, d + 1) int64: the pixel's vertices
    weights: torch.Tensor  # (N, d + 1): its barycentric coordinates, which sum to 1
    neighbours: torch.Tensor  # (d + 1, 2, V) int64: next and previous vertex along each axis; V where there is none


def build(features):
    """Place the pixels of one image: `features` (N, d)."""
    pixels, dimensions = features.shape
    corners = dimensions + 1
    nearest, rank, weights = _simplices(features)
    # Remainder r of the simplex: every coordinate moves by r, the r largest ranks by d + 1 less.
    remainders = torch.arange(corners, device=features.device).view(1, corners, 1)
    falls = rank[:, None] > dimensions - remainders
    points = nearest[:, None] + remainders - corners * falls.long()
    vertices, cells = torch.unique(points.view(-1, corners), dim=0, return_inverse=True)
    return Lattice(cells.view(pixels, corners), weights, _neighbours(vertices))


def _simplices(features):
    """Return per pixel the nearest remainder-0 point (N, d + 1), the coordinates' ranks and barycentric weights."""
    dimensions = features.shape[1]
    corners = dimensions + 1
    axes = torch.arange(1, corners).to(features)
    scaled = features * (2 / 3) ** 0.5 * corners / (axes * (axes + 1)).sqrt()
    above = scaled.flip(1).cumsum(1).flip(1)
    none = torch.zeros_like(features[:, :1])
    elevated = torch.cat([above, none], dim=1) - torch.cat([none, axes * scaled], dim=1)
    below, up = (edge(elevated / corners) * corners for edge in (torch.floor, torch.ceil))
    nearest = torch.where(up - elevated < elevated - below, up, below)
    rest = elevated - nearest
    earlier = torch.ones(corners, corners, dtype=torch.bool, device=features.device).tril(-1)
    ahead = (rest[:, None, :] > rest[:, :, None]) | ((rest[:, None, :] == rest[:, :, None]) & earlier)
    rank = ahead.sum(dim=2) + (nearest.sum(dim=1, keepdim=True) / corners).round().long()
    turns = (rank < 0).long() - (rank > dimensions).long()
    nearest, rank = nearest + corners * turns, rank + corners * turns
    part = torch.empty_like(rest).scatter_(1, rank, (elevated - nearest) / corners)
    # part falls from rank 0 to rank d; corner r weighs part[d − r] − part[d + 1 − r], corner 0 what remains of 1.
    weights = torch.cat([1 - part[:, :1] + part[:, -1:], (part[:, :-1] - part[:, 1:]).flip(1)], dim=1)
    return nearest.long(), rank, weights


def _neighbours(vertices):
    """Return for every vertex (V, d + 1) the next and previous one along each axis."""
    count, corners = vertices.shape
    number = {tuple(point): k for k, point in enumerate(vertices.tolist())}
    steps = 1 - corners * torch.eye(corners, dtype=torch.long, device=vertices.device)
    found = [
        [[number.get(tuple(point), count) for point in (vertices + sign * step).tolist()] for sign in (1, -1)]
        for step in steps
    ]
    return torch.tensor(found, device=vertices.device).view(corners, 2, count)


def filtered(values, lattice, left, right, transposed):
    """Splat, blur and slice `values` (N, C), times `right` (N,) before and `left` (N,) after; the same shape."""
    corners, _, count = lattice.neighbours.shape
    sent = lattice.weights.to(values)[..., None] * (right[:, None] * values)[:, None]
    at_vertices = torch.zeros(count, values.shape[1]).to(values)
    at_vertices = at_vertices.index_add(0, lattice.cells.flatten(), sent.flatten(0, 1))
    for axis in reversed(range(corners)) if transposed else range(corners):
        padded = torch.cat([at_vertices, torch.zeros_like(at_vertices[:1])])
        after, before = lattice.neighbours[axis]
        at_vertices = at_vertices + 0.5 * (padded[after] + padded[before])
    gathered = at_vertices[lattice.cells] * lattice.weights.to(values)[..., None]
    return left[:, None] * gathered.sum(dim=1) / (1 + 2.0 ** (1 - corners))
