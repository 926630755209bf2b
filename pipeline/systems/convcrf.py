"""ConvCRF: mean field with Gaussian kernels cut off at a window (Teichmann and Cipolla, arXiv:1805.04777).

Energy of labels x, in the notation of docs/systems/convcrf.md::

    E(x) = Σ_i −log p_i(x_i) / temperature + Σ_{i, j ∈ W(i)} [x_i ≠ x_j] (w₁ k_appearance + w₂ k_smoothness)
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from pipeline.algorithms import refiners
from pipeline.algorithms.mean_field import mean_field, normalised
from pipeline.core.unaries import resize
from pipeline.kernels.window_message import window_message

# What gradients may move; stored as logarithms, so that they stay positive.
POSITIVE = (
    "appearance_weight",
    "smoothness_weight",
    "theta_alpha",
    "theta_beta",
    "theta_gamma",
    "unary_weight",
    "temperature",
)


class ConvCRF(nn.Module):
    """The differentiable model; parameters are the logarithms of the values in the settings.

    Parameters
    ----------
    settings : Settings
        ``config/systems/convcrf.yaml`` explains each.
    state : dict of str to ndarray
        Values that replace those of the settings, by name.
    """

    def __init__(self, settings, state):
        super().__init__()
        self.settings = settings
        learnt = settings.fit.parameters
        for name in POSITIVE:
            value = torch.tensor(float(state.get(name, settings[name])), dtype=torch.float32)
            self.register_parameter(f"log_{name}", nn.Parameter(value.log(), requires_grad=name in learnt))

    def value(self, name):
        """Return one parameter, positive, as a tensor."""
        return getattr(self, f"log_{name}").exp()

    def forward(self, images, log_probability):
        """Return the scores (B, C, H, W) of T iterations of mean field.

        Parameters
        ----------
        images : Tensor of shape (B, 3, H, W), float32
            RGB, 8-bit levels 0..255.
        log_probability : Tensor of shape (B, C, H, W), float32
            log p of the network.
        """
        unary = (log_probability / self.value("temperature")).log_softmax(dim=1)
        kernels = self._kernels(images)
        weights = [self.value("appearance_weight"), self.value("smoothness_weight")]

        # Potts, 1 − I as a penalty: −(ΣQ̃ − Q̃) differs from +Q̃ by the same number for every class, and the softmax
        # takes that away.
        def message(q):
            both = kernels(self._blur(q).repeat(2, 1, 1, 1)).chunk(2)
            return self._upsample(sum(map(torch.mul, weights, both)), q.shape)

        start = unary if self.settings.start == "log_softmax" else unary.softmax(dim=1)
        return mean_field(unary, message, iterations=self.settings.iterations, combine=self._combine, start=start)

    def _combine(self, unary, message):
        """Add, as in the paper, or mix with weight w, as the released code does."""
        if self.settings.combine == "sum":
            return unary + message
        weight = self.value("unary_weight")
        return (1 - weight) * unary + weight * message

    def _kernels(self, images):
        """Return both normalised filters as one, on the blurred grid: appearance over the first half of the batch,
        smoothness over the second.
        """
        appearance, smoothness = self._appearance(images), self._smoothness(images)
        # Features of zero add nothing to a distance.
        fill = appearance.shape[1] - smoothness.shape[1]
        features = self._blur(torch.cat([appearance, F.pad(smoothness, (0, 0, 0, 0, 0, fill))]))
        radius = self.settings.filter_size // 2
        return normalised(lambda q: window_message(q, features, radius), features[:, :1], self.settings.normalisation)

    def _appearance(self, images):
        colour = images / self.value("theta_beta")
        if not self.settings.appearance_position:
            return colour
        return torch.cat([_positions(images) / self.value("theta_alpha"), colour], dim=1)

    def _smoothness(self, images):
        return _positions(images) / self.value("theta_gamma")

    def _blur(self, x):
        """Average squares of `blur` × `blur` pixels; the image is centred and cells outside it do not count."""
        blur = self.settings.blur
        if blur == 1:
            return x
        return F.avg_pool2d(x, blur, padding=self._margin(x.shape), count_include_pad=False)

    def _upsample(self, message, shape):
        """Undo `_blur` bilinearly and cut to the image."""
        blur = self.settings.blur
        if blur == 1:
            return message
        message = resize(message, message.shape[-2] * blur, message.shape[-1] * blur)
        top, left = self._margin(shape)
        return message[..., top : top + shape[-2], left : left + shape[-1]]

    def _margin(self, shape):
        """Return how far the blurred grid reaches over the image at the top and at the left, px."""
        blur = self.settings.blur
        return tuple(-(-(-size % blur) // 2) for size in shape[-2:])


def _positions(images):
    """Return row and column of every pixel: (1, 2, H, W), px."""
    height, width = images.shape[-2:]
    rows, cols = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    positions = torch.stack([rows, cols]).to(images)
    return positions.expand(images.shape[0], -1, -1, -1)


class System:
    """A ConvCRF that fits itself by gradient and refines one image at a time."""

    def __init__(self, settings, classes, state, device):
        self.settings, self.device = settings, device
        self.module = ConvCRF(settings, state).to(device)

    def fit(self, samples, seed):
        """Lower the loss on labelled images with Adam; yields as the protocol says."""
        if not self.settings.fit.parameters:
            return iter(())
        return refiners.fit(self.module, samples, self.settings.fit, seed, self.device, self._values)

    def refine(self, image, unaries):
        """Return labels (H, W) uint8."""
        with torch.inference_mode():
            images, log_probability = refiners.as_batch(image, unaries, self.device)
            return self.module(images, log_probability)[0].argmax(dim=0).byte().cpu().numpy()

    def state(self):
        """Return every parameter's value, learnt or not."""
        return {name: np.float32(value) for name, value in self._values().items()}

    def _values(self):
        return {name: float(self.module.value(name).detach()) for name in POSITIVE}
