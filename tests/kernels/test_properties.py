"""What holds for every kernel: batches, layouts, threads, bounds of memory, linearity, transposes."""

import sys
from concurrent.futures import ThreadPoolExecutor
from random import Random

import agreement
import calls
import guarded
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

quick = settings(derandomize=True, deadline=None, max_examples=25, database=None)
kernels = pytest.mark.parametrize("name", calls.KERNELS)
shapes = st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(1, 20))
seeds = st.integers(0, 10**6)
# Of these, the output is linear in the tensor named.
LINEAR = {"windowed": "q", "all_pairs": "values", "random_walk": "values"}
LINEAR |= {f"{name}{sides}": "values" for name in ("lattice", "spatial_gaussian") for sides in ("", ", fixed sides")}


def run(name, tensors, options, **how):
    return agreement.run(calls.KERNELS[name], "cpu", tensors, options, dtype=torch.float32, **how)


def assert_equal(found, expected):
    for part in expected:
        assert torch.equal(found[part], expected[part]), part


@kernels
@quick
@given(shape=shapes, seed=seeds)
def test_a_batch_is_its_images_one_by_one(name, shape, seed):
    tensors, options = calls.KERNELS[name].draw(Random(seed), shape)
    both = run(name, tensors, options)["output"]
    for image in range(shape[0]):
        own = {key: x[image : image + 1] if x.ndim == 4 else x for key, x in tensors.items()}
        assert torch.equal(run(name, own, options)["output"], both[image : image + 1])


@kernels
@pytest.mark.parametrize("layout", [layout for layout in agreement.LAYOUTS if layout != "contiguous"])
@quick
@given(shape=shapes, seed=seeds)
def test_the_layout_in_memory_changes_no_bit(name, layout, shape, seed):
    tensors, options = calls.KERNELS[name].draw(Random(seed), shape)
    laid, plain = (run(name, tensors, options, layout=one) for one in (layout, "contiguous"))
    assert torch.equal(laid["output"], plain["output"])
    # PyTorch sums some gradients in the order of memory; the random calls judge those.
    assert all(laid[part].shape == plain[part].shape for part in plain)


@pytest.mark.parametrize("name", LINEAR)
@quick
@given(shape=shapes, seed=seeds)
def test_linear_in_what_is_sent(name, shape, seed):
    """Twice the input gives exactly twice the output, each class is by itself, zero gives zero."""
    tensors, options = calls.KERNELS[name].draw(Random(seed), shape)
    sent = LINEAR[name]
    signed = tensors[sent] - 1
    one = run(name, tensors | {sent: signed}, options)["output"]
    assert torch.equal(run(name, tensors | {sent: -2 * signed}, options)["output"], -2 * one)
    assert torch.equal(run(name, tensors | {sent: signed.flip(1)}, options)["output"], one.flip(1))
    assert not run(name, tensors | {sent: 0 * signed}, options)["output"].any()


@pytest.mark.parametrize("name", LINEAR)
@quick
@given(shape=shapes, seed=seeds)
def test_the_gradient_is_the_transpose(name, shape, seed):
    """⟨g, K v⟩ = ⟨Kᵀ g, v⟩: the gradient to v, times v, is what was asked of the output."""
    tensors, options = calls.KERNELS[name].draw(Random(seed), shape)
    found = {key: value.double() for key, value in run(name, tensors, options).items()}
    received = torch.randint(10, shape, generator=torch.Generator().manual_seed(1)).double()
    there = (received * found["output"]).sum()
    back = (found[f"gradient to {LINEAR[name]}"] * tensors[LINEAR[name]].double()).sum()
    # Both are sums of numbers ≥ 0, none further off than the longest chain of float32 sums below them.
    terms = shape[2] * shape[3] + 64
    assert abs(there - back) <= 2 * terms * agreement.EPS * there.abs()


@kernels
@pytest.mark.parametrize("shape", [(2, 5, 9, 17), (1, 3, 48, 64)])
def test_the_number_of_threads_changes_no_bit(name, shape):
    if name == "windowed":
        shape = (*shape[:2], min(shape[2], 20), min(shape[3], 24))
    tensors, options = calls.KERNELS[name].draw(Random(1), shape)
    one = run(name, tensors, options)
    torch.set_num_threads(2)
    two = run(name, tensors, options)
    linear = [part for part in one if part == "output" or part.endswith(("values", "q", "features"))]
    assert_equal({part: two[part] for part in linear}, {part: one[part] for part in linear})


def test_python_threads_may_call_at_once():
    drawn = [(name, *calls.KERNELS[name].draw(Random(2), (1, 3, 17, 19))) for name in calls.KERNELS] * 4
    alone = [run(*call) for call in drawn]
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(lambda call: run(*call), drawn))
    finally:
        sys.setswitchinterval(switch)
    for found, expected in zip(together, alone, strict=True):
        assert_equal(found, expected)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pages are forbidden by Linux's mprotect")
@kernels
@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("shape", [(2, 5, 3, 17), (1, 1, 1, 1), (1, 3, 9, 8)])
def test_no_memory_is_touched_outside_the_tensors(name, shape, seed, at_end):
    """Inputs and outputs border on forbidden pages; what is allocated starts as NaN, which must not show."""
    kernel = calls.KERNELS[name]
    tensors, options = kernel.draw(Random(seed), shape)
    expected = run(name, tensors, options)
    fenced = {key: guarded.tensor(x, at_end=at_end) for key, x in tensors.items()}
    moved = [x.requires_grad_() for key, x in fenced.items() if key not in kernel.still]
    with guarded.allocation(at_end=at_end):
        out = kernel.call("cpu", **fenced, **options)
        if moved:
            received = torch.randint(10, out.shape, generator=torch.Generator().manual_seed(1)).float()
            gradients = torch.autograd.grad(out, moved, guarded.tensor(received, at_end=at_end))
            for gradient, whole in zip(gradients, list(expected.values())[1:], strict=True):
                assert torch.equal(gradient, whole)
    assert torch.equal(out, expected["output"])
