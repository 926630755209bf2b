"""Every kernel as one function of a backend, tensors and options, and random tensors and options for each.

A `draw` takes a seeded `random.Random`, a shape (B, C, H, W) and what is not left to chance; it returns tensors,
float32, and options, both by name.
"""

import itertools
from random import Random
from typing import NamedTuple

import agreement
import torch

from pipeline.kernels import blurred_update as blurred
from pipeline.kernels import permutohedral as lattices
from pipeline.kernels import potts_chains, window
from pipeline.kernels.all_pairs import all_pairs as pairs
from pipeline.kernels.lattice_mean_field import lattice_mean_field as in_one_call
from pipeline.kernels.mean_field_update import mean_field_update as update
from pipeline.kernels.random_walk import random_walk as walk
from pipeline.kernels.spatial_gaussian import spatial_gaussian as spatial

# H or W of 1, W below, at and above a whole register of eight, one class to more than a register's worth of them.
SHAPES = ((1, 1, 1, 1), (1, 2, 1, 9), (1, 3, 7, 1), (2, 5, 6, 8), (1, 9, 5, 13), (3, 4, 9, 16), (1, 21, 8, 17))
MANY_CLASSES = (1, 40, 4, 10)


def degree(backend, features, radius):
    return window.degree(features, radius, backend=backend)


def windowed(backend, q, near, around, left, right, radius, exclude_self):
    both = window.weights([near, around], radius, left, right, exclude_self=exclude_self, backend=backend)
    return window.message(q, both)


def all_pairs(backend, values, features):
    return pairs(values, features, backend=backend)


def lattice(backend, values, features, left, right):
    return lattices.permutohedral(values, lattices.build(features, backend=backend), left, right)


def spatial_gaussian(backend, values, theta, left, right):
    return spatial(values, theta, left, right, backend=backend)


def lattice_mean_field(backend, unary, near, around, lefts, rights, weights, iterations):
    both = [lattices.build(features, backend=backend) for features in (near, around)]
    sides = lefts.split(1, dim=1), rights.split(1, dim=1)
    return in_one_call(unary, both, *sides, weights, iterations, backend=backend)


def potts_share(backend, unary, rows, right, below, axis):
    """Return what the rows own after the chains of one axis have given."""
    rows, edges = rows.contiguous().clone(), potts_chains.Edges(right[:, 0], below[:, 0])
    potts_chains.hand_over(unary, rows, edges, axis, backend=backend)
    return rows


def mean_field_update(backend, unary, weights, result, **messages):
    return update(unary, list(messages.values()), weights, result=result, backend=backend)


def blurred_update(backend, unary, message, factor):
    return blurred.blurred_update(unary, message, factor, backend=backend)


def add_unblurred(backend, unary, message, factor):
    return blurred.add_unblurred(unary, message, factor, backend=backend)


def random_walk(backend, features, values, affinity):
    return walk(features, values, affinity=affinity, backend=backend)


def normal(random, *shape):
    """Draw normally distributed numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(random.getrandbits(32)))


def uniform(random, *shape):
    """Draw numbers from 0.5 to 1.5, for what is positive."""
    return 0.5 + torch.rand(shape, generator=torch.Generator().manual_seed(random.getrandbits(32)))


def _features(random, shape, most):
    batch, _, height, width = shape
    return random.choice([0.3, 1.0, 3.0]) * normal(random, batch, random.randint(1, most), height, width)


def _draw_degree(random, shape, **fixed):
    return {"features": _features(random, shape, 6)}, {"radius": random.randint(0, 4)} | fixed


def _draw_windowed(random, shape, **fixed):
    batch, _, height, width = shape
    tensors = {"q": uniform(random, *shape), "near": _features(random, shape, 6), "around": _features(random, shape, 2)}
    tensors |= {"left": uniform(random, batch, 2, height, width), "right": uniform(random, batch, 2, height, width)}
    drawn = {"radius": random.choice([0, 1, 2, 3, 20]), "exclude_self": random.random() < 0.5}
    return tensors, drawn | fixed


def _draw_all_pairs(random, shape):
    return {"values": uniform(random, *shape), "features": _features(random, shape, 6)}, {}


def _draw_lattice(random, shape):
    batch, _, height, width = shape
    tensors = {"values": uniform(random, *shape), "features": _apart(random, shape, 8)}
    return tensors | {side: uniform(random, batch, 1, height, width) for side in ("left", "right")}, {}


def _apart(random, shape, most):
    """Draw features away from the faces of simplices."""
    while nearest_face(features := _features(random, shape, most)) < 1e-5:
        pass
    return features


def nearest_face(features):
    """Return the least weight that a pixel gives to a vertex.

    On the face of a simplex rounding decides whether a vertex is touched, with a weight of next to 0. The blur goes
    through the vertices that are, so results there agree to some 1e-3 only, on every pair of float types.
    """
    return min(float(image.weights.min()) for image in lattices.build(features.double(), backend="reference").images)


def _draw_spatial(random, shape):
    batch, _, height, width = shape
    tensors = {"values": uniform(random, *shape), "theta": torch.tensor(10 ** random.uniform(-0.5, 1.5))}
    return tensors | {side: uniform(random, batch, 1, height, width) for side in ("left", "right")}, {}


def _draw_one_call(random, shape, **fixed):
    apart = [_apart(random, shape, most) for most in (6, 2)]
    # Each kernel sums to about 1, as a normalised one does: what is iterated must not blow rounding up.
    sides = [[1 / permuted_ones(features).sqrt() for features in apart] for _ in range(2)]
    tensors = {"unary": 3 * normal(random, *shape), "near": apart[0], "around": apart[1]}
    tensors |= {name: torch.cat(both, dim=1) for name, both in zip(("lefts", "rights"), sides, strict=True)}
    return tensors | {"weights": uniform(random, 2, shape[1])}, {"iterations": random.randint(0, 4)} | fixed


def permuted_ones(features):
    """Return the lattice's row sums."""
    return lattices.permutohedral(torch.ones_like(features[:, :1]), lattices.build(features, backend="reference"))


