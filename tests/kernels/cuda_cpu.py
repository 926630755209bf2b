"""Stands in for `source.launch` on CPU tensors: the .cu file compiled by g++ after cuda_cpu.h.

Each launch runs in three orders of threads and blocks, on copies between guards, and is refused if it reads what it
should not or writes beside its arrays, if its arguments are not those of the kernel, or if an order changes a bit.
"""

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import torch

from pipeline.kernels import source

HEADER = Path(__file__).with_name("cuda_cpu.h")
ORDERS = {"forward": 0, "backward": 1, "shuffled": 2}
COMPILER = shutil.which("g++")
# Multiplications and additions are fused as on a GPU, where this processor can; an index outside an array is trapped.
FLAGS = ("-std=c++17", "-O1", "-march=native", "-ffp-contract=fast", "-w", "-shared", "-fPIC", "-fno-gnu-unique")
FLAGS += ("-fsanitize=bounds", "-fsanitize-undefined-trap-on-error")
GUARD = 64  # elements before and after each array
LETTERS = {torch.float32: "f", torch.float64: "d", torch.uint8: "b", torch.int32: "i", torch.int64: "l"}


class Launcher:
    """Compiles into a folder what it has not compiled before."""

    def __init__(self, folder):
        self.folder, self.libraries, self.launched = Path(folder), {}, set()

    def __call__(self, file, kernel, grid, block, *arguments, **constants):
        """See `source.launch`."""
        options = source.defines(constants)
        self.launched.add((file, kernel, options))
        library = self._library(source.PACKAGE / file, options)
        codes = getattr(library, f"parameters_{kernel}")
        codes.restype = ctypes.c_char_p
        codes = re.findall("..", codes().decode())
        check(kernel, codes, arguments)
        results = {name: run(library, kernel, grid, block, codes, arguments, order) for name, order in ORDERS.items()}
        for name, written in results.items():
            for one, other in zip(results["forward"], written, strict=True):
                assert one.tobytes() == other.tobytes(), f"{kernel}: threads run {name} give other bits"
        outputs = [x for code, x in zip(codes, arguments, strict=True) if code[1] == "w"]
        for tensor, array in zip(outputs, results["forward"], strict=True):
            tensor.copy_(torch.from_numpy(array).view(tensor.shape))

    def _library(self, path, options):
        if (path, options) not in self.libraries:
            code = path.read_text(encoding="utf-8")
            exports = "".join(f"CUDA_CPU_EXPORT({name})\n" for name in kernels(code))
            library = self.folder / f"{len(self.libraries)}.so"
            command = [COMPILER, *FLAGS, *options, "-x", "c++", "-", "-o", library]
            text = f'#include "{HEADER}"\n#line 1 "{path}"\n{code}\n{exports}'
            subprocess.run(command, input=text.encode(), check=True)
            self.libraries[path, options] = ctypes.CDLL(str(library))
        return self.libraries[path, options]


def kernels(code):
    """List the kernels of a source."""
    return re.findall(r'extern "C" __global__ void\s+(?:__launch_bounds__\(.*\)\s+)?(\w+)\(', code)


def check(kernel, codes, arguments):
    """Refuse arguments that are not what the kernel's parameters say: it would read other memory, or half a number."""
    assert len(codes) == len(arguments), f"{kernel} takes {len(codes)} arguments, {len(arguments)} were given"
    for number, (code, argument) in enumerate(zip(codes, arguments, strict=True)):
        if isinstance(argument, torch.Tensor):
            found = LETTERS[argument.dtype] + code[1].replace("v", "?")
            assert argument.is_contiguous(), f"{kernel}, argument {number}: a strided tensor"
        else:
            found = ("f" if isinstance(argument, float) else "i") + "v"
        assert found == code, f"{kernel}, argument {number}: {found} for a parameter {code}"


def run(library, kernel, grid, block, codes, arguments, order):
    """Run a kernel on copies; return what it wrote."""
    places, arrays = [], []
    for code, argument in zip(codes, arguments, strict=True):
        if isinstance(argument, torch.Tensor):
            array = guarded(argument, written=code[1] == "w")
            arrays.append((code, array, array.copy()))
            places.append(ctypes.c_void_p(array.ctypes.data + GUARD * array.itemsize))
        else:
            places.append((ctypes.c_float if code == "fv" else ctypes.c_int)(argument))
    pointers = (ctypes.c_void_p * len(places))(*(ctypes.addressof(place) for place in places))
    sizes = [(ctypes.c_uint * 3)(*size, *(1,) * (3 - len(size))) for size in (grid, block)]
    function = getattr(library, f"launch_{kernel}")
    function.restype = ctypes.c_char_p
    trouble = function(*sizes, pointers, order).decode()
    assert not trouble, f"{kernel}: {trouble}"
    for code, array, before in arrays:
        kept = slice(None) if code[1] == "r" else np.r_[:GUARD, array.size - GUARD : array.size]
        assert array[kept].tobytes() == before[kept].tobytes(), f"{kernel} wrote where it should not"
    return [array[GUARD:-GUARD] for code, array, _ in arrays if code[1] == "w"]


def guarded(tensor, written):
    """Copy a tensor between guards of NaN, for whole numbers −1; what is to be written is filled with them too."""
    values = tensor.detach().numpy().ravel()
    array = np.full(values.size + 2 * GUARD, -1, f"i{values.itemsize}").view(values.dtype)
    if not written:
        array[GUARD:-GUARD] = values
    return array
