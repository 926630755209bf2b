"""When a training blows up: that it does, and where."""

import math

import torch
from torch.nn.utils import get_total_norm

from pipeline.core.errors import DataError


class Divergence:
    """Watches what a module learns.

    Parameters
    ----------
    module : nn.Module
        The length of each of its parameters is remembered as it is now.
    """

    def __init__(self, module):
        self.learnt = {name: value for name, value in module.named_parameters() if value.requires_grad}
        self.lengths = {name: float(value.detach().norm()) for name, value in self.learnt.items()}

    def check(self, where, loss):
        """Refuse a loss that is not finite, or else a gradient; the parameters are still those before the step.

        Raises
        ------
        DataError
            Names the parameter that grew most by now, or the one of the gradient.
        """
        if not math.isfinite(loss):
            raise DataError(where, f"a loss of {loss}{self._grown()}", "a finite one", "lower the learning rate")
        gradients = {name: value.grad for name, value in self.learnt.items() if value.grad is not None}
        if not torch.isfinite(get_total_norm(gradients.values())):
            name = next(name for name, gradient in gradients.items() if not torch.isfinite(gradient.norm()))
            raise DataError(
                where, f"a gradient of {name} that is not finite", "a finite one", "lower the learning rate"
            )

    def _grown(self):
        grown = {
            name: float(value.detach().norm()) / max(self.lengths[name], 1e-30) for name, value in self.learnt.items()
        }
        name = max(grown, key=grown.get, default=None)
        return f" ({name} has grown to {grown[name]:.3g} times its first length)" if name else ""
