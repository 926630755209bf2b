"""The backends that every test of a kernel runs on; tensors go to `agreement.device_of` one."""

import pytest
import torch

from pipeline.kernels import source


@pytest.fixture(params=["reference", "cpu", "cuda"])
def backend(request):
    """One backend's name, all in turn."""
    return _here(request.param)


@pytest.fixture(params=["cpu", "cuda"])
def fast(request):
    """One backend's name, those that are compared with the reference."""
    return _here(request.param)


def _here(name):
    if name == "cuda" and (not torch.cuda.is_available() or source.missing()):
        pytest.skip("no CUDA device with CuPy")
    return name
