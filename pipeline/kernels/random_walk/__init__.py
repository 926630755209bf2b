"""One random walk: every position takes a mean of all others' values, weighted by how alike their features are."""

from functools import partial

from pipeline.core.errors import DataError, SettingsError
from pipeline.core.settings import nearest
from pipeline.kernels import checks, dispatch
from pipeline.kernels.random_walk import fused, reference

# The same code serves both devices: torch's fused attention is each one's own.
BACKENDS = {"cuda": fused, "cpu": fused}
REFUSALS = {device: partial(dispatch.plain_refusal, device) for device in BACKENDS}
AFFINITIES = ("product", "distance")


def random_walk(features, values, *, affinity="product", backend="auto"):
    """Return P · values, without ever storing P.

    For every class *c* and position *i*::

        out[c, i] = Σ_j P_ij · values[c, j]        P_ij = exp(W_ij) / Σ_k exp(W_ik)

        product   W_ij = ⟨ψ_i, ψ_j⟩
        distance  W_ij = −½ ‖ψ_i − ψ_j‖²

    Rows of P sum to 1, so a constant is kept, and no value leaves the range of those that are sent. W is not divided by
    √K, as attention's is. By distance P is the Gaussian kernel of `all_pairs`, normalised by rows.

    Parameters
    ----------
    features : Tensor of shape (B, K, H, W), floating
        ψ.
    values : Tensor of shape (B, C, H, W), of the dtype of `features`
        What walks: any finite numbers.
    affinity : {"product", "distance"}
        What W is.
    backend : {"auto", "cuda", "cpu", "reference"}
        ``"auto"`` takes the fastest that can run the call.

    Returns
    -------
    Tensor of shape (B, C, H, W)
        Differentiable in both.

    Raises
    ------
    DataError
        If `features` and `values` disagree in B, H, W or dtype, or either is no batch of images.
    SettingsError
        If there is no such affinity.
    BackendError
        If the backend asked for cannot run the call; the message says why.

    Notes
    -----
    Time grows as B·(H·W)²·max(K, C), memory as B·H·W·max(K, C); the reference stores P. The fused exponential is good
    to 20 units in the last place. Source: Jiang et al., "DifNet", NeurIPS 2018, section 4: P_t = softmax(ΨᵀΨ). In a
    row ½ ‖ψ_i‖² is the same number everywhere, so distance is ⟨ψ_i, ψ_j⟩ − ½ ‖ψ_j‖²: one channel more.
    """
    _check(affinity)
    checks.image("random_walk, features", features)
    checks.image("random_walk, values", values)
    checks.one_size("random_walk", features=features, values=values)
    chosen = dispatch.pick("random_walk", backend, REFUSALS, features, values)
    return (reference if chosen == "reference" else BACKENDS[chosen]).random_walk(features, values, affinity)


def transition(features, rows, affinity="product"):
    """Return some rows of P, for looking at.

    Parameters
    ----------
    features : Tensor of shape (B, K, H, W), floating
    rows : Tensor of shape (R,), int64
        Positions, row · W + col.
    affinity : {"product", "distance"}
        What W is, see `random_walk`.

    Returns
    -------
    Tensor of shape (B, R, H, W)
        Each sums to 1 over H and W.

    Raises
    ------
    DataError
        If a position is outside the image, or `features` no batch of images.
    SettingsError
        If there is no such affinity.
    """
    _check(affinity)
    checks.image("transition, features", features)
    height, width = features.shape[2:]
    outside = rows[(rows < 0) | (rows >= height * width)]
    if outside.numel():
        found, expected = f"position {int(outside[0])}", f"0 to {height * width - 1}"
        raise DataError("transition, rows", found, expected, "number positions as row · W + col")
    return reference.transition(features, rows, affinity).unflatten(2, (height, width))


def _check(affinity):
    if affinity not in AFFINITIES:
        raise SettingsError("affinity", f"'{affinity}'", " or ".join(AFFINITIES), nearest(affinity, AFFINITIES))
