"""Which backend runs a call: the fastest that can, or the one asked for, or an error that says why it cannot.

A kernel's package names its backends in order of speed, each with what keeps it from a call: a function of the call's
tensors that returns a reason, or None. The reference runs any call.
"""

import functools
import itertools
import threading

import numba
import numpy as np
import torch

from pipeline.core.errors import BackendError

# Numba's threads serve one caller at a time.
_COMPILED = threading.Lock()


def pick(kernel, backend, refusals, *tensors):
    """Return the name of the backend to use.

    Parameters
    ----------
    kernel : str
        For the message.
    backend : str
        ``"auto"`` or one of `refusals` or ``"reference"``.
    refusals : dict of str to callable
        Backends, fastest first; each function takes the tensors and returns None or why it cannot serve.
    *tensors : Tensor

    Raises
    ------
    BackendError
        If there is no such backend, or the one asked for cannot run the call.
    """
    if backend == "reference":
        return backend
    if backend == "auto":
        return next((name for name, refusal in refusals.items() if refusal(*tensors) is None), "reference")
    if backend not in refusals:
        known = ", ".join(["auto", *refusals, "reference"])
        raise BackendError(f"{kernel}, backend", f"'{backend}'", f"one of {known}", "choose one of these")
    if (reason := refusals[backend](*tensors)) is not None:
        raise BackendError(f"{kernel}, backend '{backend}'", reason, "a call it can run", "use backend 'auto'")
    return backend


def plain_refusal(device, *tensors):
    """Say why code for one kind of device, in float32, cannot take the tensors, or return None."""
    for tensor in tensors:
        if tensor.device.type != device:
            return f"a tensor on {tensor.device}"
        if tensor.dtype != torch.float32:
            return f"a tensor of {tensor.dtype}; it computes in float32"
    return None


cpu_refusal = functools.partial(plain_refusal, "cpu")


def room(like, *shape):
    """Return a contiguous float32 tensor to be filled, where `like` is and of its shape if none is given.

    On the CPU NumPy asks the system for large pages, which torch does not: tens of megabytes are there several times
    sooner.
    """
    shape = shape or tuple(like.shape)
    if like.device.type == "cpu":
        return torch.from_numpy(np.empty(shape, np.float32))
    return torch.empty(shape, dtype=torch.float32, device=like.device)


class compiled:
    """Around calls into compiled code: as many threads as torch has, one caller at a time."""

    def __enter__(self):
        _COMPILED.acquire()
        self.threads = torch.get_num_threads()
        numba.set_num_threads(min(self.threads, numba.config.NUMBA_NUM_THREADS))

    def __exit__(self, *exception):
        # Numba and torch may share one OpenMP, whose number of threads Numba sets for itself.
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        _COMPILED.release()


def image_by_image(function):
    """Let CPU code for one image take a batch, like a GPU's kernels do: one image after another.

    Each image gets its part of contiguous tensors, whose first axis is the batch, of tuples of such, and of lists;
    anything else goes to every image as it is.
    """

    @functools.wraps(function)
    def batch(*arguments):
        with compiled():
            for image in zip(*map(_by_image, arguments), strict=False):
                function(*image)

    return batch


def _by_image(argument):
    if isinstance(argument, torch.Tensor):
        return argument.detach().numpy()
    if isinstance(argument, tuple):
        return zip(*map(_by_image, argument), strict=True)
    return argument if isinstance(argument, list) else itertools.repeat(argument)
