"""Mean field with two lattice filters and Potts' compatibility, all iterations in one call, without gradient."""

from functools import partial

import torch

from pipeline.core.errors import DataError
from pipeline.kernels import checks, dispatch, source
from pipeline.kernels.lattice_mean_field import cpu, cuda, reference

BACKENDS = {"cuda": cuda, "cpu": cpu}  # their functions take a batch's arrays and write into the last
REFUSALS = {"cuda": source.refusal, "cpu": dispatch.cpu_refusal}


def lattice_mean_field(unary, lattices, lefts, rights, weights, iterations, *, overwrite=False, backend="auto"):
    """Iterate mean field and return the last scores before their softmax.

    From q = softmax(unary) on, so many times::

        scores = unary + Σ_m weights[m] · left_m · K_m (right_m · q)
        q      = softmax(scores)

    with K_m the filter of `permutohedral`. The same as composing it with `mean_field_update`, without storing messages
    and Q in between. Several settings of the weights may be tried at once: they share the first messages.

    Parameters
    ----------
    unary : Tensor of shape (B, C, H, W), floating
        U = −ψ_u.
    lattices : two Lattices
        Of the image; made by `permutohedral.build` on the backend that is to run.
    lefts, rights : two Tensors each, of shape (B, 1, H, W)
    weights : Tensor of shape (2, C) or (S, 2, C)
        Of one setting or of S.
    iterations : int
        At 0 the unary is returned.
    overwrite : bool
        Whether the result may take the place of `unary`, which is then lost; saves its memory on the CPU, where the
        weights are one setting.
    backend : {"auto", "cuda", "cpu", "reference"}
        ``"auto"`` takes the fastest that can run the call.

    Returns
    -------
    Tensor of shape (B, C, H, W) or (B, S, C, H, W)
        Not differentiable on the fast paths: inputs that need a gradient are refused there.

    Raises
    ------
    DataError
        If shapes or dtypes disagree or there are not two lattices of the unary's size.
    BackendError
        If the backend asked for cannot run the call; the message says why.
    """
    checks.image("lattice_mean_field, unary", unary)
    sizes = {lattice.shape for lattice in lattices}
    if len(lattices) != 2 or sizes != {(unary.shape[0], *unary.shape[2:])}:
        found = f"{len(lattices)} lattices of {sorted(sizes)}, an unary {tuple(unary.shape)}"
        raise DataError("lattice_mean_field", found, "two, of its B, H, W", "build both from this image")
    if weights.ndim not in (2, 3) or tuple(weights.shape[-2:]) != (2, unary.shape[1]):
        found, expected = f"{tuple(weights.shape)}", f"(2, {unary.shape[1]}), kernels by classes"
        raise DataError("lattice_mean_field, weights", found, expected, "give one weight for each")
    for number in range(2):
        checks.scales("lattice_mean_field", unary, left=lefts[number], right=rights[number])
    if weights.dtype != unary.dtype:
        found = f"unary {unary.dtype}, weights {weights.dtype}"
        raise DataError("lattice_mean_field", found, "one dtype", "convert one")
    refusals = {name: partial(_refusal, lattices, name) for name in BACKENDS}
    chosen = dispatch.pick("lattice_mean_field", backend, refusals, unary, *lefts, *rights, weights)
    settings = weights if weights.ndim == 3 else weights[None]
    if chosen == "reference":
        arguments = unary, lattices, lefts, rights
        out = torch.stack([reference.lattice_mean_field(*arguments, each, iterations) for each in settings], dim=1)
    else:
        unary = unary.detach().contiguous()
        inside = overwrite and chosen == "cpu" and weights.ndim == 2
        batch, *volume = unary.shape
        out = unary[:, None] if inside else dispatch.room(unary, batch, len(settings), *volume)
        images = tuple(lattice.images for lattice in lattices)
        flat = [[scale.detach().flatten(1).contiguous() for scale in scales] for scales in (lefts, rights)]
        shared = settings.detach().contiguous().expand(batch, -1, -1, -1)
        BACKENDS[chosen].lattice_mean_field(unary, images, tuple(zip(*flat, strict=True)), shared, iterations, out)
    return out if weights.ndim == 3 else out[:, 0]


def _refusal(lattices, backend, *tensors):
    for lattice in lattices:
        if lattice.backend != backend:
            return f"a lattice of backend '{lattice.backend}'"
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return "a tensor that needs a gradient; compose permutohedral and mean_field_update"
    return REFUSALS[backend](*tensors)
