"""The stand-in for a GPU finds what is wrong with a kernel: races, lost threads, indices, arguments."""

import cuda_cpu
import pytest
import torch

pytestmark = pytest.mark.skipif(cuda_cpu.COMPILER is None, reason="no g++")

HEAD = """extern "C" __global__ void turned(const float* __restrict__ values, float* __restrict__ out, int count) {
  __shared__ float tile[64];
"""
SOURCES = {
    "right": "tile[threadIdx.x] = values[threadIdx.x]; __syncthreads(); out[threadIdx.x] = tile[7 - threadIdx.x];",
    "no barrier": "tile[threadIdx.x] = values[threadIdx.x]; out[threadIdx.x] = tile[7 - threadIdx.x];",
    "lost thread": "if (threadIdx.x > 3) return; __syncthreads(); out[threadIdx.x] = values[threadIdx.x];",
    "too far": "tile[threadIdx.x + 60] = values[threadIdx.x]; out[threadIdx.x] = tile[threadIdx.x + 60];",
    "beside": "out[threadIdx.x + 1] = values[threadIdx.x];",
    "read beyond": "out[threadIdx.x] = values[threadIdx.x + 1];",
    "between blocks": "if (blockIdx.x == 0) out[threadIdx.x] = values[threadIdx.x]; else out[threadIdx.x] = 1.f;",
}


@pytest.fixture
def launch(tmp_path):
    """Run one of SOURCES on eight numbers; return what it wrote."""
    launcher = cuda_cpu.Launcher(tmp_path)

    def run(name, *arguments, blocks=1):
        path = tmp_path / f"{name}.cu"
        path.write_text(f"{HEAD}{SOURCES[name]}\n}}\n", encoding="utf-8")
        out = torch.zeros(8)
        launcher(path, "turned", (blocks,), (8,), *(arguments or (torch.arange(8.0), out, 8)))
        return out

    return run


def test_a_right_kernel_runs(launch):
    assert launch("right").tolist() == [7, 6, 5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no barrier", "threads run backward give other bits"),
        ("lost thread", "4 of 8 threads wait at a barrier that the others never reach"),
        ("too far", "an index lies outside its array"),
        ("beside", "turned wrote where it should not"),
    ],
)
def test_what_is_wrong_is_found(launch, name, words):
    with pytest.raises(AssertionError, match=words):
        launch(name)


def test_blocks_that_write_one_place_are_found(launch):
    with pytest.raises(AssertionError, match="give other bits"):
        launch("between blocks", blocks=2)


def test_what_lies_beyond_an_array_is_nan(launch):
    out = launch("read beyond")
    assert out[:7].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert out[7].isnan()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((torch.zeros(8), torch.zeros(8)), "turned takes 3 arguments, 2 were given"),
        ((torch.zeros(8), torch.zeros(8), 8.0), "argument 2: fv for a parameter iv"),
        ((torch.zeros(8), 8, torch.zeros(8)), "argument 1: iv for a parameter fw"),
        ((torch.zeros(8).long(), torch.zeros(8), 8), "argument 0: lr for a parameter fr"),
        ((torch.zeros(8, 2)[:, 0], torch.zeros(8), 8), "argument 0: a strided tensor"),
    ],
)
def test_wrong_arguments_are_named(launch, arguments, words):
    with pytest.raises(AssertionError, match=words):
        launch("right", *arguments)
