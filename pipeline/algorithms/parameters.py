"""The numbers of a system that may be learnt: by name, as settings give them and files keep them."""

import numpy as np
import torch
from torch import nn

from pipeline.core.errors import DataError, SettingsError


class Parameters(nn.Module):
    """A module whose parameters are known by name, some of them learnt: those that ``settings.fit.parameters`` names.

    A subclass gives `positive`, the names of those that are numbers above 0, which are kept as logarithms. Others are
    arrays, which may have any sign.

    Parameters
    ----------
    settings : Settings
        The system's; holds the values of the numbers above 0.
    starts : dict of str to ndarray, float32
        Where the arrays start; one of the name of a number takes its place.
    state : dict of str to ndarray
        Values that replace those of the settings and the starts, by name.

    Raises
    ------
    SettingsError
        If what is to be learnt is not there, or not used.
    DataError
        If an array of the state has another shape.
    """

    positive = ()

    def __init__(self, settings, starts, state):
        super().__init__()
        self.settings, self.starts, self._read = settings, starts, {}
        learnt = self.rates()
        known = [name for name in self.names() if name not in self.unused()]
        if unknown := [name for name in learnt if name not in known]:
            found, expected = f"'{unknown[0]}'", f"what these settings use: {', '.join(known)}"
            raise SettingsError("key 'fit.parameters'", found, expected, "take it out, or change what it belongs to")
        for name in self.positive:
            if name not in self.starts:
                value = torch.tensor(float(state.get(name, settings[name])), dtype=torch.float32)
                self.register_parameter(f"log_{name}", nn.Parameter(value.log(), requires_grad=name in learnt))
        for name, start in self.starts.items():
            value = torch.from_numpy(np.array(state.get(name, start), np.float32))
            if value.shape != start.shape:
                found, expected = f"{tuple(value.shape)} numbers", f"{start.shape} as the settings say"
                raise DataError(f"fitted {name}", found, expected, "run `fit` again")
            self.register_parameter(name, nn.Parameter(value, requires_grad=name in learnt))

    def names(self):
        """Return the names of all parameters."""
        return tuple(dict.fromkeys((*self.positive, *self.starts)))

    def unused(self):
        """Return the names of parameters that these settings make no use of."""
        return ()

    def value(self, name):
        """Return one parameter as a tensor, or if the model has none of that name None."""
        if name in self.starts:
            return getattr(self, name)
        return getattr(self, f"log_{name}").exp() if name in self.positive else None

    def on_host(self, name):
        """Return one positive parameter as a tensor on the CPU; a GPU is waited for only if it changed."""
        parameter = getattr(self, f"log_{name}")
        # Of what is made in inference mode nobody counts the changes.
        if parameter.is_inference() or (torch.is_grad_enabled() and parameter.requires_grad):
            return self.value(name).cpu()
        # Copies and moves of a module count changes anew, but in memory of their own.
        now = parameter._version, parameter.data_ptr(), parameter.dtype
        before, value = self._read.get(name, (None, None))
        if before != now:
            # A number made in inference mode could not be used where gradients are wanted.
            with torch.inference_mode(False), torch.no_grad():
                value = self.value(name).cpu()
            self._read[name] = now, value
        return value

    def set(self, name, value):
        """Give one positive parameter another value, above 0."""
        with torch.no_grad():
            getattr(self, f"log_{name}").fill_(value).log_()

    def rates(self):
        """Return the factors on the learning rates of what is learnt, dict of str to float."""
        return self.settings.fit.parameters.plain() if "fit" in self.settings else {}

    def rate(self, name):
        """Return the factor on the learning rate of one of `named_parameters`, 0 if it is not learnt."""
        return self.rates().get(name.removeprefix("log_"), 0)

    def numbers(self):
        """Return every parameter's value, dict of str to ndarray, float32."""
        return {name: self.value(name).detach().cpu().float().numpy() for name in self.names()}

    def values(self):
        """Return a number for every parameter, dict of str to float: of an array, NAME_moved, its RMS way."""
        told = {}
        for name, number in self.numbers().items():
            if name in self.starts:
                told[f"{name}_moved"] = float(np.sqrt(np.square(number - self.starts[name]).mean()))
            else:
                told[name] = float(number)
        return told
