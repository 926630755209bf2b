"""The CUDA path: a block is 32 columns wide, so that a warp reads and writes neighbouring numbers of a row.

Weights lie in memory as (K, H, W). Of the message each thread sums several rows and classes at once, with the window's
part of q in shared memory; the rest of `kernel.cu` sums one pixel per thread.
"""

from pipeline.kernels import source

KERNEL = "window/kernel.cu"
COLS, ROWS = 32, 4  # threads of a block where a thread sums several rows
BLOCK = (32, 8)  # threads of a block elsewhere
CHUNK = 8  # most classes that a thread sums
SPAN = 11  # most rows and columns of the window in shared memory at once
ENOUGH = 256  # blocks that keep a large GPU busy


def table(height, width, radius):
    """Return the shape of one image's weights."""
    return (2 * radius + 1) ** 2, height, width


def degree(features, height, width, radius, out):
    """Sum the kernel over the window: features (B, F, N), out (B, N)."""
    sizes = {"RADIUS": radius, "FEATURES": features.shape[1]}
    source.launch(KERNEL, "degree", _grid(out, height, width), BLOCK, features, out, height, width, **sizes)


def degree_backward(gradient, features, height, width, radius, out):
    """Return the gradient of `degree` to the features: gradient (B, N), features and out (B, F, N)."""
    sizes = {"RADIUS": radius, "FEATURES": features.shape[1]}
    grid = _grid(out, height, width)
    source.launch(KERNEL, "degree_backward", grid, BLOCK, gradient, features, out, height, width, **sizes)


def weights(features, left, right, splits, height, width, radius, exclude_self, out):
    """Merge M kernels: features (B, F, N), kernel m those from splits[m] to splits[m + 1]; left, right (B, M, N)."""
    sizes = _merging(splits, radius, exclude_self)
    arguments = features, left, right, out, height, width
    source.launch(KERNEL, "weights", _grid(out, height, width), BLOCK, *arguments, **sizes)


def weights_backward(
    gradient, features, left, right, splits, height, width, radius, exclude_self, to_features, to_left, to_right
):
    """Return the gradients of `weights`: gradient (B, K, H, W); the others as their arguments."""
    sizes = _merging(splits, radius, exclude_self)
    arguments = gradient, features, left, right, to_features, to_left, to_right, height, width
    source.launch(KERNEL, "weights_backward", _grid(gradient, height, width), BLOCK, *arguments, **sizes)


def message(q, weights, height, width, radius, out):
    """Sum the neighbours' q (B, C, N), weighted by weights (B, K, H, W), into out (B, C, N)."""
    _pass_on("message", q, weights, height, width, radius, out)


def message_backward_q(gradient, weights, height, width, radius, out):
    """Return the gradient of `message` to q: gradient and out (B, C, N)."""
    _pass_on("message_backward_q", gradient, weights, height, width, radius, out)


def message_backward_weights(gradient, q, height, width, radius, out):
    """Return the gradient of `message` to the weights: gradient and q (B, C, N), out (B, K, H, W)."""
    batch, classes, _ = q.shape
    side = 2 * radius + 1
    grid, pixels = _tall_grid(height, width, batch * side)
    sizes = {"RADIUS": radius, "SPAN": min(side, SPAN), "PIXELS": pixels, "COLS": COLS, "ROWS": ROWS}
    arguments = gradient, q, out, classes, height, width
    source.launch(KERNEL, "message_backward_weights", grid, (COLS, ROWS), *arguments, **sizes)


def _pass_on(kernel, q, weights, height, width, radius, out):
    batch, classes, _ = q.shape
    chunks = -(-classes // CHUNK)
    grid, pixels = _tall_grid(height, width, batch * chunks)
    sizes = {"RADIUS": radius, "SPAN": min(2 * radius + 1, SPAN), "CHUNK": -(-classes // chunks), "PIXELS": pixels}
    arguments = q, weights, out, classes, height, width
    source.launch(KERNEL, kernel, grid, (COLS, ROWS), *arguments, **sizes, COLS=COLS, ROWS=ROWS)


def _merging(splits, radius, exclude_self):
    splits = tuple(map(int, splits))
    sizes = {"RADIUS": radius, "FEATURES": splits[-1], "KERNELS": len(splits) - 1}
    return sizes | {"SPLITS": splits, "EXCLUDE_SELF": exclude_self}


def _grid(like, height, width):
    return -(-width // BLOCK[0]), -(-height // BLOCK[1]), len(like)


def _tall_grid(height, width, depth):
    """Return a grid and the rows that each thread sums: fewer where the image is too small to keep a GPU busy."""
    for pixels in (4, 2, 1):
        grid = -(-width // COLS), -(-height // (ROWS * pixels)), depth
        if grid[0] * grid[1] * grid[2] >= ENOUGH:
            break
    return grid, pixels
