"""Training by gradient: a resumable loop for networks, a small one for refiners of given unaries."""

import time

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.algorithms.batches import scaled
from pipeline.algorithms.divergence import Divergence
from pipeline.algorithms.losses import LOSSES, OWN, of_system
from pipeline.algorithms.prediction import full_size
from pipeline.core.errors import SettingsError
from pipeline.core.settings import nearest


class Segmenter(nn.Module):
    """A network that takes plain photographs and answers at their size; with a system, sharpened.

    Parameters
    ----------
    network : nn.Module
        Takes scaled images (B 3 H W), returns logits (B C h w).
    scaling : Settings
        `mean` and `std` per channel, of images 0..1.
    refiner : nn.Module, optional
        Takes images 0..255 and log-probabilities (B C H W), returns scores (B C H W).
    loss_at : {"pixels", "entries"}
        Where the scores are wanted: at every pixel, or only at the pixels that the network's own entries stand for.
        A refiner needs them all.
    """

    def __init__(self, network, scaling, refiner=None, loss_at="pixels"):
        super().__init__()
        self.network, self.scaling, self.refiner, self.loss_at = network, scaling, refiner, loss_at
        if loss_at == "entries" and network.grid.origin:
            expected = "'pixels', as some of this network's entries stand beyond the image"
            raise SettingsError("key 'loss_at'", "'entries'", expected, "set it to pixels")

    def forward(self, images):
        """Return scores, float32, of images (B 3 H W), float32, RGB 0..1: (B C H W), or at the entries (B C h w)."""
        if self.loss_at == "entries":
            return self.network(scaled(images, self.scaling)).float()
        if self.refiner is None:
            return full_size(self.network, scaled(images, self.scaling))
        return self.refined(images, self.refiner)

    def refined(self, images, function):
        """Return what a function of images 0..255 and log-probabilities (B C H W) makes of the network's."""
        scores = full_size(self.network, scaled(images, self.scaling))
        # Gaussian weights underflow in half precision, so systems never run in it.
        with torch.autocast(images.device.type, enabled=False):
            return function(images * 255, scores.log_softmax(dim=1))

    def targets(self, truth):
        """Return the truth (B H W) where the scores are."""
        if self.loss_at == "pixels":
            return truth
        rows, cols = (self.network.grid.standing(size) for size in truth.shape[1:])
        return truth[:, rows][:, :, cols]


class Objective(nn.Module):
    """What a training lowers: of images (B 3 H W) and truth (B H W) the loss, a sum and the number of its terms.

    Parameters
    ----------
    module : Segmenter
    loss : str
        Of `losses.LOSSES`, or "system": the refiner's own.
    precision : {"float32", "bfloat16"}
        Of the network's forward pass.
    """

    def __init__(self, module, loss, precision):
        super().__init__()
        self.module, self.loss, self.precision = module, loss, precision

    def forward(self, images, truth):
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            if self.loss == OWN:
                return self.module.refined(images, lambda *given: of_system(self.module.refiner, OWN, *given, truth))
            scores = self.module(images)
        return LOSSES[self.loss](scores.float(), self.module.targets(truth))


def placed(module, device, precision):
    """Move a module to a device, laid out as its convolutions are fastest there."""
    fast = {"memory_format": torch.channels_last} if precision == "bfloat16" or device.type == "cuda" else {}
    return module.to(device, **fast)


