"""One update of mean field: unary and weighted messages to the next Q."""

import torch

from pipeline.core.errors import DataError
from pipeline.kernels import checks, dispatch
from pipeline.kernels.mean_field_update import cpu, reference

REFUSALS = {"cpu": dispatch.cpu_refusal}


def mean_field_update(unary, messages, weights, *, backend="auto"):
    """Return the next Q.

    For every pixel *i*, over the classes *c*::

        q[:, i] = softmax(unary[:, i] + Σ_m weights[m, :] · messages[m][:, i])

    Parameters
    ----------
    unary : Tensor of shape (B, C, H, W), floating
        U = −ψ_u.
    messages : list of M Tensors of shape (B, C, H, W), of the dtype of `unary`
    weights : Tensor of shape (M, C), of the dtype of `unary`
    backend : {"auto", "cpu", "reference"}
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
    if dispatch.pick("mean_field_update", backend, REFUSALS, unary, weights, *messages) == "cpu" and messages:
        return _Update.apply(unary, weights, *messages)
    return reference.mean_field_update(unary, messages, weights)


class _Update(torch.autograd.Function):
    @staticmethod
    def forward(ctx, unary, weights, *messages):
        q = torch.empty_like(unary, memory_format=torch.contiguous_format)
        numbers = weights.detach().contiguous().numpy()
        arrays = [x.detach().contiguous().flatten(2).numpy() for x in (unary, q, *messages)]
        with dispatch.compiled():
            for one, out, *sent in zip(*arrays, strict=True):
                cpu.mean_field_update(one, tuple(sent), numbers, out)
        ctx.save_for_backward(q, weights, *messages)
        return q

    @staticmethod
    def backward(ctx, gradient):
        q, weights, *messages = ctx.saved_tensors
        to_scores = torch.ops.aten._softmax_backward_data(gradient, q, 1, q.dtype)
        to_weights = torch.stack([(to_scores * message).sum(dim=(0, 2, 3)) for message in messages])
        return to_scores, to_weights, *[weight.view(1, -1, 1, 1) * to_scores for weight in weights]
