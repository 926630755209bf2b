"""What CRFs with Gaussian kernels have in common: their parameters, their unary, the features of their two kernels."""

import math

import torch
from torch import nn


class GaussianCRF(nn.Module):
    """A differentiable dense CRF; its parameters are the logarithms of the values in the settings.

    A subclass gives `positive`, the names of its parameters, and ``scores(unary, appearance, smoothness)``, which runs
    mean field: from U (B, C, H, W), which it may overwrite, and both kernels' features, (B, F, H, W) and (B, 2, H, W),
    to scores (B, C, H, W).

    Parameters
    ----------
    settings : Settings
        The system's file under ``config/systems`` explains each.
    state : dict of str to ndarray
        Values that replace those of the settings, by name.
    """

    positive = ("appearance_weight", "smoothness_weight", "theta_alpha", "theta_beta", "theta_gamma", "temperature")

    def __init__(self, settings, state):
        super().__init__()
        self.settings = settings
        learnt = settings.fit.parameters if "fit" in settings else ()
        for name in self.positive:
            value = torch.tensor(float(state.get(name, settings[name])), dtype=torch.float32)
            self.register_parameter(f"log_{name}", nn.Parameter(value.log(), requires_grad=name in learnt))

    def value(self, name):
        """Return one parameter, positive, as a tensor."""
        return getattr(self, f"log_{name}").exp()

    def set(self, name, value):
        """Give one parameter another value, above 0."""
        with torch.no_grad():
            getattr(self, f"log_{name}").fill_(value).log_()

    def values(self):
        """Return every parameter's value, dict of str to float."""
        return {name: float(self.value(name).detach()) for name in self.positive}

    def forward(self, images, log_probability, extra=None):
        """Return the scores (B, C, H, W) of T iterations of mean field; their softmax is Q.

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

    def unary(self, log_probability):
        """Return U (B, C, H, W), as clip and temperature make it of the network's log p."""
        # Not normalised again: the same number added to all classes of a pixel changes no Q.
        if self.settings.clip > 0:
            return log_probability.clamp_min(math.log(self.settings.clip)).div_(self.value("temperature"))
        return log_probability / self.value("temperature")

    def weights(self, classes):
        """Return the kernels' weights in each class, (2, C)."""
        both = torch.stack([self.value("appearance_weight"), self.value("smoothness_weight")])
        return both[:, None].expand(2, classes)

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
        return _positions(images) / self.value("theta_gamma")


def _positions(images):
    """Return column and row of every pixel: (B, 2, H, W), px; column first, as other lattice codes do."""
    height, width = images.shape[-2:]
    like = {"dtype": images.dtype, "device": images.device}
    rows, cols = torch.meshgrid(torch.arange(height, **like), torch.arange(width, **like), indexing="ij")
    return torch.stack([cols, rows]).expand(images.shape[0], -1, -1, -1)
