"""Systems that are differentiable modules: fitted on given unaries by gradient, refining one image at a time."""

import math

import numpy as np
import torch

from pipeline.algorithms.losses import LOSSES
from pipeline.core.errors import DataError


class GradientSystem:
    """A system around a differentiable module; keeps the protocol of `pipeline.systems`.

    A subclass gives `model`, built from settings and state: an nn.Module with ``values()``, its numbers by name, and
    ``forward(images, log_probability)``.
    """

    model = None

    def __init__(self, settings, classes, state, device):
        self.settings, self.device = settings, device
        self.module = self.model(settings, state).to(device)

    def fit(self, samples, seed):
        """Lower the loss on labelled images with Adam; yields as the protocol says."""
        if not self.settings.fit.parameters:
            return iter(())
        return fit(self.module, samples, self.settings.fit, seed, self.device, self.module.values)

    def refine(self, image, unaries):
        """Return labels (H, W) uint8."""
        with torch.inference_mode():
            images, log_probability = as_batch(image, unaries, self.device)
            # max is several times as fast as argmax over the first axis.
            labels = self.module(images, log_probability)[0].max(dim=0).indices
            return labels.byte().cpu().numpy()

    def state(self):
        """Return every parameter's value, learnt or not."""
        return {name: np.float32(value) for name, value in self.module.values().items()}


def fit(module, samples, settings, seed, device, values):
    """Fit a differentiable system on given unaries; the gradient of a batch is summed image by image.

    Parameters
    ----------
    module : nn.Module
        Takes images (1 3 H W), 0..255, and log-probabilities (1 C H W); returns scores (1 C H W).
    samples : sequence
        Items are (Sample, Unaries); read anew at each access, so memory does not grow with their number.
    settings : Settings
        loss, epochs, batch, learning_rate.
    seed : int
        Of the order of the images.
    device : torch.device
    values : callable
        Returns the parameters' values, dict of str to float, for the curve.

    Yields
    ------
    dict
        step, steps, loss (mean over the batch's images) and `values`, all as before the step.
    """
    optimiser = torch.optim.Adam(
        [parameter for parameter in module.parameters() if parameter.requires_grad], lr=settings.learning_rate
    )
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for _ in range(settings.epochs):
        batches += torch.randperm(len(samples), generator=generator).split(settings.batch)
    for step, batch in enumerate(batches, start=1):
        optimiser.zero_grad(set_to_none=True)
        before = values()
        loss = 0.0
        for index in batch.tolist():
            sample, unaries = samples[index]
            truth = torch.from_numpy(sample.truth).long()[None].to(device)
            total, count = LOSSES[settings.loss](module(*as_batch(sample.image, unaries, device)), truth)
            # Every image weighs the same, whatever its size.
            image_loss = total / count.clamp_min(1) / len(batch)
            image_loss.backward()
            loss += float(image_loss.detach())
        if not math.isfinite(loss):
            raise DataError(f"fit, step {step}", f"a loss of {loss}", "a finite one", "lower the learning rate")
        optimiser.step()
        yield {"step": step, "steps": len(batches), "loss": loss} | before


def as_batch(image, unaries, device):
    """Return one image and its Unaries as tensors (1 3 H W), 0..255, and (1 C H W), log-probability."""
    photograph = torch.from_numpy(image).permute(2, 0, 1)[None].float().to(device)
    return photograph, unaries.log_probability(*image.shape[:2])[None].to(device)
