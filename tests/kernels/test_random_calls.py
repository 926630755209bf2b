"""A thousand random calls, over all kernels, their arguments and the layouts of memory, by the house rule."""

import random

import agreement
import calls
import pytest

EACH = -(-1000 // len(calls.KERNELS))


@pytest.mark.parametrize("name", calls.KERNELS)
def test_random_calls_agree_with_the_reference(fast, name):
    agreement.check(calls.KERNELS[name], fast, (drawn(name, seed) for seed in range(EACH)))


def drawn(name, seed):
    """Draw one call's tensors and options, and how they lie in memory."""
    numbers = random.Random(seed)
    shape = (numbers.randint(1, 2), numbers.randint(1, 12), numbers.randint(1, 9), numbers.randint(1, 20))
    return *calls.KERNELS[name].draw(numbers, shape), numbers.choice(list(agreement.LAYOUTS))
