"""When a training blows up: that it does, and where."""

import math

import torch
from torch.nn.utils import get_total_norm

from pipeline.core.errors import DataError

LEAST = 0.01  # root mean square of numbers that count as none yet: what starts at 0 grows without bound
MOST = 1e6  # times its first length a parameter may grow
DO = "lower the learning rate; the last checkpoint is from before"


class Divergence:
    """Watches what a module learns.

    Parameters
    ----------
    module : nn.Module
        The length of each of its parameters is remembered as it is now.
    """

    def __init__(self, module):
        self.learnt = {name: value for name, value in module.named_parameters() if value.requires_grad}
        self.lengths = {
            name: max(_length(value), LEAST * math.sqrt(value.numel())) for name, value in self.learnt.items()
        }

    def before_step(self, where, loss):
        """Refuse a loss that is not finite, or else a gradient; the parameters are still those before the step.

        Raises
        ------
        DataError
            Names the parameter that is not finite or has grown most by now, or the one of the gradient.
        """
        if not math.isfinite(loss):
            name, grown = self._most()
            told = f"; {_plain(name)} is {grown:.3g} times as large as at first" if name else ""
            raise DataError(where, f"a loss of {loss}{told}", "a finite one", DO)
        gradients = {name: value.grad for name, value in self.learnt.items() if value.grad is not None}
        if gradients and not torch.isfinite(get_total_norm(gradients.values())):
            # The norm of all may overflow where each number is finite.
            spoilt = next((name for name, grad in gradients.items() if not torch.isfinite(grad).all()), None)
            if spoilt:
                raise DataError(where, f"a gradient of {_plain(spoilt)} that is not finite", "a finite one", DO)

    def after_step(self, where):
        """Refuse parameters that are not finite or have grown a million times; to be called before they are kept.

        Raises
        ------
        DataError
            Names the parameter.
        """
        # Far more parameters are well than not: one number tells whether a closer look is due.
        if self.learnt and float(get_total_norm(self.learnt.values())) < MOST * LEAST:
            return
        name, grown = self._most()
        if not grown < MOST:
            raise DataError(where, f"{_plain(name)} {grown:.3g} times as large as at first", "a bounded one", DO)

    def _most(self):
        """Return the parameter that has grown most, and how many times; one that is not finite before all others."""
        grown = {name: _length(value) / self.lengths[name] for name, value in self.learnt.items()}
        grown = {name: times if math.isfinite(times) else math.inf for name, times in grown.items()}
        return max(grown.items(), key=lambda each: each[1], default=("", 0.0))


def _length(value):
    return float(value.detach().norm())


def _plain(name):
    """Name a parameter as the settings do: not by its logarithm."""
    *path, last = name.split(".")
    return ".".join([*path, last.removeprefix("log_")])
