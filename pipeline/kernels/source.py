"""CUDA kernels from the .cu files beside the modules that launch them: compiled as written, by CuPy, when first needed.

Constants are compiler options with defaults in the file. Arguments are PyTorch's memory itself and the stream is
PyTorch's current one, so that nothing is copied and nothing waits. CuPy is optional and imported for CUDA tensors only.
"""

import functools
import warnings
from pathlib import Path

import numpy as np
import torch

from pipeline.kernels import dispatch

PACKAGE = Path(__file__).resolve().parent
OPTIONS = ("-std=c++17",)
MOST_CHANNELS = 256
SHARED = 48 * 1024  # bytes of shared memory that a block has on every device without asking


def refusal(*tensors):
    """Say why CUDA code cannot take the tensors, or return None."""
    if (reason := dispatch.plain_refusal("cuda", *tensors)) is not None:
        return reason
    for tensor in tensors:
        if tensor.ndim == 4 and tensor.shape[1] > MOST_CHANNELS:
            return f"a tensor of {tensor.shape[1]} channels; it takes {MOST_CHANNELS} at most"
    return missing()


@functools.cache
def missing():
    """Say what CUDA code lacks on this machine, or return None."""
    try:
        found = _cupy().cuda.is_available()
    except ImportError as error:
        return f"CuPy cannot be imported ({error}); install the extra gpu-cuda12 or gpu-cuda13"
    return None if found else "no CUDA device that CuPy can use"


def launch(file, kernel, grid, block, *arguments, **constants):
    """Run one kernel on PyTorch's current stream of its tensors' device.

    Parameters
    ----------
    file : str
        The source, from this package's folder on: ``"window/kernel.cu"``.
    kernel : str
        Name of the function.
    grid, block : tuple of int
        Up to three sizes each, x first.
    *arguments : Tensor, int or float
        In the kernel's order; tensors contiguous, whole numbers as C's int, others as float.
    **constants : int or tuple of int
        What the source's macros of these names become.
    """
    device = next(argument.device for argument in arguments if isinstance(argument, torch.Tensor))
    values = tuple(map(_value, arguments))
    with _cupy().cuda.Device(device.index), _stream(torch.cuda.current_stream(device)):
        _function(file, kernel, tuple(constants.items()), device.index)(tuple(grid), tuple(block), values)


def defines(constants):
    """Return constants as the compiler's options."""
    return tuple(
        f"-D{name}={','.join(map(str, value)) if isinstance(value, tuple) else int(value)}"
        for name, value in sorted(constants.items())
    )


def _value(argument):
    """Return an argument as CuPy passes it on: the address of a tensor, a number in its C type."""
    if not isinstance(argument, torch.Tensor):
        return np.float32(argument) if isinstance(argument, float) else np.int32(argument)
    if not argument.is_contiguous():
        raise ValueError(f"a kernel was given a strided tensor, {tuple(argument.shape)} by {argument.stride()}")
    return argument.data_ptr()


@functools.cache
def _function(file, kernel, constants, device):
    """Return a compiled kernel; CuPy keeps the machine code on disk. A module belongs to one device."""
    code = (PACKAGE / file).read_text(encoding="utf-8")
    return _cupy().RawModule(code=code, options=OPTIONS + defines(dict(constants))).get_function(kernel)


@functools.cache
def _stream(stream):
    """Return PyTorch's stream as CuPy's."""
    kind = _cupy().cuda.Stream
    if hasattr(kind, "from_external") and hasattr(stream, "__cuda_stream__"):
        return kind.from_external(stream)
    return _cupy().cuda.ExternalStream(stream.cuda_stream, stream.device_index)


@functools.cache
def _cupy():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about installations that are never used
        import cupy
    return cupy