def _draw_potts(random, shape, **fixed):
    batch, _, height, width = shape
    tensors = {"unary": normal(random, *shape), "rows": normal(random, *shape)}
    # One axis more, so that every layout of memory is tried on the weights too.
    tensors["right"] = normal(random, batch, 1, height, width - 1).abs()
    tensors["below"] = normal(random, batch, 1, height - 1, width).abs()
    return tensors, {"axis": random.choice(["rows", "columns"])} | fixed


def _draw_update(random, shape, **fixed):
    count = random.randint(1, 3)
    options = {"result": random.choice(["q", "q", "log_q", "scores"])} | fixed
    tensors = {"unary": 3 * normal(random, *shape), "weights": normal(random, count, shape[1])}
    return tensors | {f"message_{m}": 3 * normal(random, *shape) for m in range(count)}, options


def _draw_blurred(random, shape, factor=None):
    factor = factor or random.choice([1, 2, 3, 4, 5, 30])
    cells = [-(-size // factor) for size in shape[2:]]
    return {"unary": 3 * normal(random, *shape), "message": 3 * normal(random, *shape[:2], *cells)}, {"factor": factor}


def _draw_walk(random, shape, **fixed):
    batch, _, height, width = shape
    channels = random.choice([1, 3, 8, 24])
    # Inner products of about 1, 0.1 or 0.01: with larger ones rows of P are nearly one position, see test_random_walk.
    features = random.choice([0.1, 0.3, 1.0]) / channels**0.25 * normal(random, batch, channels, height, width)
    drawn = {"affinity": random.choice(["product", "distance"])}
    return {"features": features, "values": uniform(random, *shape)}, drawn | fixed


class Kernel(NamedTuple):
    call: object
    draw: object
    still: tuple = ()  # tensors without a gradient


KERNELS = {
    "degree": Kernel(degree, _draw_degree),
    "windowed": Kernel(windowed, _draw_windowed),
    "all_pairs": Kernel(all_pairs, _draw_all_pairs),
    "lattice": Kernel(lattice, _draw_lattice, ("features",)),
    "lattice, fixed sides": Kernel(lattice, _draw_lattice, ("features", "left", "right")),
    "spatial_gaussian": Kernel(spatial_gaussian, _draw_spatial),
    "spatial_gaussian, fixed sides": Kernel(spatial_gaussian, _draw_spatial, ("left", "right")),
    "lattice_mean_field": Kernel(
        lattice_mean_field, _draw_one_call, ("unary", "near", "around", "lefts", "rights", "weights")
    ),
    "potts_share": Kernel(potts_share, _draw_potts, ("unary", "rows", "right", "below")),
    "mean_field_update": Kernel(mean_field_update, _draw_update),
    "blurred_update": Kernel(blurred_update, _draw_blurred),
    "random_walk": Kernel(random_walk, _draw_walk),
    "add_unblurred": Kernel(add_unblurred, _draw_blurred, ("unary", "message")),
}


def cases(name, shapes=(*SHAPES, MANY_CLASSES), **choices):
    """Yield (tensors, options, layout) for `agreement.check`: every shape with every choice of the options named."""
    layouts = itertools.cycle(agreement.LAYOUTS)
    for number, (shape, *chosen) in enumerate(itertools.product(shapes, *choices.values())):
        fixed = dict(zip(choices, chosen, strict=True))
        yield *KERNELS[name].draw(Random(number), shape, **fixed), next(layouts)
