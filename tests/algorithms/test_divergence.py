"""What is said of a training that blows up: that it does, and of which parameter."""

import pytest
import torch
from torch import nn

from pipeline.algorithms.divergence import Divergence
from pipeline.core.errors import DataError


class Three(nn.Module):
    """A parameter that starts at 0, one that does not, one that learns nothing."""

    def __init__(self):
        super().__init__()
        self.log_temperature = nn.Parameter(torch.zeros(()))
        self.compatibility = nn.Parameter(torch.ones(2, 2))
        self.fixed = nn.Parameter(torch.ones(3), requires_grad=False)


def watched():
    module = Three()
    return module, Divergence(module)


def test_what_is_well_passes():
    module, watch = watched()
    module.log_temperature.grad = torch.tensor(3.0)
    watch.before_step("here", 0.5)
    with torch.no_grad():
        module.log_temperature += 2
        module.fixed += torch.inf
    watch.after_step("here")


@pytest.mark.parametrize("grown", [1e4, float("nan"), float("inf")])
def test_the_parameter_that_grew_is_named_and_not_one_that_began_at_0(grown):
    module, watch = watched()
    with torch.no_grad():
        module.compatibility *= grown
        module.log_temperature += 1e-3
    with pytest.raises(DataError, match=r"here: found a loss of nan; compatibility is .* times as large as at first"):
        watch.before_step("here", float("nan"))


def test_logarithms_are_named_as_the_settings_do():
    module, watch = watched()
    with torch.no_grad():
        module.log_temperature += 50
    with pytest.raises(DataError, match=r"a loss of inf; temperature is 5e\+03 times"):
        watch.before_step("here", float("inf"))


def test_a_gradient_that_is_not_finite_is_named():
    module, watch = watched()
    module.log_temperature.grad = torch.tensor(1.0)
    module.compatibility.grad = torch.full((2, 2), torch.nan)
    with pytest.raises(DataError, match="a gradient of compatibility that is not finite"):
        watch.before_step("here", 0.5)


def test_gradients_whose_norm_alone_overflows_pass():
    module, watch = watched()
    module.compatibility.grad = torch.full((2, 2), 1.5e19)
    watch.before_step("here", 0.5)


@pytest.mark.parametrize("value", [1e18, float("nan"), float("inf")])
def test_a_step_that_leaves_parameters_beyond_bounds_is_refused(value):
    module, watch = watched()
    with torch.no_grad():
        module.compatibility.fill_(value)
    with pytest.raises(DataError, match=r"here: found compatibility .* times as large as at first, expected a bounded"):
        watch.after_step("here")
