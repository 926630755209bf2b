"""One update of mean field: unary and weighted messages to the next scores, the next Q, or its logarithm."""

import torch

from pipeline.core.errors import DataError
from pipeline.kernels import checks, dispatch
from pipeline.kernels.mean_field_update import cpu, cuda, reference

BACKENDS = {"cuda": cuda, "cpu": cpu}  # their functions take a batch's arrays and write into the last
RESULTS = ("q", "log_q", "scores")  # backends get the number
REFUSALS = {"cuda": cuda.refusal, "cpu": dispatch.cpu_refusal}


def mean_field_update(unary, messages, weights, *, result="q", backend="auto"):
    """Return the next Q, its logarithm, or the scores it is the softmax of.

    For every pixel *i*, over the classes *c*::

        scores[:, i] = unary[:, i] + Σ_m weights[m, :] · messages[m][:, i]
        q[:, i]      = softmax(scores[:, i])

    Without messages that is the Q that mean field starts from.

    Parameters
    ----------
    unary : Tensor of shape (B, C, H, W), floating
        U = −ψ_u.
    messages : list of M Tensors of shape (B, C, H, W), of the dtype of `unary`
    weights : Tensor of shape (M, C), of the dtype of `unary`
    result : {"q", "log_q", "scores"}
    backend : {"auto", "cuda", "cpu", "reference"}
        ``"auto"`` takes the fastest that can run the call.

    Returns
    -------
    Tensor of shape (B, C, H, W)
        Differentiable in all three.

    Raises
    ------
    DataError
        If shapes or dtypes disagree.
    BackendError
        If the backend asked for cannot run the call; the message says why.

    Notes
    -----
    Source: Zheng et al., arXiv:1502.03240, Algorithm 1, its last four steps with Potts' compatibility.
    """
    checks.image("mean_field_update, unary", unary)
    for number, message in enumerate(messages):
        checks.one_size("mean_field_update", **{"unary": unary, f"message {number}": message})
        if message.shape != unary.shape:
            found = f"unary {tuple(unary.shape)} with message {number} {tuple(message.shape)}"
            raise DataError("mean_field_update", found, "the same classes", "filter q of all classes")
    if weights.dtype != unary.dtype:
        found = f"unary {unary.dtype}, weights {weights.dtype}"
        raise DataError("mean_field_update", found, "one dtype", "convert one")
    if tuple(weights.shape) != (len(messages), unary.shape[1]):
        expected = f"({len(messages)}, {unary.shape[1]}), messages by classes"
        raise DataError("mean_field_update, weights", f"{tuple(weights.shape)}", expected, "give one weight for each")
    chosen = dispatch.pick("mean_field_update", backend, REFUSALS, unary, weights, *messages)
    if chosen == "reference":
        return reference.mean_field_update(unary, messages, weights, RESULTS.index(result))
    return _Update.apply(BACKENDS[chosen], RESULTS.index(result), unary, weights, *messages)


class _Update(torch.autograd.Function):
    @staticmethod
    def forward(ctx, backend, result, unary, weights, *messages):
        out = dispatch.room(unary)
        flat, *sent = (x.contiguous().flatten(2) for x in (unary, *messages))
        shared = weights.contiguous().expand(len(unary), -1, -1)
        backend.mean_field_update(flat, tuple(sent or [flat]), shared, result, out.flatten(2))
        ctx.result = RESULTS[result]
        ctx.save_for_backward(out, weights, *messages)
        return out

    @staticmethod
    def backward(ctx, gradient):
        out, weights, *messages = ctx.saved_tensors
        to_scores = gradient
        if ctx.result == "q":
            to_scores = torch.ops.aten._softmax_backward_data(gradient, out, 1, out.dtype)
        elif ctx.result == "log_q":
            to_scores = torch.ops.aten._log_softmax_backward_data(gradient, out, 1, out.dtype)
        to_weights = None
        if ctx.needs_input_grad[3]:
            to_weights = torch.zeros_like(weights)
            for row, message in zip(to_weights, messages, strict=True):
                row.copy_((to_scores * message).sum(dim=(0, 2, 3)))
        return None, None, to_scores, to_weights, *[weight.view(1, -1, 1, 1) * to_scores for weight in weights]
