"""Where and with how many threads a stage computes, chosen once per process."""

import os
import platform

import torch
from threadpoolctl import threadpool_limits

from pipeline.core.errors import BackendError

BACKENDS = ("cpu", "cuda")


def setup(backend, threads):
    """Make torch deterministic and return the device to compute on.

    Parameters
    ----------
    backend : {"cpu", "cuda"}
        Which kind of device.
    threads : int
        Threads of one operation on the CPU. Results are bit-equal only for equal threads.

    Returns
    -------
    torch.device

    Raises
    ------
    BackendError
        If torch finds no CUDA device where one was asked for.
    """
    torch.set_num_threads(threads)
    threadpool_limits(threads, "blas")  # of NumPy
    if backend == "cuda":
        if not torch.cuda.is_available():
            raise BackendError("--backend", "'cuda' without a usable CUDA device", "a GPU", "use --backend cpu")
        # cuBLAS is deterministic only with a fixed workspace, and reads this before its first call.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        # Kernels write all they ask room for; filling it with NaN first would cost as much as some of them.
        torch.utils.deterministic.fill_uninitialized_memory = False
    torch.use_deterministic_algorithms(True)
    return torch.device(backend)


def describe(device):
    """Name the device for a stamp."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu ({platform.machine()})"


def join_processes(device):
    """Join the processes that `torchrun` started; return (rank, number of processes), (0, 1) outside it."""
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if ranks == 1:
        return 0, 1
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return torch.distributed.get_rank(), ranks
