"""The CUDA path: receivers in registers, senders tile by tile in shared memory, the kernel never stored."""

from pipeline.kernels import source

KERNEL = "all_pairs/kernel.cu"
THREADS = 128
PIXELS = 2  # receiving pixels of one thread, forward
CHUNK = 24  # most classes whose sums fit into a thread's registers
TILE = 128  # most senders in shared memory


def all_pairs(values, features, out):
    """values and out (B, C, N), features (B, F, N)."""
    batch, classes, pixels = values.shape
    chunks, sizes = _sizes(classes, features.shape[1])
    grid = -(-pixels // (THREADS * PIXELS)), chunks, batch
    arguments = values, features, out, classes, pixels
    source.launch(KERNEL, "all_pairs", grid, (THREADS,), *arguments, **sizes)


def to_features(gradient, values, features, out):
    """Return the gradient of `all_pairs` to the features: gradient and values (B, C, N), features and out (B, F, N)."""
    batch, classes, pixels = values.shape
    chunks, sizes = _sizes(classes, features.shape[1])
    parts = out.new_empty(chunks, *out.shape)
    grid = -(-pixels // THREADS), chunks, batch
    source.launch(KERNEL, "to_features", grid, (THREADS,), gradient, values, features, parts, classes, pixels, **sizes)
    out.copy_(parts.sum(dim=0))


def _sizes(classes, features):
    """Return into how many parts the classes fall, and the constants of both kernels, which are compiled together."""
    chunks = -(-classes // CHUNK)
    chunk = -(-classes // chunks)
    row = 4 * (-(-features // 4) + 2 * -(-chunk // 4))  # of a tile: features, values, their gradients
    tile = min(TILE, source.SHARED // (4 * row))
    return chunks, {"FEATURES": features, "CHUNK": chunk, "TILE": tile, "THREADS": THREADS, "PIXELS": PIXELS}
