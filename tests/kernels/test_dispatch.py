"""Which backend runs a call, and the words that say why one does not."""

import numba
import pytest
import torch

from pipeline.core.errors import BackendError
from pipeline.kernels import dispatch
from pipeline.kernels.permutohedral import build

FLOAT, DOUBLE = torch.ones(1), torch.ones(1).double()
REFUSALS = {"fastest": lambda *tensors: "it is asleep", "cpu": dispatch.cpu_refusal}


def test_auto_takes_the_fastest_that_can():
    assert dispatch.pick("k", "auto", {"first": lambda *tensors: None} | REFUSALS, FLOAT) == "first"
    assert dispatch.pick("k", "auto", REFUSALS, FLOAT) == "cpu"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_auto_leaves_what_none_can_to_the_reference(dtype):
    assert dispatch.pick("k", "auto", REFUSALS, FLOAT, FLOAT.to(dtype)) == "reference"
    assert build(torch.zeros(1, 2, 3, 3, dtype=torch.float64)).backend == "reference"
    assert build(torch.zeros(1, 2, 3, 3)).backend == "cpu"


def test_the_reference_takes_any_call():
    assert dispatch.pick("k", "reference", REFUSALS, DOUBLE) == "reference"
    assert dispatch.pick("k", "reference", {}, FLOAT) == "reference"


def test_one_that_is_asked_for_is_taken_or_says_why_not():
    assert dispatch.pick("k", "cpu", REFUSALS, FLOAT) == "cpu"
    with pytest.raises(BackendError) as error:
        dispatch.pick("k", "fastest", REFUSALS, FLOAT)
    expected = "k, backend 'fastest': found it is asleep, expected a call it can run; use backend 'auto'"
    assert str(error.value) == expected


def test_an_unknown_one_is_refused_with_those_that_are_known():
    with pytest.raises(BackendError) as error:
        dispatch.pick("k", "tpu", REFUSALS, FLOAT)
    expected = "k, backend: found 'tpu', expected one of auto, fastest, cpu, reference; choose one of these"
    assert str(error.value) == expected


def test_compiled_code_runs_on_the_cpu_in_float32():
    assert dispatch.cpu_refusal(FLOAT, FLOAT) is None
    assert dispatch.cpu_refusal(FLOAT, DOUBLE) == "a tensor of torch.float64; it computes in float32"
    assert dispatch.cpu_refusal(FLOAT, torch.ones(1, device="meta")) == "a tensor on meta"


@pytest.mark.parametrize("threads", [1, 2, 1000])
def test_compiled_code_takes_as_many_threads_as_torch(monkeypatch, threads):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    with dispatch.compiled():
        assert numba.get_num_threads() == min(threads, numba.config.NUMBA_NUM_THREADS)


def test_an_error_in_compiled_code_lets_the_next_caller_in():
    with pytest.raises(ZeroDivisionError), dispatch.compiled():
        raise ZeroDivisionError
    with dispatch.compiled():
        pass
