"""ConvCRF: mean field with Gaussian kernels cut off at a window (Teichmann and Cipolla, arXiv:1805.04777).

Energy of labels x, in the notation of docs/systems/convcrf.md::

    E(x) = Σ_i −log p_i(x_i) / temperature + Σ_{i, j ∈ W(i)} [x_i ≠ x_j] (w₁ k_appearance + w₂ k_smoothness)
"""

import torch

from pipeline.algorithms import gaussian_filters, refiners
from pipeline.algorithms.gaussian_crf import GaussianCRF
from pipeline.algorithms.mean_field import beliefs, iterate, mean_field
from pipeline.kernels import window
from pipeline.kernels.blurred_update import add_unblurred, blur, blurred_update


class ConvCRF(GaussianCRF):
    """The differentiable model; ``config/systems/convcrf.yaml`` explains the settings."""

    positive = (*GaussianCRF.positive, "unary_weight")

    def unused(self):
        """Return the names of parameters that these settings make no use of."""
        return (*super().unused(), *(() if self.settings.combine == "mix" else ("unary_weight",)))

    def scores(self, unary, appearance, smoothness):
        """Return the scores (B, C, H, W)."""
        factor, radius = self.settings.blur, self.settings.filter_size // 2
        start, penalty = beliefs(unary, log=self.settings.start == "log_softmax"), self.penalties()
        unary, gain = self._shares(unary)
        merged = self._merge(blur(appearance, factor), blur(smoothness, factor), radius, gain)
        if factor == 1:
            return mean_field(
                unary,
                lambda q: [window.message(q, merged)],
                torch.ones_like(unary[:1, :, 0, 0]),
                iterations=self.iterations(),
                start=start,
                compatibility=penalty,
                tolerance=self.settings.tolerance,
                recompute=self.recompute,
            )
        return iterate(
            blur(start, factor),
            lambda q, step: compatible(window.message(q, merged), penalty),
            update=lambda message: blurred_update(unary, message, factor),
            finish=lambda message: unary if message is None else add_unblurred(unary, message, factor),
            iterations=self.iterations(),
            tolerance=self.settings.tolerance,
            recompute=self.recompute,
        )

    def _shares(self, unary):
        """Return what the unary counts for and what the messages: both fully, or (1 − w) and w as the released code."""
        if self.settings.combine == "sum" or self.settings.iterations == 0:
            return unary, 1.0
        weight = self.value("unary_weight")
        return (1 - weight) * unary, weight

    def _merge(self, appearance, smoothness, radius, gain):
        """Return both kernels, normalised and weighted, as one."""
        kernels = [appearance, smoothness]
        mode, exclude_self = self.settings.normalisation, self.settings.exclude_self

        def degrees():
            return torch.cat([window.degree(features, radius) for features in kernels], dim=1)

        left, right = gaussian_filters.factors(degrees, appearance[:, :2], mode, exclude_self)
        left = gain * left * self.weights(1).view(1, 2, 1, 1)
        return window.weights(kernels, radius, left, right, exclude_self=exclude_self)


def compatible(message, penalty):
    """Return what a message adds to the scores: for Potts, whose penalty is None, itself, see `mean_field.add`."""
    return message if penalty is None else torch.einsum("ij,bjhw->bihw", -penalty, message)


class System(refiners.GradientSystem):
    """A ConvCRF that fits itself by gradient and refines one image at a time."""

    model = ConvCRF
