"""Edgewise: sharpen a CNN's segmentation with structured inference.

Here a file is a stage and a folder is a library.
"""

import os

# Torch and Numba bring an OpenMP each, with threads of their own. Left to itself, each lets its threads spin for
# milliseconds after their work, on the cores that the other's then wait for. This is about a tenth of one.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
# Large pages for large tensors, where the system gives them on request: they are there several times sooner.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
