"""Eight float32 in one vector register: what the Numba kernels are made of.

Numba turns simple loops into vector instructions, but not a sum over neighbours that lie scattered, nor an exponential.
`Lanes` is a value of eight float32 that LLVM keeps in one register (or in two, where the processor's are narrower). In
compiled code it is added, subtracted, multiplied with another or with a float32, so that a kernel reads as its formula:

    total = spread(float32(0))
    for k in range(neighbours.size):
        total += weights[k] * load(values, neighbours[k] * WIDTH)

`load` and `store` take an index into the array's memory, counted in elements and not checked: the caller keeps
``index + 8`` within it.
"""

import hashlib
import operator
from pathlib import Path

from llvmlite import ir
from numba import njit
from numba.core import types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic, models, overload, register_model

WIDTH = 8
# Multiply-adds may be fused. Sums are not reordered: results do not hang on what the compiler makes of a loop.
FLAGS = ("contract", "nsz")
OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": set(FLAGS)}
# What is compiled holds code of other files than its own, this one above all; the disk cache looks at its own only.
SOURCES = hashlib.sha256(
    b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.rglob("*.py")))
).hexdigest()

_FLOAT, _INT = ir.FloatType(), ir.IntType(32)
_VECTOR, _INTS = ir.VectorType(_FLOAT, WIDTH), ir.VectorType(_INT, WIDTH)


def kernel(*, parallel=False):
    """Decorate a function to be compiled at its first call, and kept on disk until any kernel's source changes."""

    def decorate(function):
        compiled = njit(function, cache=True, parallel=parallel, **OPTIONS)
        compiled._cache._cache_file._source_stamp = SOURCES
        return compiled

    return decorate


class Lanes(types.Type):
    """Numba's type of eight float32."""

    def __init__(self):
        super().__init__(name="Lanes")


_LANES = Lanes()


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager, numba_type):
        super().__init__(manager, numba_type, _VECTOR)


def _address(context, builder, array_type, array, index):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), _VECTOR.as_pointer())


def _spread(builder, vector, number):
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, number, ir.Constant(_INT, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(_INTS, [0] * WIDTH))


@intrinsic
def at(typing, array, index):
    """Read one element by its place in memory: without the look for a negative index that Numba takes."""

    def build(context, builder, signature, arguments):
        array_type = signature.args[0]
        data = context.make_array(array_type)(context, builder, arguments[0]).data
        return context.unpack_value(builder, array_type.dtype, builder.gep(data, [arguments[1]]))

    return array.dtype(array, types.intp), build


@intrinsic
def load(typing, array, index):
    """Read eight neighbouring elements of a float32 array."""

    def build(context, builder, signature, arguments):
        return builder.load(_address(context, builder, signature.args[0], *arguments), align=4)

    return _LANES(array, types.intp), build


@intrinsic
def store(typing, array, index, lanes):
    """Write eight neighbouring elements of a float32 array."""

    def build(context, builder, signature, arguments):
        builder.store(arguments[2], _address(context, builder, signature.args[0], *arguments[:2]), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), build


def _mask(builder, first, stop):
    numbers = ir.Constant(_INTS, list(range(WIDTH)))
    low, high = (_spread(builder, _INTS, builder.trunc(border, _INT)) for border in (first, stop))
    return builder.and_(builder.icmp_signed(">=", numbers, low), builder.icmp_signed("<", numbers, high))


def _masked(builder, name, result, arguments):
    function = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(get_or_insert_function(builder.module, function, name), arguments)


@intrinsic
def load_part(typing, array, index, first, stop):
    """Read the lanes from `first` to before `stop`; the others are 0 and their memory is not touched."""

    def build(context, builder, signature, arguments):
        address = _address(context, builder, signature.args[0], *arguments[:2])
        mask = _mask(builder, *arguments[2:])
        zeros = ir.Constant(_VECTOR, [0.0] * WIDTH)
        name = "llvm.masked.load.v8f32.p0"
        return _masked(builder, name, _VECTOR, [address, ir.Constant(_INT, 4), mask, zeros])

    return _LANES(array, types.intp, types.intp, types.intp), build


@intrinsic
def store_part(typing, array, index, lanes, first, stop):
    """Write the lanes from `first` to before `stop`; the memory of the others is not touched."""

    def build(context, builder, signature, arguments):
        address = _address(context, builder, signature.args[0], *arguments[:2])
        mask = _mask(builder, *arguments[3:])
        name = "llvm.masked.store.v8f32.p0"
        _masked(builder, name, ir.VoidType(), [arguments[2], address, ir.Constant(_INT, 4), mask])
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes, types.intp, types.intp), build


