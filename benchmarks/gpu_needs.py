"""What every CUDA kernel must move and work out at least, as a function of a call's arguments.

Bytes are those of the arrays in the kernel's own signature: what it takes as const is read once, the rest written once.
A table says where less would do, and how many operations there are: a multiply-add counts twice, a comparison once, an
exponential is one `special`, and what only moves numbers has none.
"""

import functools
import math
import re
from typing import NamedTuple

import torch

from pipeline.kernels import source

SIGNATURE = re.compile(r'extern "C" __global__ void(?:\s+__launch_bounds__\([^)]*\))?\s+(\w+)\(([^)]*)\)')


class Launch(NamedTuple):
    """One launch: its arrays' bytes, read and written, what its numbers and arrays' shapes are by name."""

    file: str
    kernel: str
    arrays: dict  # name -> Array
    numbers: dict
    constants: dict

    def __getattr__(self, name):
        """Return a number or a constant of the launch, or the shape of an array."""
        for known in (self.numbers, self.constants):
            if name in known:
                return known[name]
        if name in self.arrays:
            return self.arrays[name].shape
        raise AttributeError(f"{self.file}, {self.kernel}: no argument {name!r}")


class Array(NamedTuple):
    """One array of a launch."""

    shape: tuple
    bytes: int
    place: int  # in memory
    written: bool


class Need(NamedTuple):
    """What a kernel needs beyond its arrays' bytes."""

    operations: callable  # Launch -> dict of a unit's name to how many
    shares: callable = lambda launch: {}  # Launch -> what part of an array must be moved, by name: 1 where not told
    serial: bool = False  # whether it waits for itself along a chain, which no ceiling tells


def launched(file, kernel, arguments, constants):
    """Return a Launch of what `source.launch` is given."""
    arrays, numbers = {}, {}
    for (name, written), argument in zip(parameters(file)[kernel], arguments, strict=True):
        if isinstance(argument, torch.Tensor):
            arrays[name] = Array(tuple(argument.shape), argument.nbytes, argument.data_ptr(), written)
        else:
            numbers[name] = argument
    return Launch(file, kernel, arrays, numbers, constants)


@functools.cache
def parameters(file):
    """Return by kernel the parameters of a file's kernels: (name, whether it is an array that is written)."""
    code = (source.PACKAGE / file).read_text(encoding="utf-8")
    found = {}
    for kernel, written in SIGNATURE.findall(code):
        each = [" ".join(part.split()) for part in written.split(",")]
        found[kernel] = [(part.split()[-1].lstrip("*"), "*" in part and "const" not in part) for part in each]
    return found


def needed(launch):
    """Return what a launch needs at least, dict of str to number: "bytes" and every unit's operations."""
    need = NEEDS[launch.file, launch.kernel]
    shares = need.shares(launch)
    amounts = {}
    for name, array in launch.arrays.items():
        # An array given twice is read once.
        key = array.written, array.place
        amounts[key] = max(amounts.get(key, 0), shares.get(name, 1) * array.bytes)
    return {"bytes": math.ceil(sum(amounts.values()))} | need.operations(launch)


def inside(size, radius):
    """Return how many pairs of `size` positions in a row are `radius` apart at most, each with itself among them."""
    reach = min(radius, size - 1)
    return size * (2 * reach + 1) - reach * (reach + 1)


def windowed(launch, each, special=0):
    """So many operations and exponentials for every pixel and neighbour within the window."""
    first = next(iter(launch.arrays.values())).shape[0]
    pairs = first * inside(launch.height, launch.RADIUS) * inside(launch.width, launch.RADIUS)
    return {"float32": each * pairs} | ({"special": special * pairs} if special else {})


def all_pairs(launch, **each):
    """So many operations of each unit for every pair of pixels."""
    batch, _, pixels = launch.features
    return {unit: number * batch * pixels**2 for unit, number in each.items()}


def elements(launch, name, each, special=0):
    """So many operations and exponentials for every number of an array."""
    count = math.prod(getattr(launch, name))
    return {"float32": each * count} | ({"special": special * count} if special else {})


def hand_over(launch):
    """Messages pass over all nodes, then level by level over half of them: add, least, subtract, cut off."""
    nodes = launch.height if launch.DOWN else launch.width
    passes = 1 + (math.ceil(math.log2(max(nodes, 2))) - 1) / 2
    return elements(launch, "unary", math.ceil(4 * passes + 3))


def chain_scratch(launch):
    """What passes along a chain could stay on the chip; rows do not need the unary."""
    return {"cost": 0, "messages": 0, "bests": 0, "kept": 0} | ({} if launch.DOWN else {"unary": 0})


