"""Where and with how many threads a stage computes, chosen once per process."""

import fcntl
import os
import platform
import tempfile
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

from pipeline.core import memory, stage
from pipeline.core.errors import BackendError

BACKENDS = ("cpu", "cuda")
_held = {}  # locks of this process by the place of their device


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
        Of several GPUs one that no other stage works on.

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
        names = [str(torch.cuda.get_device_properties(number).uuid) for number in range(torch.cuda.device_count())]
        together = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        if len(names) < together:
            found, do = f"{len(names)} GPUs for {together} processes", "lower `processes`, or take a machine with more"
            raise BackendError("--backend", found, "one each", do)
        place = take(names, Path(tempfile.gettempdir()) / f"edgewise-gpus-{os.getuid()}")
        torch.cuda.set_device(place)
    torch.use_deterministic_algorithms(True)
    return torch.device("cuda", place) if backend == "cuda" else torch.device("cpu")


def take(names, folder):
    """Return the place of the first name that no process of this user holds, and hold it until this one ends.

    If all are held, one of them is shared: whoever starts more stages than there are devices wants that.
    """
    if _held:
        return next(iter(_held))
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for place, name in enumerate(names):
            lock = (folder / f"{name}.lock").open("w")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                continue
            _held[place] = lock
            return place
    except OSError:
        pass  # no place for locks, or another's: all is shared
    return os.getpid() % len(names)


def available(device):
    """Return the bytes that this process may still take where it computes, None if that cannot be told."""
    if device.type == "cpu":
        return memory.available()
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by torch, for itself
    return torch.cuda.mem_get_info(device)[0] + kept


def peak(device, call):
    """Call a function; return by how many bytes memory grew meanwhile where it computes, at most, or None."""
    if device.type == "cpu":
        return memory.peak(call)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    return torch.cuda.max_memory_allocated(device) - before


def describe(device):
    """Name the device for a stamp; of a CPU its kind, as sums come in another order with wider registers."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()})"


def join_processes(device):
    """Join the processes that `torchrun` started; return (rank, number of processes), (0, 1) outside it."""
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if ranks == 1:
        return 0, 1
    # A killed torchrun would leave them behind, writing what the next run writes too.
    parent = os.getppid()
    stage.end_when(lambda: os.getppid() != parent)
    torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return torch.distributed.get_rank(), ranks
