"""FullCRF: mean field with Gaussian kernels over all pairs of pixels (Krähenbühl and Koltun, arXiv:1210.5644).

Energy of labels x, in the notation of docs/systems/fullcrf.md::

    E(x) = Σ_i −log p_i(x_i) / temperature + Σ_{i<j} [x_i ≠ x_j] (w₁ k_appearance + w₂ k_smoothness)
"""

import torch

from pipeline.algorithms import gaussian_filters, refiners
from pipeline.algorithms.gaussian_crf import GaussianCRF
from pipeline.algorithms.mean_field import mean_field
from pipeline.core.errors import SettingsError
from pipeline.kernels.lattice_mean_field import lattice_mean_field

EXACT = {"exact": "float32", "exact_tf32": "tf32"}  # filters over all pairs, and how precisely they multiply


class FullCRF(GaussianCRF):
    """The differentiable model; ``config/systems/fullcrf.yaml`` explains the settings."""

    def __init__(self, settings, classes, state):
        super().__init__(settings, classes, state)
        _check(settings, self.rates())

    def scores(self, unary, appearance, smoothness, trace=None):
        """Return the scores (B, C, H, W), maybe in the place of the unary.

        `trace`, a list, gets the energies of every iteration.
        """
        weights, kernels = self.weights(unary.shape[1]), [appearance, smoothness]
        if not self._in_one_call() or trace is not None:
            return self._composed(unary, self._filters(unary, *kernels), weights, trace)
        del appearance, smoothness
        lattices = self._placed(kernels)
        return lattice_mean_field(unary, *lattices, weights, self.iterations(), overwrite=True)

    def several(self, unary, appearance, smoothness, weights):
        """Return the scores (B, S, C, H, W) under S settings of the weights, (S, 2, C), which share the rest."""
        if self._in_one_call():
            lattices = self._placed([appearance, smoothness])
            return lattice_mean_field(unary, *lattices, weights, self.settings.iterations)
        filters = self._filters(unary, appearance, smoothness)
        return torch.stack([self._composed(unary, filters, each) for each in weights], dim=1)

    def _placed(self, kernels):
        """Return lattices, lefts and rights of both kernels' features; the list is emptied, as they are large."""
        placed = []
        while kernels:
            placed.append(gaussian_filters.placed(kernels.pop(0), self.settings.normalisation))
        return zip(*placed, strict=True)

    def _filters(self, unary, appearance, smoothness):
        """Return the filters of both kernels."""
        how = self.settings.normalisation, self.settings.exclude_self
        if self.settings.filter == "lattice":
            near = gaussian_filters.lattice(appearance.detach(), self.settings.normalisation)
        elif self.settings.filter in EXACT:
            near = gaussian_filters.exact(appearance, *how, EXACT[self.settings.filter])
        else:
            near = gaussian_filters.window(appearance, self.settings.filter_size // 2, *how)
        if self.settings.smoothness == "separable":
            return near, gaussian_filters.spatial(self.on_host("theta_gamma"), unary, *how)
        return near, gaussian_filters.lattice(smoothness.detach(), self.settings.normalisation)

    def _composed(self, unary, filters, weights, trace=None):
        """Run mean field step by step."""
        return mean_field(
            unary,
            lambda q: [send(q) for send in filters],
            weights,
            iterations=self.iterations(),
            compatibility=self.penalties(),
            normalise=self.settings.get("normalise", "softmax"),
            tolerance=self.settings.tolerance,
            trace=trace,
            recompute=self.recompute,
        )

    def _in_one_call(self):
        """Whether `lattice_mean_field` can: two lattices, Potts, every iteration run, no gradient."""
        chosen = self.settings
        potts = chosen.get("compatibility", "potts") == "potts" and chosen.get("kernel_weights") != "matrix"
        tied = not chosen.get("untied") and chosen.get("normalise", "softmax") == "softmax"
        plain = potts and tied and chosen.tolerance == 0 and not torch.is_grad_enabled()
        return plain and chosen.filter == chosen.smoothness == "lattice"


def _check(settings, learnt):
    """Refuse what a lattice cannot do: leave a pixel out of its own sum, and a gradient to its bandwidths."""
    if settings.exclude_self and "lattice" in (settings.filter, settings.smoothness):
        raise SettingsError(
            "key 'exclude_self'",
            f"true with filter: {settings.filter} and smoothness: {settings.smoothness}",
            "false, as a lattice cannot tell a pixel's share of its own sum",
            "set it to false, or choose filter: window or exact and smoothness: separable",
        )
    fixed = []
    if settings.filter == "lattice":
        fixed += ["theta_alpha", "theta_beta"]
    if settings.smoothness == "lattice":
        fixed += ["theta_gamma"]
    for name in learnt:
        if name in fixed:
            raise SettingsError(
                "key 'fit.parameters'",
                f"'{name}' with a lattice, which has no gradient to it",
                "parameters other than " + ", ".join(fixed),
                "take it out, or choose filter: window or exact and smoothness: separable",
            )


class System(refiners.GradientSystem):
    """A FullCRF that fits itself by gradient and refines one image at a time."""

    model = FullCRF
