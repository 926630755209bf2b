"""NVIDIA's run-time compiler as its wheel brings it: machine code of a .cu file without a GPU, a driver or CuPy.

The library is called itself: its Python bindings of CUDA 12, whose compiler still knows sm_70, and those of CUDA 13,
which PyTorch's builds ask for, exclude one another.
"""

import ctypes
import importlib.metadata
import re

WHEEL = "nvidia-cuda-nvrtc-cu12"
NAMES = ("libnvrtc.so.", "nvrtc64_")


def load():
    """Return the library, or None where the wheel is not installed."""
    try:
        files = importlib.metadata.files(WHEEL) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((ctypes.CDLL(str(file.locate())) for file in files if file.name.startswith(NAMES)), None)


def architectures(library):
    """List the generations of GPUs that the compiler knows: 70 for sm_70."""
    count = ctypes.c_int()
    assert library.nvrtcGetNumSupportedArchs(ctypes.byref(count)) == 0
    found = (ctypes.c_int * count.value)()
    assert library.nvrtcGetSupportedArchs(found) == 0
    return list(found)


STACK = re.compile(r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame", re.DOTALL)


def compiled(library, code, options):
    """Return the machine code of a source, or fail with the compiler's words."""
    return _compiled(library, code, options)[0]


def stacks(library, code, options):
    """Return of every kernel how many bytes a thread keeps in memory for want of registers."""
    _, words = _compiled(library, code, [*options, "--ptxas-options=-v"])
    return {name: int(size) for name, size in STACK.findall(words)}


def _compiled(library, code, options):
    program = ctypes.c_void_p()
    assert library.nvrtcCreateProgram(ctypes.byref(program), code.encode(), b"kernel.cu", 0, None, None) == 0
    try:
        given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        status = library.nvrtcCompileProgram(program, len(options), given)
        words = _read(library, program, "ProgramLog").decode()
        assert status == 0, f"{options}: {words}"
        return _read(library, program, "CUBIN"), words
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _read(library, program, what):
    size = ctypes.c_size_t()
    assert getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)) == 0
    text = ctypes.create_string_buffer(size.value)
    assert getattr(library, f"nvrtcGet{what}")(program, text) == 0
    return text.raw
