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


class FullCRF(GaussianCRF):
    """The differentiable model; ``config/systems/fullcrf.yaml`` explains the settings."""

    def __init__(self, settings, state):
        _check(settings)
        super().__init__(settings, state)

    def scores(self, unary, appearance, smoothness, trace=None):
        """Return the scores (B, C, H, W), maybe in the place of the unary.

        `trace`, a list, gets the energies of every iteration.
        """
        if self._in_one_call() and trace is None:
            both = [gaussian_filters.placed(appearance, self.settings.normalisation)]
            del appearance  # the lattice holds all that is needed of it, and it is large
            both.append(gaussian_filters.placed(smoothness, self.settings.normalisation))
            del smoothness
            lattices, lefts, rights = zip(*both, strict=True)
            weights = self.weights(unary.shape[1])
            iterations = self.settings.iterations
            return lattice_mean_field(unary, lattices, lefts, rights, weights, iterations, overwrite=True)
        how = self.settings.normalisation, self.settings.exclude_self
        if self.settings.filter == "lattice":
            near = gaussian_filters.lattice(appearance.detach(), self.settings.normalisation)
        elif self.settings.filter == "exact":
            near = gaussian_filters.exact(appearance, *how)
        else:
            near = gaussian_filters.window(appearance, self.settings.filter_size // 2, *how)
        if self.settings.smoothness == "separable":
            around = gaussian_filters.spatial(self.value("theta_gamma"), unary, *how)
        else:
            around = gaussian_filters.lattice(smoothness.detach(), self.settings.normalisation)
        return mean_field(
            unary,
            lambda q: [near(q), around(q)],
            self.weights(unary.shape[1]),
            iterations=self.settings.iterations,
            tolerance=self.settings.tolerance,
            trace=trace,
        )

    def _in_one_call(self):
        """Whether `lattice_mean_field` can do it: two lattices, every iteration run, nothing to learn from it."""
        chosen = self.settings
        plain = chosen.tolerance == 0 and not torch.is_grad_enabled()
        return plain and chosen.filter == chosen.smoothness == "lattice"


def _check(settings):
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
    for name in settings.fit.parameters:
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
