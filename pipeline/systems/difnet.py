"""DifNet on given unaries: their scores are the seeds, the similarities are learnt (Jiang et al., NeurIPS 2018).

The seed branch is whatever network the unaries came from, and frozen; importance map, similarity branch and walks are
fitted. `nets.difnet` is the network of both branches; docs/systems/difnet.md has the symbols.
"""

import math

import numpy as np
import torch
from torch import nn

from pipeline.algorithms import refiners
from pipeline.algorithms.batches import scaled
from pipeline.core.errors import DataError, SettingsError
from pipeline.kernels.blurred_update import blur, unblur
from pipeline.nets import initialise
from pipeline.nets.difnet import Branch, Diffusion

PARTS = ("similarity", "features", "importance", "mixing")  # what a fit may move
MIXING = ("mu", "beta")


class Diffuser(nn.Module):
    """The differentiable model; ``config/systems/difnet.yaml`` explains the settings.

    Normalisation layers keep their statistics whatever the mode: images come one by one, and must be treated in the
    fit as they are later. `measure` takes them from images once.
    """

    recompute = False

    def __init__(self, settings, classes, state):
        super().__init__()
        self.settings = settings
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(settings.start_seed)
            self.diffusion = Diffusion(settings, classes)
            initialise(self, None)
            for each in (self.diffusion.mu, self.diffusion.beta):
                nn.init.constant_(each, math.log(settings.mixing / (1 - settings.mixing)))
        no_branch, advice = self.diffusion.similarity is None, "or walk on layer1 to layer4"
        if no_branch and "similarity" in self.rates():
            expected = f"{', '.join(PARTS[1:])}: these walks have no branch"
            raise SettingsError("key 'fit.parameters'", "'similarity'", expected, f"take it out, {advice}")
        if no_branch and settings.branch_weights != "none":
            found, expected = f"'{settings.branch_weights}'", "none: these walks have no branch"
            raise SettingsError("key 'branch_weights'", found, expected, f"set none, {advice}")
        if state:
            self._load(state)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(self.rate(name) > 0)

    def forward(self, images, log_probability):
        """Return scores (B C H W) of images (B 3 H W), 0..255, and log p (B C H W); normalised they are Q."""
        return self.enlarged(self.walked(images, log_probability).states[-1], *images.shape[2:])

    def enlarged(self, scores, height, width):
        """Bring scores of cells (B C h w) to the size of the image they are of: (B C height width)."""
        return unblur(scores, self.settings.seed_stride, height, width)

    def walked(self, images, log_probability):
        """Return the `Walked` of images (B 3 H W), 0..255, and log p (B C H W)."""
        given = scaled(images / 255, self.settings.scaling)
        return self.diffusion.walked(given, self.seeds(log_probability), self.recompute)

    def seeds(self, log_probability):
        """Return the scores that walk, (B C ⌈H/stride⌉ ⌈W/stride⌉): the mean log p of each cell."""
        return blur(log_probability, self.settings.seed_stride)

    def train(self, mode=True):
        """Keep the statistics of normalisation in every mode."""
        super().train(mode)
        for layer in self._normalisations():
            layer.eval()
        return self

    def _normalisations(self):
        return [layer for layer in self.modules() if isinstance(layer, nn.BatchNorm2d)]

    def measure(self, batches):
        """Take the statistics of normalisation from (images, log p): the mean of what each image alone has.

        All layers are measured at once. An image of one position has no variance and is left out.
        """
        layers = self._normalisations()
        usual = [layer.momentum for layer in layers]
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # the plain mean over all that comes
            layer.train()
        with torch.no_grad():
            for images, log_probability in batches:
                seeds = self.seeds(log_probability)
                if max(images.shape[2:]) > max(self.settings.seed_stride, self.settings.output_stride):
                    self.diffusion.levels(scaled(images / 255, self.settings.scaling), seeds.shape[2:])
                    self.diffusion.importance(seeds)
        for layer, momentum in zip(layers, usual, strict=True):
            layer.momentum = momentum
            layer.eval()

    def rates(self):
        """Return the factors on the learning rates of what is learnt, dict of str to float."""
        return self.settings.fit.parameters.plain()

    def rate(self, name):
        """Return the factor on the learning rate of one of `named_parameters`, 0 if it is not learnt."""
        part = name.split(".")[1]
        return self.rates().get("mixing" if part in MIXING else part, 0)

    def numbers(self):
        """Return all that is fitted, dict of str to ndarray; `mu` and `beta` are logits."""
        kept = {name: x for name, x in self.diffusion.state_dict().items() if x.is_floating_point()}
        return {name: x.detach().cpu().float().numpy() for name, x in kept.items()}

    def values(self):
        """Return μ and β of each walk, dict of str to float."""
        both = zip(MIXING, self.diffusion.mixing(), strict=True)
        return {f"{name}_{walk}": x for name, each in both for walk, x in enumerate(each.tolist(), start=1)}

    def _load(self, state):
        own = {name: tuple(x.shape) for name, x in self.diffusion.state_dict().items() if x.is_floating_point()}
        given = {name: tuple(np.shape(x)) for name, x in state.items()}
        if own != given:
            name = next(name for name in (*own, *given) if own.get(name) != given.get(name))
            found, expected = (f"the shape {shapes[name]}" if name in shapes else "none" for shapes in (given, own))
            raise DataError(f"fitted {name}", found, f"{expected} as the settings say", "run `fit` again")
        tensors = {name: torch.from_numpy(np.array(x, np.float32)) for name, x in state.items()}
        self.diffusion.load_state_dict(tensors, strict=False)


class System(refiners.GradientSystem):
    """A diffusion that fits itself by gradient and refines one image at a time."""

    model = Diffuser

    @property
    def branch(self):
        """The similarity branch, to start from a file."""
        return Branch(self.module.diffusion.similarity)

    def prepare(self, samples):
        """Take the statistics of normalisation."""
        self.module.measure(refiners.as_batch(sample.image, unaries, self.device) for sample, unaries in samples)
