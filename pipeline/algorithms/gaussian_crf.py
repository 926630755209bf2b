"""What CRFs with Gaussian kernels have in common: their parameters, their unary, the features of their two kernels."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from pipeline.algorithms.parameters import Parameters
from pipeline.core.errors import DataError

WEIGHTS = ("appearance_weight", "smoothness_weight")


class GaussianCRF(Parameters):
    """A differentiable dense CRF.

    A subclass gives `positive`, the names of its parameters that are numbers above 0, and ``scores(unary, appearance,
    smoothness)``, which runs mean field: from U (B, C, H, W), which it may overwrite, and both kernels' features,
    (B, F, H, W) and (B, 2, H, W), to scores (B, C, H, W).

    Where the settings ask for them there are arrays besides the numbers above 0: a kernel's weights (C,) or (C, C), the
    compatibility (C, C), both with one axis more in front if iterations have their own, and the positions (2, rows,
    cols) of the smoothness kernel, as distances in px from the pixel grid.

    Parameters
    ----------
    settings : Settings
        The system's file under ``config/systems`` explains each.
    classes : int
        C.
    state : dict of str to ndarray
        Values that replace those of the settings, by name.

    Attributes
    ----------
    recompute : bool
        Whether all but Q is worked out again in the backward pass instead of kept.

    Raises
    ------
    DataError
        If an array of the state has another shape.
    """

    positive = (*WEIGHTS, "theta_alpha", "theta_beta", "theta_gamma", "temperature")

    def __init__(self, settings, classes, state):
        super().__init__(settings, _arrays(settings, classes), state)
        self.recompute = False

    def unused(self):
        """Return the names of parameters that these settings make no use of."""
        return () if self.settings.appearance_position else ("theta_alpha",)

    def forward(self, images, log_probability, extra=None):
        """Return the scores (B, C, H, W) of T iterations of mean field; normalised they are Q.

        Parameters
        ----------
        images : Tensor of shape (B, channels, H, W), float32
            Colours or any other channels that `theta_beta` is the bandwidth of; RGB in 8-bit levels 0..255.
        log_probability : Tensor of shape (B, C, H, W), float32
            log p of the network.
        extra : Tensor of shape (B, E, H, W), float32, optional
            More features for the appearance kernel (depth, normals, embeddings), each divided by its bandwidth.
        """
        return self.scores(self.unary(log_probability), self.appearance(images, extra), self.smoothness(images))

    def iterations(self):
        """Return T: in training, where the settings tell them apart, another than later."""
        training = self.training and "training_iterations" in self.settings
        return self.settings.training_iterations if training else self.settings.iterations

    def unary(self, log_probability):
        """Return U (B, C, H, W), as clip and temperature make it of the network's log p."""
        # Not normalised again: the same number added to all classes of a pixel changes no Q.
        if self.settings.clip > 0:
            return log_probability.clamp_min(math.log(self.settings.clip)).div_(self.value("temperature"))
        return log_probability / self.value("temperature")

    def weights(self, classes):
        """Return the kernels' weights, (2, C) or (2, C, C); if iterations have their own a list of them."""

        def by_class(weights):
            return weights if weights.ndim > 1 else weights[:, None].expand(2, classes)

        both = torch.stack([self.value(name) for name in WEIGHTS])
        return list(map(by_class, both.unbind(dim=1))) if self.settings.get("untied") else by_class(both)

    def penalties(self):
        """Return the penalties (C, C) of classes beside others, for Potts None; a list as for the weights."""
        penalty = self.value("compatibility")
        if penalty is None:
            return None
        if self.settings.compatibility == "symmetric":
            penalty = (penalty + penalty.mT) / 2
        return list(penalty) if self.settings.get("untied") else penalty

    def appearance(self, images, extra=None):
        """Return the features of the appearance kernel, (B, F, H, W)."""
        parts = [images / self.value("theta_beta")]
        if self.settings.appearance_position:
            parts.insert(0, _positions(images) / self.value("theta_alpha"))
        if extra is not None:
            parts.append(extra)
        return torch.cat(parts, dim=1)

    def smoothness(self, images):
        """Return the features of the smoothness kernel, (B, 2, H, W)."""
        positions, learnt = _positions(images), self.value("positions")
        if learnt is not None:
            positions = positions + self._moved(learnt, *images.shape[2:])
        return positions / self.value("theta_gamma")

    def _moved(self, learnt, rows, cols):
        """Return by how much positions (2, …) learnt on a canvas move those of an image: (1, 2, rows, cols), px."""
        if self.settings.positions.other_sizes == "resample":
            return F.interpolate(learnt[None], size=(rows, cols), mode="bilinear", align_corners=False)
        if rows > learnt.shape[1] or cols > learnt.shape[2]:
            expected = "at most {} × {}, the canvas of its positions".format(*learnt.shape[1:])
            do = "choose a larger canvas and fit again, or other_sizes: resample"
            raise DataError("positions", f"{rows} × {cols} px", expected, do)
        return learnt[None, :, :rows, :cols]


def _arrays(settings, classes):
    """Return where the arrays that the settings ask for start, dict of str to ndarray, float32."""
    starts = {}
    kind, untied = settings.get("kernel_weights", "scalar"), settings.get("untied", False)
    for name in WEIGHTS if kind != "scalar" or untied else ():
        each = np.full(() if kind == "scalar" else classes, settings[name], np.float32)
        starts[name] = np.diag(each) if kind == "matrix" else each
    if settings.get("compatibility", "potts") != "potts":
        starts["compatibility"] = 1 - np.eye(classes, dtype=np.float32)
    if untied:
        iterations = max(1, settings.get("training_iterations", settings.iterations))
        starts = {name: np.repeat(start[None], iterations, axis=0) for name, start in starts.items()}
    if "positions" in settings and settings.positions.name == "free":
        starts["positions"] = np.zeros((2, *settings.positions.canvas), np.float32)
    return starts


def _positions(images):
    """Return column and row of every pixel: (B, 2, H, W), px; column first, as other lattice codes do."""
    height, width = images.shape[-2:]
    like = {"dtype": images.dtype, "device": images.device}
    rows, cols = torch.meshgrid(torch.arange(height, **like), torch.arange(width, **like), indexing="ij")
    return torch.stack([cols, rows]).expand(images.shape[0], -1, -1, -1)
