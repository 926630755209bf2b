"""The CUDA path: one thread per pixel, one pass over memory."""

from pipeline.kernels import source

KERNEL = "mean_field_update/kernel.cu"
THREADS = 128
MOST_MESSAGES = 4


def refusal(unary, weights, *messages):
    """Say why CUDA code cannot take the tensors, or return None."""
    if len(messages) > MOST_MESSAGES:
        return f"{len(messages)} messages; it takes {MOST_MESSAGES} at most"
    return source.refusal(unary, weights, *messages)


def mean_field_update(unary, messages, weights, result, out):
    """unary and out (B, C, N), messages a tuple of M such (one where M is 0), weights (B, M, C), equal for all B."""
    batch, classes, pixels = unary.shape
    given = messages + messages[:1] * (MOST_MESSAGES - len(messages))
    grid = -(-pixels // THREADS), batch
    sizes = {"CLASSES": classes, "MESSAGES": weights.shape[1], "RESULT": result}
    arguments = unary, *given, weights[0], out, pixels
    source.launch(KERNEL, "mean_field_update", grid, (THREADS,), *arguments, **sizes)
