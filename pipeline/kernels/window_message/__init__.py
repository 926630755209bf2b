"""The message of ConvCRF: a Gaussian filter cut off at a window, exact inside it."""

from pipeline.core.errors import DataError
from pipeline.kernels.window_message import reference


def window_message(q, features, radius):
    """Sum each pixel's neighbours, weighted by how alike they are.

    For every class *c* and pixel *i*::

        message[c, i] = Σ_{j ∈ W(i)} exp(−½ ‖features[:, i] − features[:, j]‖²) · q[c, j]

    W(i) is the square of side ``2 * radius + 1`` around *i*, with *i*, cut at the image edge.

    Parameters
    ----------
    q : Tensor of shape (B, C, H, W), floating
        What is passed on, usually class probabilities; any finite values will do.
    features : Tensor of shape (B, F, H, W), of the dtype of `q`
        Position and colour, each divided by its bandwidth, so without unit.
    radius : int
        Reach of the window in pixels. At 0 the message is `q`.

    Returns
    -------
    Tensor of shape (B, C, H, W)
        Differentiable in `q` and `features`.

    Raises
    ------
    DataError
        If `q` and `features` disagree in B, H, W or dtype, or `radius` is negative.

    Notes
    -----
    Time grows as B·H·W·(2·radius + 1)²·(C + F). From radius max(H, W) − 1 on, this is the exact sum over
    all pairs. Source: Teichmann and Cipolla, arXiv:1805.04777, section 4.1, equations 5 and 6; where they
    differ in the neighbour's sign the kernel's symmetry makes them equal.
    """
    shape, other = tuple(q.shape), tuple(features.shape)
    if len(shape) != 4 or len(other) != 4 or shape[:1] + shape[2:] != other[:1] + other[2:]:
        swapped = len(shape) == len(other) == 4 and shape[2:] == other[:1:-1]
        hint = "rows and columns look swapped" if swapped else "pass arrays of one image size"
        raise DataError("window_message", f"q {shape} with features {other}", "(B, C, H, W) and (B, F, H, W)", hint)
    if q.dtype != features.dtype:
        raise DataError("window_message", f"q {q.dtype}, features {features.dtype}", "one dtype", "convert one")
    if radius < 0:
        raise DataError("window_message, radius", str(radius), "0 or more", "pass half of the filter size")
    return reference.window_message(q, features, radius)
