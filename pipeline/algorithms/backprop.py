"""Training by gradient: a resumable loop for networks, a small one for refiners of given unaries."""

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.algorithms.batches import scaled
from pipeline.algorithms.losses import LOSSES
from pipeline.core.errors import DataError
from pipeline.core.unaries import resize


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
    """

    def __init__(self, network, scaling, refiner=None):
        super().__init__()
        self.network, self.scaling, self.refiner = network, scaling, refiner

    def forward(self, images):
        """Return scores (B C H W), float32, of images (B 3 H W), float32, RGB 0..1."""
        scores = resize(self.network(scaled(images, self.scaling)).float(), *images.shape[-2:])
        if self.refiner is None:
            return scores
        # Gaussian weights underflow in half precision, so the filters never run in it.
        with torch.autocast(images.device.type, enabled=False):
            return self.refiner(images * 255, scores.log_softmax(dim=1))


class Training:
    """A training as a resumable sequence of steps.

    Parameters
    ----------
    module : nn.Module
        Takes the images of a batch, returns scores at the size of the truth.
    groups : list of dict
        Parameter groups for Adam, with their initial learning rates.
    settings : Settings
        loss, epochs, schedule, power, precision, normalisation, heldout_every.
    steps_per_epoch : int
    seed : int
        Step *n* draws its dropout from seed and *n* alone.
    """

    def __init__(self, module, groups, settings, steps_per_epoch, seed):
        self.module, self.settings, self.seed = module, settings, seed
        self.steps_per_epoch, self.steps = steps_per_epoch, steps_per_epoch * settings.epochs
        self.optimiser = torch.optim.Adam(groups)
        self.rates = [group["lr"] for group in self.optimiser.param_groups]
        self.done, self.epoch_loss, self.history = 0, 0.0, []
        self.parallel = dist.is_available() and dist.is_initialized()
        self.forward = DistributedDataParallel(module) if self.parallel else module

    def run(self, views, *, workers, rank=0, ranks=1, evaluate=None):
        """Take the steps that are left; yield the mean loss of each.

        At the end of an epoch `history` has grown by a dict: epoch, steps, loss (mean of the epoch), lr and
        heldout_miou, which is what `evaluate` returns, or None where it is None or not this epoch's turn.
        """
        for images, truth in views.loader(self.done, self.steps, workers=workers, rank=rank, ranks=ranks):
            device = next(self.module.parameters()).device
            loss = self.step(images.to(device), truth.to(device))
            self.epoch_loss += loss
            if self.done % self.steps_per_epoch == 0:
                self._end_epoch(evaluate)
            yield loss

    def step(self, images, truth):
        """Take one step; return the batch's mean loss.

        Raises
        ------
        DataError
            At the first loss that is not finite; the parameters are still those before the step.
        """
        torch.manual_seed((self.seed * 1_000_003 + self.done) % 2**63)
        self._set_rates()
        self._set_mode()
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.settings.precision == "bfloat16"):
            scores = self.forward(images)
        total, count = LOSSES[self.settings.loss](scores.float(), truth)
        if self.parallel:
            dist.all_reduce(count)
        loss = total / count.clamp_min(1)
        if not torch.isfinite(loss):
            where, found = f"training, step {self.done}", f"a loss of {loss.item()}"
            raise DataError(where, found, "a finite one", "lower the learning rate")
        self.optimiser.zero_grad(set_to_none=True)
        # Data parallelism takes the mean of the processes' gradients; times their number it is the sum.
        (loss * (dist.get_world_size() if self.parallel else 1)).backward()
        self.optimiser.step()
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
            "history": self.history,
        }

    def load_state_dict(self, state):
        """Go on from `state_dict` of an equal training."""
        self.module.load_state_dict(state["module"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.done, self.epoch_loss, self.history = state["done"], state["epoch_loss"], list(state["history"])

    def _set_rates(self):
        factor = SCHEDULES[self.settings.schedule](self.done / self.steps, self.settings.power)
        for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor

    def _set_mode(self):
        self.module.train()
        if self.settings.normalisation == "frozen":
            for layer in self.module.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.eval()

    def _end_epoch(self, evaluate):
        epoch = self.done // self.steps_per_epoch
        every = self.settings.heldout_every
        due = evaluate is not None and every and (epoch % every == 0 or self.done == self.steps)
        self.history.append(
            {
                "epoch": epoch,
                "steps": self.done,
                "loss": self.epoch_loss / self.steps_per_epoch,
                "lr": self.optimiser.param_groups[0]["lr"],
                "heldout_miou": evaluate() if due else None,
            }
        )
        self.epoch_loss = 0.0


def squared_poly(share, power):
    """Return ((1 − share)^power)², the schedule of section 5 of arXiv:1805.04777."""
    return ((1 - share) ** power) ** 2


def constant(share, power):
    """Return 1: a learning rate that does not change; `power` is not used."""
    return 1.0


SCHEDULES = {"squared_poly": squared_poly, "constant": constant}


def decay_groups(module, learning_rate, weight_decay):
    """Return optimiser groups: L2 decay on convolution kernels, none on biases and normalisation."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    kernels = [parameter for parameter in parameters if parameter.ndim > 1]
    others = [parameter for parameter in parameters if parameter.ndim <= 1]
    groups = [(kernels, weight_decay), (others, 0.0)]
    return [{"params": params, "lr": learning_rate, "weight_decay": decay} for params, decay in groups if params]