@njit(inline="always")
def read(array, index, size):
    """Read `size` neighbouring elements, eight at most; the rest is 0."""
    if size < WIDTH:
        return load_part(array, index, 0, size)
    return load(array, index)


@njit(inline="always")
def write(array, index, lanes, size):
    """Write the first `size` of the eight."""
    if size < WIDTH:
        store_part(array, index, lanes, 0, size)
    else:
        store(array, index, lanes)


@intrinsic
def spread(typing, number):
    """Return a float32 eight times."""

    def build(context, builder, signature, arguments):
        return _spread(builder, _VECTOR, *arguments)

    return _LANES(types.float32), build


@intrinsic
def inside(typing, lanes, first, stop):
    """Return the lanes from `first` to before `stop`, and 0 for the others."""

    def build(context, builder, signature, arguments):
        return builder.select(_mask(builder, *arguments[1:]), arguments[0], ir.Constant(_VECTOR, [0.0] * WIDTH))

    return _LANES(lanes, types.intp, types.intp), build


@intrinsic
def transposed(typing, a, b, c, d, e, f, g, h):
    """Turn eight times eight: return the first of each, the second of each, …"""

    def build(context, builder, signature, rows):
        # Three rounds, each pairing lanes whose distance is half of the round before.
        def pick(one, other, numbers):
            return builder.shuffle_vector(one, other, ir.Constant(_INTS, numbers))

        for apart in (4, 2, 1):
            low = [i + j + (WIDTH if half else 0) for i in range(0, WIDTH, 2 * apart) for half in (0, 1)
                   for j in range(apart)]  # fmt: skip
            high = [number + apart for number in low]
            turned = list(rows)
            for first in range(0, WIDTH, 2 * apart):
                for row in range(first, first + apart):
                    turned[row] = pick(rows[row], rows[row + apart], low)
                    turned[row + apart] = pick(rows[row], rows[row + apart], high)
            rows = turned
        return context.make_tuple(builder, signature.return_type, rows)

    return types.UniTuple(_LANES, WIDTH)(a, b, c, d, e, f, g, h), build


def _elementwise(instruction):
    """Return an intrinsic for one instruction on two values of eight."""

    @intrinsic
    def combine(typing, one, other):
        def build(context, builder, signature, arguments):
            return getattr(builder, instruction)(*arguments, flags=FLAGS)

        return _LANES(one, other), build

    return combine


def _arithmetic(operation, instruction):
    """Let `operation` take Lanes on both sides, or a float32 on one."""
    combine = _elementwise(instruction)

    @overload(operation)
    def overloaded(one, other):
        if isinstance(one, Lanes) and isinstance(other, Lanes):
            return lambda one, other: combine(one, other)
        if isinstance(one, Lanes) and other == types.float32:
            return lambda one, other: combine(one, spread(other))
        if one == types.float32 and isinstance(other, Lanes):
            return lambda one, other: combine(spread(one), other)
        return None


for _operation, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
    (operator.iadd, "fadd"),
):
    _arithmetic(_operation, _instruction)


@intrinsic
def nearest_whole(typing, lanes):
    """Round to whole numbers."""

    def build(context, builder, signature, arguments):
        function = ir.FunctionType(_VECTOR, [_VECTOR])
        return builder.call(get_or_insert_function(builder.module, function, "llvm.rint.v8f32"), arguments)

    return _LANES(lanes), build


@intrinsic
def largest(typing, one, other):
    """Return the larger of each pair; where one is NaN, the second."""

    def build(context, builder, signature, arguments):
        return builder.select(builder.fcmp_ordered(">", *arguments), *arguments)

    return _LANES(one, other), build


@intrinsic
def smallest(typing, one, other):
    """Return the smaller of each pair; where one is NaN, the second."""

    def build(context, builder, signature, arguments):
        return builder.select(builder.fcmp_ordered("<", *arguments), *arguments)

    return _LANES(one, other), build


@intrinsic
def pick(typing, one, other, if_less, if_not):
    """Return lanes of `if_less` where `one` is less than `other`, of `if_not` elsewhere."""

    def build(context, builder, signature, arguments):
        one, other, if_less, if_not = arguments
        return builder.select(builder.fcmp_ordered("<", one, other), if_less, if_not)

    return _LANES(one, other, if_less, if_not), build


@intrinsic
def power_of_two(typing, lanes):
    """Return 2**n for whole numbers −126 ≤ n ≤ 127, by writing the exponent."""

    def build(context, builder, signature, arguments):
        whole = builder.fptosi(arguments[0], _INTS)
        biased = builder.add(whole, ir.Constant(_INTS, [127] * WIDTH))
        return builder.bitcast(builder.shl(biased, ir.Constant(_INTS, [23] * WIDTH)), _VECTOR)

    return _LANES(lanes), build
