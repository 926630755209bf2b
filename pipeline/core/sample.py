"""One image with its truth: what walks through the flow."""

from dataclasses import dataclass

import numpy as np

VOID = 255  # the truth of pixels that are neither trained on nor scored


@dataclass(frozen=True)
class Sample:
    """One labelled image.

    Attributes
    ----------
    name : str
        Unique within its data set.
    image : ndarray of shape (H, W, 3), uint8
        RGB.
    truth : ndarray of shape (H, W), uint8
        Class of every pixel; 255 is void: neither trained on nor scored.
    exact : ndarray of shape (H, W), uint8, or None
        The same without void, where a data set knows it.
    full : ndarray of shape (H', W'), uint8, or None
        The truth at the size of the data set, where image and truth were made smaller: labels are scored against it.
    """

    name: str
    image: np.ndarray
    truth: np.ndarray
    exact: np.ndarray | None = None
    full: np.ndarray | None = None
