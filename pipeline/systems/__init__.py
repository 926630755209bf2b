"""Systems: what sharpens unaries. A system is a file of this folder, found by the name its settings give.

A file defines one class named `System` that keeps the `SystemProtocol` below; its settings are a file under
``config/systems``, its schema one under ``workflow/schemas/systems``, its page one under ``docs/systems``.
"""

import importlib
from pathlib import Path
from typing import Protocol

from pipeline.core.errors import SettingsError
from pipeline.core.settings import nearest


class SystemProtocol(Protocol):
    """One structured model over the pixels' labels."""

    def __init__(self, settings, classes, state, device):
        """Build from settings and, if it was fitted before, the numbers that `state` returned."""

    def fit(self, samples, seed):
        """Fit on labelled images; yield one dict per step: step, steps, loss and the parameters' values.

        `samples` is a sequence whose items are (Sample, Unaries), read anew at each access. A system that learns
        nothing yields nothing.
        """

    def refine(self, image, unaries):
        """Return labels (H, W) uint8 for an image (H, W, 3) uint8 and its Unaries."""

    def state(self):
        """Return the fitted numbers: dict of str to ndarray, empty if there are none."""

    # Systems that know more of an image than its labels have the next one; `refine` (the stage) asks for it.
    # certified(image, unaries) -> labels, {"energy": of the labels, "bound": none have less}
    #
    # Those whose settings may name a file of `branch_weights` have the next one; `fit` asks for it.
    # branch : nn.Module that starts from it, its names beginning with "backbone.", see `formats.weights.load_into`
    #
    # Those that search have the next one; `fit --part` asks for it.
    # share(samples, seed, part, parts): a part of the counting that `fit` begins with
    #
    # Differentiable ones have the next two; `finetune` asks for them.
    # module : nn.Module with forward(images (B 3 H W) 0..255, log_probability (B C H W)) -> scores (B C H W), or with
    #     loss(images, log_probability, truth (B H W)) -> sum, number of terms; and recompute, see `finetune`
    # labels(images (1 3 H W), log_probability (1 C H W)) -> (H W) uint8


def module_name(system):
    """Return the dotted module name of a system, for its sources."""
    return f"{__name__}.{system}"


def build(settings, classes, device, state=None):
    """Build the system that `settings.system` names.

    Parameters
    ----------
    settings : Settings
        One file of ``config/systems``.
    classes : int
        Number of classes, void not counted.
    device : torch.device
    state : dict of str to ndarray, optional
        Fitted numbers to go on from.

    Returns
    -------
    SystemProtocol
    """
    known = sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))
    if settings.system not in known:
        raise SettingsError("system", f"'{settings.system}'", "a known system", nearest(settings.system, known))
    return importlib.import_module(module_name(settings.system)).System(settings, classes, state or {}, device)
