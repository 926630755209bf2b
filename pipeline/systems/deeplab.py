"""DeepLab's CRF: FullCRF whose appearance kernel is searched for on labelled images (Chen et al., arXiv:1412.7062).

The energy is that of `fullcrf`; docs/systems/deeplab.md has the paper's letters.
"""

import torch

from pipeline.algorithms import refiners, searched
from pipeline.systems.fullcrf import FullCRF

SEARCHED = ("theta_alpha", "theta_beta", "appearance_weight")


class Counting(searched.Counting):
    """How well points of equal bandwidths label an image."""

    def __call__(self, sample, unaries, points):
        """Return the margins of an image's labels under each point: (points, 3, C) int64."""
        first = dict(zip(SEARCHED, points[0], strict=True))
        with torch.inference_mode():
            images, log_probability = refiners.as_batch(sample.image, unaries, self.device)
            classes = log_probability.shape[1]
            module = FullCRF(self.settings, classes, first).to(self.device)
            weights = torch.stack([self._weights(point, classes) for point in points])
            kernels = module.appearance(images), module.smoothness(images)
            scores = module.several(module.unary(log_probability), *kernels, weights)
            labels = scores[0].max(dim=1).indices.byte().cpu().numpy()
        return searched.margins(sample.truth, labels, classes)

    def _weights(self, point, classes):
        return FullCRF(self.settings, classes, dict(zip(SEARCHED, point, strict=True))).to(self.device).weights(classes)


class System(searched.SearchedSystem, refiners.GradientSystem):
    """A FullCRF fitted by a search and not by gradient; it refines one image at a time."""

    model, searched, counting = FullCRF, SEARCHED, Counting
