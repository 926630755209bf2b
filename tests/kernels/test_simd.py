"""Eight float32 at a time: arithmetic, partial loads and stores, the exponential over its whole range."""

import operator
import sys

import guarded
import numpy as np
import pytest
from numba import float32, njit

from pipeline.kernels import simd, softmax
from pipeline.kernels.simd import WIDTH, inside, largest, load, load_part, smallest, spread, store, store_part

OPTIONS = simd.OPTIONS | {"cache": False}
EIGHT = np.array([3.5, -2.0, 0.25, 1e6, -1e-6, 7.0, -0.5, 2.5], np.float32)
OTHER = np.array([0.5, 8.0, -4.0, 3.0, 1e-3, -7.0, 1.5, 2.5], np.float32)
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pages are forbidden by Linux's mprotect")


@njit(**OPTIONS)
def powers(numbers, out):
    for index in range(0, numbers.size, WIDTH):
        store(out, index, softmax.exp(load(numbers, index)))


def exp(numbers):
    """Run the exponential over any number of float32."""
    padded = np.zeros(-(-numbers.size // WIDTH) * WIDTH, np.float32)
    padded[: numbers.size] = numbers
    out = np.empty_like(padded)
    powers(padded, out)
    return out[: numbers.size]


def units_off(numbers):
    """Return how far the exponential is from float64's, in units in the last place of float32."""
    exact = np.exp(numbers.astype(np.float64))
    return np.abs(exp(numbers) - exact) / np.spacing(exact.astype(np.float32))


def test_exp_is_within_one_and_a_half_units():
    assert units_off(np.linspace(-87.33, 88.37, 1 << 22).astype(np.float32)).max() <= 1.5


def test_exp_is_within_one_and_a_half_units_where_the_exponent_changes():
    halves = ((np.arange(-252, 255) / 2) * np.log(2)).astype(np.float32)
    steps = np.arange(-500, 501)
    near = (halves.view(np.int32)[:, None] + steps).astype(np.int32).view(np.float32).ravel()
    assert units_off(near[(near > -87.33) & (near < 88.37)]).max() <= 1.5


def test_exp_of_small_numbers():
    small = np.float32(10.0) ** np.arange(-38, 0, dtype=np.float32)
    assert units_off(np.concatenate([small, -small])).max() <= 1.5
    assert exp(np.array([0.0, -0.0], np.float32)).tolist() == [1, 1]


def test_exp_is_held_at_both_ends_and_nan_stays():
    low = exp(np.array([-87.4, -100, -1e30, -np.inf], np.float32))
    assert (low >= 0).all()
    assert (low <= 1.2e-38).all()
    high = exp(np.array([88.38, 100, 1e30, np.inf], np.float32))
    assert np.isfinite(high).all()
    assert (high >= exp(np.array([88.37], np.float32))).all()
    assert np.isnan(exp(np.array([np.nan, 0], np.float32))).tolist() == [True, False]


def combined(operation, left, right):
    """Compile one operation of two values, each an array of eight or a float32."""
    one = "load(a, 0)" if left is EIGHT else "a"
    other = "load(b, 0)" if right is OTHER else "b"
    names = {"load": load, "store": store, "operation": operation}
    exec(f"def function(a, b, out):\n    store(out, 0, operation({one}, {other}))", names)
    out = np.empty(WIDTH, np.float32)
    njit(**OPTIONS)(names["function"])(left, right, out)
    return out


@pytest.mark.parametrize("operation", [operator.add, operator.sub, operator.mul, operator.truediv, operator.iadd])
def test_arithmetic_of_eight_with_eight_or_one(operation):
    number = np.float32(1.75)
    plain = operator.add if operation is operator.iadd else operation  # NumPy's would change its left side
    assert np.array_equal(combined(operation, EIGHT, OTHER), plain(EIGHT, OTHER))
    assert np.array_equal(combined(operation, EIGHT, number), plain(EIGHT, number))
    assert np.array_equal(combined(operation, number, OTHER), plain(number, OTHER))


@njit(**OPTIONS)
def several(a, b, out):
    store(out, 0, largest(load(a, 0), load(b, 0)))
    store(out, 8, smallest(load(a, 0), load(b, 0)))
    store(out, 16, simd.nearest_whole(load(a, 0)))
    store(out, 24, spread(a[1]))
    store(out, 32, inside(load(a, 0), 2, 5))
    store(out, 40, simd.pick(load(a, 0), load(b, 0), load(b, 0), load(a, 0)))


def test_functions_of_eight():
    out = np.empty(48, np.float32)
    several(EIGHT, OTHER, out)
    expected = [np.maximum(EIGHT, OTHER), np.minimum(EIGHT, OTHER), np.rint(EIGHT), np.full(8, EIGHT[1])]
    assert np.array_equal(out[:32], np.concatenate(expected))
    assert out[32:40].tolist() == [0, 0, *EIGHT[2:5].tolist(), 0, 0, 0]
    assert np.array_equal(out[40:], np.maximum(EIGHT, OTHER))


@njit(**OPTIONS)
def turn(square, out):
    rows = simd.transposed(
        load(square, 0), load(square, 8), load(square, 16), load(square, 24),
        load(square, 32), load(square, 40), load(square, 48), load(square, 56),
    )  # fmt: skip
    for k in range(WIDTH):
        store(out, k * WIDTH, rows[k])


def test_eight_times_eight_are_turned():
    square = np.arange(64, dtype=np.float32).reshape(8, 8)
    out = np.empty_like(square)
    turn(square, out)
    assert np.array_equal(out, square.T)


@njit(**OPTIONS)
def copy_some(source, at, target, there, size):
    simd.write(target, there, simd.read(source, at, size), size)


@pytest.mark.parametrize("size", [1, 5, 7, 8, 11])
def test_some_are_read_and_written(size):
    target = np.full(24, 99, np.float32)
    copy_some(np.tile(EIGHT, 2), 0, target, 8, size)
    count = min(size, 8)
    assert target.tolist() == [99] * 8 + EIGHT[:count].tolist() + [99] * (16 - count)


@njit(**OPTIONS)
def copy_part(source, at, target, there, first, stop):
    store_part(target, there, load_part(source, at, first, stop), first, stop)


@njit(**OPTIONS)
def read_part(source, at, first, stop, out):
    store(out, 0, load_part(source, at, first, stop) + spread(float32(0)))


@pytest.mark.parametrize("first", [-3, 0, 2, 8])
@pytest.mark.parametrize("stop", [-1, 0, 3, 8, 11])
def test_parts_leave_the_rest_alone(first, stop):
    target, out = np.full(24, 99, np.float32), np.empty(8, np.float32)
    copy_part(EIGHT, 0, target, 8, first, stop)
    read_part(EIGHT, 0, first, stop, out)
    taken = [max(0, first) <= lane < stop for lane in range(8)]
    assert target.tolist() == [99] * 8 + np.where(taken, EIGHT, 99).tolist() + [99] * 8
    assert out.tolist() == np.where(taken, EIGHT, 0).tolist()


@linux
@pytest.mark.parametrize("size", [1, 3, 7])
def test_parts_touch_nothing_outside(size):
    at_end, at_start = (guarded.array(size, at_end=place) for place in (True, False))
    at_end[:] = EIGHT[:size]
    copy_part(at_end, 0, at_start, 0, 0, size)
    assert at_start.tolist() == EIGHT[:size].tolist()
    # The last lanes alone, from an address before the memory, and back past its end.
    copy_part(at_start, size - 8, at_start, size - 8, 8 - size, 8)
    copy_part(at_start, 0, at_end, 0, 0, size)
    assert at_end.tolist() == EIGHT[:size].tolist()
