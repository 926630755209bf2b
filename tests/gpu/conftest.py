"""Where the tests of this folder compute: what can, on the CPU too, so that they are known to run."""

import pytest
import torch

from pipeline.kernels import source


def without_gpu():
    """Say why nothing runs on a GPU here, or return None."""
    return source.missing() if torch.cuda.is_available() else "no GPU"


@pytest.fixture
def gpu():
    """The GPU."""
    if reason := without_gpu():
        pytest.skip(reason)
    return torch.device("cuda", torch.cuda.current_device())


@pytest.fixture(params=["cpu", "cuda"])
def backend(request):
    """Each kind of device, as stages are told it."""
    if request.param == "cuda" and (reason := without_gpu()):
        pytest.skip(reason)
    yield request.param
    torch.use_deterministic_algorithms(False)
