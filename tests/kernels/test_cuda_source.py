"""How .cu files reach CuPy, seen from a stand-in for it; and why CUDA code will not run, in words."""

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipeline.core.errors import BackendError
from pipeline.kernels import mean_field_update as update
from pipeline.kernels import permutohedral, source, window

FILE = "window/kernel.cu"


class Stream(contextlib.nullcontext):
    """CuPy's stream; the newest CuPy makes it of any other library's."""

    def __init__(self, made_of):
        super().__init__()
        self.made_of = made_of

    from_external = classmethod(lambda cls, stream: cls(stream))


class TorchStream:
    """PyTorch's, as much of it as is looked at."""

    cuda_stream, device_index = 7, 0

    def __cuda_stream__(self):
        return 0, 7


TORCHS = TorchStream()


@pytest.fixture
def cupy(monkeypatch):
    """CuPy's place, taken by what notes the calls."""
    seen = SimpleNamespace(modules=[], launches=[], streams=[])

    class RawModule:
        def __init__(self, code, options):
            seen.modules.append((code, options))

        def get_function(self, name):
            return lambda grid, block, values: seen.launches.append((name, grid, block, values))

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: TORCHS)
    seen.cuda = SimpleNamespace(
        Stream=Stream, Device=lambda index: contextlib.nullcontext(), is_available=lambda: True, ExternalStream=None
    )
    seen.RawModule = RawModule
    monkeypatch.setattr(source, "_cupy", lambda: seen)
    kept = source._function, source._stream, source.missing
    for each in kept:
        each.cache_clear()
    yield seen
    for each in kept:
        each.cache_clear()


def test_a_launch_hands_over_the_source_and_the_memory_itself(cupy):
    values = torch.zeros(2, 3)
    source.launch(FILE, "degree", (4, 5), (32,), values, 6, 0.5, True, RADIUS=3, SPLITS=(0, 5, 7), EXCLUDE_SELF=True)
    [(code, options)] = cupy.modules
    assert code == (source.PACKAGE / FILE).read_text(encoding="utf-8")
    assert options == ("-std=c++17", "-DEXCLUDE_SELF=1", "-DRADIUS=3", "-DSPLITS=0,5,7")
    [(name, grid, block, given)] = cupy.launches
    assert (name, grid, block) == ("degree", (4, 5), (32,))
    assert given == (values.data_ptr(), 6, 0.5, 1)
    assert [type(value) for value in given] == [int, np.int32, np.float32, np.int32]


def test_a_source_is_compiled_once_for_the_same_constants(cupy):
    for radius in (1, 1, 2):
        source.launch(FILE, "degree", (1,), (1,), torch.zeros(1), RADIUS=radius)
    assert [options[1] for _, options in cupy.modules] == ["-DRADIUS=1", "-DRADIUS=2"]
    assert len(cupy.launches) == 3


def test_a_strided_tensor_is_a_fault_of_ours(cupy):
    with pytest.raises(ValueError, match=r"a strided tensor, \(3, 2\) by \(1, 3\)"):
        source.launch(FILE, "degree", (1,), (1,), torch.zeros(2, 3).T)


def test_an_older_cupy_takes_the_address_of_the_stream(cupy):
    cupy.cuda.Stream = object
    cupy.cuda.ExternalStream = lambda *given: given
    assert source._stream(TORCHS) == (7, 0)


def test_what_is_missing_is_said(cupy, monkeypatch):
    assert source.missing() is None
    source.missing.cache_clear()
    cupy.cuda.is_available = lambda: False
    assert source.missing() == "no CUDA device that CuPy can use"

    def absent():
        raise ImportError("No module named 'cupy'")

    source.missing.cache_clear()
    monkeypatch.setattr(source, "_cupy", absent)
    assert source.missing() == (
        "CuPy cannot be imported (No module named 'cupy'); install the extra gpu-cuda12 or gpu-cuda13"
    )


def on_gpu(*shape, dtype=torch.float32):
    """What a refusal sees of a tensor on a GPU."""
    return SimpleNamespace(device=torch.device("cuda:0"), dtype=dtype, shape=shape, ndim=len(shape))


@pytest.mark.parametrize(
    ("refusal", "tensors", "words"),
    [
        (source.refusal, [on_gpu(1, 256, 4, 4)], None),
        (source.refusal, [on_gpu(1, 257, 4, 4)], "a tensor of 257 channels; it takes 256 at most"),
        (
            source.refusal,
            [on_gpu(1, 2, 4, 4, dtype=torch.float64)],
            "a tensor of torch.float64; it computes in float32",
        ),
        (update.REFUSALS["cuda"], [on_gpu(1, 2, 4, 4)] * 6, None),
        (update.REFUSALS["cuda"], [on_gpu(1, 2, 4, 4)] * 7, "5 messages; it takes 4 at most"),
        (permutohedral.REFUSALS["cuda"], [on_gpu(8, 2, 5000, 5000)], None),
        (
            permutohedral.REFUSALS["cuda"],
            [on_gpu(10, 2, 5000, 5000)],
            "a batch of 250000000 pixels; it numbers at most 238609294",
        ),
    ],
)
def test_a_refusal_says_why(cupy, refusal, tensors, words):
    assert refusal(*tensors) == words


def test_cuda_asked_for_on_the_cpu_says_why():
    with pytest.raises(BackendError, match=r"window, backend 'cuda'.*a tensor on cpu"):
        window.degree(torch.zeros(1, 1, 2, 2), 1, backend="cuda")