class Training:
    """A training as a resumable sequence of steps.

    Parameters
    ----------
    module : Segmenter
    groups : list of dict
        Parameter groups of the optimiser, with their initial learning rates.
    settings : Settings
        loss, epochs or iterations, optimiser, learning_rate, schedule, precision, normalisation, heldout_every.
    steps_per_epoch : int
    seed : int
        Step *n* draws its dropout from seed and *n* alone.
    """

    def __init__(self, module, groups, settings, steps_per_epoch, seed):
        self.module, self.settings, self.seed = module, settings, seed
        self.steps_per_epoch = steps_per_epoch
        self.steps = settings.iterations if "iterations" in settings else steps_per_epoch * settings.epochs
        self.optimiser = OPTIMISERS[settings.optimiser.name](groups, settings.optimiser)
        self.rates = [group["lr"] for group in self.optimiser.param_groups]
        self.watch = Divergence(module)
        self.done, self.epoch_loss, self.epoch_seconds, self.history = 0, 0.0, 0.0, []
        self.parallel = dist.is_available() and dist.is_initialized()
        objective = Objective(module, settings.loss, settings.precision)
        self.objective = DistributedDataParallel(objective) if self.parallel else objective

    def run(self, views, *, workers, rank=0, ranks=1, evaluate=None):
        """Take the steps that are left; yield the mean loss of each.

        At the end of an epoch, and of the training, `history` has grown by a dict: epoch, steps, loss (mean of the
        epoch), lr, heldout_miou, None unless `evaluate` was asked, what else that returns, a dict, and seconds, those
        spent in the epoch's steps without reading images.
        """
        for images, truth in views.loader(self.done, self.steps, workers=workers, rank=rank, ranks=ranks):
            begun = time.perf_counter()
            device = next(self.module.parameters()).device
            loss = self.step(images.to(device), truth.to(device))
            self.epoch_loss += loss
            self.epoch_seconds += time.perf_counter() - begun
            if self.done % self.steps_per_epoch == 0 or self.done == self.steps:
                self._end_epoch(evaluate)
            yield loss

    def step(self, images, truth):
        """Take one step; return the batch's mean loss.

        Raises
        ------
        DataError
            At the first loss or gradient that is not finite, and at parameters that have grown beyond bounds.
        """
        torch.manual_seed((self.seed * 1_000_003 + self.done) % 2**63)
        self._set_rates()
        self._set_mode()
        total, count = self.objective(images, truth)
        if self.parallel:
            dist.all_reduce(count)
        loss = total / count.clamp_min(1)
        self.optimiser.zero_grad(set_to_none=True)
        # Data parallelism takes the mean of the processes' gradients; times their number it is the sum.
        (loss * (dist.get_world_size() if self.parallel else 1)).backward()
        self.watch.before_step(f"training, step {self.done}", float(loss.detach()))
        self.optimiser.step()
        self.watch.after_step(f"training, step {self.done}")
        self.done += 1
        loss = loss.detach()
        if self.parallel:
            dist.all_reduce(loss)
        return float(loss)

    def state_dict(self):
        """Return all that a later process needs to go on."""
        return {
            "module": self.module.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "done": self.done,
            "epoch_loss": self.epoch_loss,
            "epoch_seconds": self.epoch_seconds,
            "history": self.history,
        }

    def load_state_dict(self, state):
        """Go on from `state_dict` of an equal training."""
        self.module.load_state_dict(state["module"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.done, self.history = state["done"], list(state["history"])
        self.epoch_loss, self.epoch_seconds = state["epoch_loss"], state["epoch_seconds"]

    def _set_rates(self):
        for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = rate * self._course(self.done)

    def _course(self, step):
        """Return the factor on all learning rates at one step."""
        schedule = self.settings.schedule
        return SCHEDULES[schedule.name](step, self.steps, schedule)

    def _set_mode(self):
        self.module.train()
        if self.settings.normalisation == "frozen":
            for layer in self.module.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.eval()

    def _end_epoch(self, evaluate):
        epoch = -(-self.done // self.steps_per_epoch)
        every = self.settings.heldout_every
        due = evaluate is not None and every and (epoch % every == 0 or self.done == self.steps)
        self.history.append(
            {
                "epoch": epoch,
                "steps": self.done,
                "loss": self.epoch_loss / (self.done - (epoch - 1) * self.steps_per_epoch),
                "lr": self.settings.learning_rate * self._course(self.done - 1),
                "heldout_miou": None,
                "seconds": round(self.epoch_seconds, 3),
            }
            | (evaluate() if due else {})
        )
        self.epoch_loss = self.epoch_seconds = 0.0


def constant(step, steps, schedule):
    """Return 1: learning rates that do not change."""
    return 1.0


def poly(step, steps, schedule):
    """Return (1 − step / steps)^power, the schedule of section 4.1.1 of arXiv:1606.00915."""
    return (1 - step / steps) ** schedule.power


def squared_poly(step, steps, schedule):
    """Return ((1 − step / steps)^power)², the schedule of section 5 of arXiv:1805.04777."""
    return poly(step, steps, schedule) ** 2


def step_down(step, steps, schedule):
    """Return factor^⌊step / every⌋, the schedule of section 5 of arXiv:1412.7062."""
    return schedule.factor ** (step // schedule.every)


SCHEDULES = {"constant": constant, "poly": poly, "squared_poly": squared_poly, "step": step_down}
OPTIMISERS = {
    "adam": lambda groups, chosen: torch.optim.Adam(groups),
    "sgd": lambda groups, chosen: torch.optim.SGD(groups, momentum=chosen.momentum),
}


def network_groups(network, settings):
    """Return optimiser groups of what a network learns, and freeze the rest of it.

    Parameters
    ----------
    network : nn.Module
    settings : Settings
        learns, learning_rate, classifier_rate, bias_rate, weight_decay.

    Raises
    ------
    SettingsError
        If a part that is to learn is not there.
    """
    parts = {name: name.startswith(settings.learns) for name, _ in network.named_parameters()}
    absent = next((part for part in settings.learns if not any(name.startswith(part) for name in parts)), None)
    if absent is not None:
        known = sorted({name.partition(".")[0] for name in parts})
        raise SettingsError(
            "key 'learns'", f"'{absent}'", "the beginning of a parameter's name", nearest(absent, known)
        )
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(parts[name])

    def rate(name):
        factor = settings.classifier_rate if name.startswith("classifier") else 1
        return settings.learning_rate * factor * (settings.bias_rate if name.endswith("bias") else 1)

    return groups(network, rate, settings.weight_decay)


def groups(module, rate, weight_decay):
    """Return optimiser groups: L2 decay on convolution kernels, none on biases and normalisation.

    Parameters
    ----------
    module : nn.Module
        What needs no gradient is left out.
    rate : callable
        Takes a parameter's name, returns its learning rate.
    weight_decay : float
    """
    found = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            key = rate(name), weight_decay if parameter.ndim > 1 else 0.0
            found.setdefault(key, []).append(parameter)
    return [{"params": some, "lr": lr, "weight_decay": decay} for (lr, decay), some in found.items()]
