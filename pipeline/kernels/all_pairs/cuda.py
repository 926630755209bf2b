"""The CUDA path: receivers in registers, senders tile by tile in shared memory, the kernel never stored."""

import torch

from pipeline.kernels import source

KERNEL, TENSOR_CORES = "all_pairs/kernel.cu", "all_pairs/tensor_cores.cu"
THREADS = 128
PIXELS = 2  # receiving pixels of one thread, forward
CHUNK = 24  # most classes whose sums fit into a thread's registers
TILE = 128  # most senders in shared memory
MOST_COLUMNS = 4  # eights of classes whose sums on tensor cores fit into registers
MOST_FEATURES = 16  # of four receivers, which do too
KNOW_TF32 = (8, 0)  # compute capability of the first tensor cores that do


def all_pairs(values, features, precision, out):
    """values and out (B, C, N), features (B, F, N)."""
    batch, classes, pixels = values.shape
    arguments = values, features, out, classes, pixels
    if precision == "tf32" and features.shape[1] <= MOST_FEATURES and _has_tensor_cores(values.device):
        chunks = -(-classes // (8 * MOST_COLUMNS))
        sizes = {"FEATURES": features.shape[1], "COLUMNS": -(-classes // (8 * chunks)), "TILE": TILE}
        grid = -(-pixels // THREADS), chunks, batch
        source.launch(TENSOR_CORES, "all_pairs_tf32", grid, (THREADS,), *arguments, **sizes, THREADS=THREADS)
        return
    chunks, sizes = _sizes(classes, features.shape[1])
    grid = -(-pixels // (THREADS * PIXELS)), chunks, batch
    source.launch(KERNEL, "all_pairs", grid, (THREADS,), *arguments, **sizes)


def to_features(gradient, values, features, out):
    """Return the gradient of `all_pairs` to the features: gradient and values (B, C, N), features and out (B, F, N)."""
    batch, classes, pixels = values.shape
    chunks, sizes = _sizes(classes, features.shape[1])
    parts = out.new_empty(chunks, *out.shape)
    grid = -(-pixels // THREADS), chunks, batch
    source.launch(KERNEL, "to_features", grid, (THREADS,), gradient, values, features, parts, classes, pixels, **sizes)
    out.copy_(parts.sum(dim=0))


def _has_tensor_cores(device):
    """Say whether they know TF32; where tests run this on a CPU they do."""
    return device.type == "cpu" or torch.cuda.get_device_capability(device) >= KNOW_TF32


def _sizes(classes, features):
    """Return into how many parts the classes fall, and the constants of both kernels, which are compiled together."""
    chunks = -(-classes // CHUNK)
    chunk = -(-classes // chunks)
    row = 4 * (-(-features // 4) + 2 * -(-chunk // 4))  # of a tile: features, values, their gradients
    tile = min(TILE, source.SHARED // (4 * row))
    return chunks, {"FEATURES": features, "CHUNK": chunk, "TILE": tile, "THREADS": THREADS, "PIXELS": PIXELS}
