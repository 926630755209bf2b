"""Systems that are differentiable modules: fitted on given unaries by gradient, refining one image at a time."""

import torch

from pipeline.algorithms import losses
from pipeline.algorithms.backprop import groups
from pipeline.algorithms.divergence import Divergence
from pipeline.core import errors
from pipeline.core.errors import SettingsError
from pipeline.metrics.overlap import percent


class GradientSystem:
    """A system around a differentiable module; keeps the protocol of `pipeline.systems`.

    A subclass gives `model`, built from settings, classes and state: `Parameters` with ``forward(images,
    log_probability)``, or with a loss of its own and `labels` in the subclass.
    """

    model = None

    def __init__(self, settings, classes, state, device):
        self.settings, self.classes, self.device = settings, classes, device
        self.module = self.model(settings, classes, state).to(device).eval()

    def fit(self, samples, seed):
        """Lower the loss on labelled images with Adam; yields as the protocol says."""
        if not self.settings.fit.parameters or not self.settings.fit.epochs:
            return iter(())
        if self.settings.get("training_iterations", self.settings.get("iterations", 1)) == 0:
            found, expected = "0 iterations while it is fitted", "one or more, or nothing to fit"
            raise SettingsError("key 'fit.parameters'", found, expected, "raise the iterations, or empty it")
        losses.check(self.module, self.settings.fit.loss, "fit.loss")
        self.prepare(samples)
        rows = fit(self.module, samples, self.settings.fit, seed, self.device)
        return self._watched(rows, samples, seed) if "watch" in self.settings.fit else rows

    def prepare(self, samples):
        """Do what comes before the first step; a subclass may have something."""

    def _watched(self, rows, samples, seed):
        """Add to the rows of a fit, before the first step and after some, the mean IoU of some images in percent.

        Nothing is chosen by it; source: Teichmann and Cipolla, arXiv:1805.04777, Figure 2.
        """
        every, images = self.settings.fit.watch.every, self.settings.fit.watch.images
        some = {f"{split}_miou": samples.some(split, images, seed) for split in ("heldout", "val")}

        def look():
            self.module.eval()
            return {name: self._miou(each) for name, each in some.items()}

        start = look()
        for row in rows:
            if row["step"] == 1:
                yield {"step": 0, "steps": row["steps"]} | start
            if row["step"] % every == 0 or row["step"] == row["steps"]:
                row |= look()
            self.module.train()
            yield row

    def _miou(self, samples):
        pairs = ((sample.truth, self.refine(sample.image, unaries)) for sample, unaries in samples)
        return percent(pairs, self.classes)

    def refine(self, image, unaries):
        """Return labels (H, W) uint8."""
        return self.labels(*as_batch(image, unaries, self.device))

    def labels(self, images, log_probability):
        """Return labels (H, W) uint8 of one image as tensors, see `as_batch`."""
        with torch.inference_mode():
            # max is several times as fast as argmax over the first axis.
            return self.module(images, log_probability)[0].max(dim=0).indices.byte().cpu().numpy()

    def state(self):
        """Return every parameter's value, learnt or not."""
        return self.module.numbers()


def fit(module, samples, settings, seed, device):
    """Fit a differentiable system on given unaries; the gradient of a batch is summed image by image.

    Parameters
    ----------
    module : nn.Module
        As `GradientSystem` describes; it is in training mode while it is fitted, then in that of evaluation.
    samples : sequence
        Items are (Sample, Unaries); read anew at each access, so memory does not grow with their number.
    settings : Settings
        loss, epochs, batch, learning_rate.
    seed : int
        Of the order of the images.
    device : torch.device

    Yields
    ------
    dict
        step, steps, loss (mean over the batch's images) and ``module.values()``, all as before the step.

    Raises
    ------
    DataError
        At the first loss or gradient that is not finite, and at parameters that have grown beyond bounds.
    """
    rate = {name: settings.learning_rate * module.rate(name) for name, _ in module.named_parameters()}
    optimiser = torch.optim.Adam(groups(module, rate.get, 0.0))
    watch = Divergence(module)
    module.train()
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for _ in range(settings.epochs):
        batches += torch.randperm(len(samples), generator=generator).split(settings.batch)
    for step, batch in enumerate(batches, start=1):
        optimiser.zero_grad(set_to_none=True)
        before = module.values()
        loss = 0.0
        for index in batch.tolist():
            sample, unaries = samples[index]
            truth = torch.from_numpy(sample.truth).long()[None].to(device)
            with errors.of(f"image {sample.name}"):
                total, count = losses.of_system(module, settings.loss, *as_batch(sample.image, unaries, device), truth)
            # Every image weighs the same, whatever its size.
            image_loss = total / count.clamp_min(1) / len(batch)
            image_loss.backward()
            loss += float(image_loss.detach())
        watch.before_step(f"fit, step {step}", loss)
        optimiser.step()
        watch.after_step(f"fit, step {step}")
        yield {"step": step, "steps": len(batches), "loss": loss} | before
    module.eval()


def as_batch(image, unaries, device):
    """Return one image and its Unaries as tensors (1 3 H W), 0..255, and (1 C H W), log-probability."""
    photograph = torch.from_numpy(image).to(device).permute(2, 0, 1)[None].float()
    return photograph, unaries.log_probability(*image.shape[:2], device)[None]