WINDOW, PAIRS, CORES = "window/kernel.cu", "all_pairs/kernel.cu", "all_pairs/tensor_cores.cu"
SPATIAL, UPDATE, BLURRED = "spatial_gaussian/kernel.cu", "mean_field_update/kernel.cu", "blurred_update/kernel.cu"
LATTICE, CHAINS = "permutohedral/kernel.cu", "potts_chains/kernel.cu"
# A distance is a subtraction and a multiply-add for each feature, so 3; a message a multiply-add for each class.
NEEDS = {
    (WINDOW, "degree"): Need(lambda x: windowed(x, 3 * x.FEATURES, 1)),
    # The distance again, the sum of two gradients times the kernel, and a subtraction, multiply-add for each feature.
    (WINDOW, "degree_backward"): Need(lambda x: windowed(x, 5 * x.FEATURES + 2, 1)),
    # Distances, and for each kernel a product of three added.
    (WINDOW, "weights"): Need(lambda x: windowed(x, 3 * x.FEATURES + 3 * x.KERNELS, x.KERNELS)),
    # Distances, the pull on each feature, and for each kernel two products of three, two sums, one multiply-add more.
    (WINDOW, "weights_backward"): Need(lambda x: windowed(x, 5 * x.FEATURES + 9 * x.KERNELS, x.KERNELS)),
    (WINDOW, "message"): Need(lambda x: windowed(x, 2 * x.classes)),
    (WINDOW, "message_backward_q"): Need(lambda x: windowed(x, 2 * x.classes)),
    (WINDOW, "message_backward_weights"): Need(lambda x: windowed(x, 2 * x.classes)),
    (PAIRS, "all_pairs"): Need(lambda x: all_pairs(x, float32=3 * x.FEATURES + 2 * x.classes, special=1)),
    # Two inner products over the classes, the distance, the pull on each feature.
    (PAIRS, "to_features"): Need(lambda x: all_pairs(x, float32=4 * x.classes + 5 * x.FEATURES + 2, special=1)),
    (CORES, "all_pairs_tf32"): Need(lambda x: all_pairs(x, float32=3 * x.FEATURES, tf32=2 * x.classes, special=1)),
    # A multiply-add for each neighbour in a column, and the scale.
    (SPATIAL, "along_rows"): Need(
        lambda x: {"float32": math.prod(x.values[:2]) * x.cols * (2 * inside(x.rows, x.reach) + x.rows)}
    ),
    # A multiply-add for each message; a softmax is a maximum, a subtraction, a sum, a product and an exponential.
    (UPDATE, "mean_field_update"): Need(
        lambda x: elements(x, "unary", 2 * x.MESSAGES + (0 if x.RESULT == 2 else 4), 0 if x.RESULT == 2 else 1)
    ),
    # Three interpolations of a subtraction and a multiply-add, and the unary.
    (BLURRED, "add_unblurred"): Need(lambda x: elements(x, "unary", 10)),
    # The same, a softmax and the cell's sum.
    (BLURRED, "blurred_update"): Need(lambda x: elements(x, "unary", 15, 1)),
    # The same, a mean over the classes and what differs from it.
    (BLURRED, "backward"): Need(lambda x: elements(x, "unary", 18, 1)),
    # A pixel gives to two rows and two columns of cells.
    (BLURRED, "unblur_backward"): Need(lambda x: elements(x, "gradient", 6)),
    # Elevate, round and weigh every coordinate, compare every two.
    (LATTICE, "embed"): Need(
        lambda x: {"float32": x.features[0] * x.pixels * (10 * x.DIMENSIONS + 7 + 3 * math.comb(x.DIMENSIONS + 1, 2))}
    ),
    (LATTICE, "tell"): Need(lambda x: {}),
    (LATTICE, "neighbours"): Need(lambda x: {}),
    (LATTICE, "turn"): Need(lambda x: elements(x, "values", 1)),
    (LATTICE, "splat"): Need(lambda x: {"float32": 2 * x.entries[0] * 4 * x.QUADS}),
    (LATTICE, "gather"): Need(lambda x: elements(x, "pieces", 1)),
    # One axis has its share of the neighbours.
    (LATTICE, "blur"): Need(lambda x: elements(x, "values", 4), lambda x: {"neighbours": 1 / (x.DIMENSIONS + 1)}),
    (LATTICE, "slice"): Need(lambda x: elements(x, "out", 2 * (x.DIMENSIONS + 1) + 1)),
    (CHAINS, "hand_over"): Need(hand_over, chain_scratch, serial=True),
    (CHAINS, "minimum"): Need(
        lambda x: {"float64": 4 * math.prod(x.unary)}, lambda x: {} if x.DOWN else {"unary": 0}, serial=True
    ),
    # Every second chain; a message is four operations.
    (CHAINS, "relabel"): Need(
        lambda x: elements(x, "unary", 2), lambda x: chain_scratch(x) | {"unary": 0.5, "labels": 0.5}, serial=True
    ),
}
