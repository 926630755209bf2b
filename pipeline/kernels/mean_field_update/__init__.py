"""One update of mean field: unary and weighted messages to the next scores, or to the next Q."""

import torch

from pipeline.core.errors import DataError
from pipeline.kernels import checks, dispatch
from pipeline.kernels.mean_field_update import cpu, cuda, reference

BACKENDS = {"cuda": cuda, "cpu": cpu}  # their functions take a batch's arrays and write into the last
REFUSALS = {"cuda": cuda.refusal, "cpu": dispatch.cpu_refusal}


def mean_field_update(unary, messages, weights, *, softmax=True, backend="auto"):
    """Return the next Q, or the scores it is the softmax of.

    For every pixel *i*, over the classes *c*::

        scores[:, i] = unary[:, i] + Σ_m weights[m, :] · messages[m][:, i]
        q[:, i]      = softmax(scores[:, i])

    Parameters
    ----------
    unary : Tensor of shape (B, C, H, W), floating
        U = −ψ_u.
    messages : list of M Tensors of shape (B, C, H, W), of the dtype of `unary`
    weights : Tensor of shape (M, C), of the dtype of `unary`
    softmax : bool
        Whether to return q or the scores.
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
        return reference.mean_field_update(unary, messages, weights, softmax)
    return _Update.apply(BACKENDS[chosen], softmax, unary, weights, *messages)


class _Update(torch.autograd.Function):
    @staticmethod
    def forward(ctx, backend, softmax, unary, weights, *messages):
        q = dispatch.room(unary)
        flat, *sent = (x.contiguous().flatten(2) for x in (unary, *messages))
        shared = weights.contiguous().expand(len(unary), -1, -1)
        backend.mean_field_update(flat, tuple(sent or [flat]), shared, softmax, q.flatten(2))
        ctx.softmax = softmax
        ctx.save_for_backward(q, weights, *messages)
        return q

    @staticmethod
    def backward(ctx, gradient):
        q, weights, *messages = ctx.saved_tensors
        to_scores = torch.ops.aten._softmax_backward_data(gradient, q, 1, q.dtype) if ctx.softmax else gradient
        to_weights = torch.zeros_like(weights)
        for row, message in zip(to_weights, messages, strict=True):
            row.copy_((to_scores * message).sum(dim=(0, 2, 3)))
        return None, None, to_scores, to_weights, *[weight.view(1, -1, 1, 1) * to_scores for weight in weights]
