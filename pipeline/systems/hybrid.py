"""The CRF of the hybrid CNN-CRF: four neighbours, Potts costs by contrast, DualMM (Colovic et al., CVWW 2017).

`potts_grid` has the energy, `dual_mm` its minimisation, `structured_svm` the loss that networks are trained with
through it; docs/systems/hybrid.md has the paper's letters.
"""

import torch

from pipeline.algorithms import dual_mm, refiners, searched
from pipeline.algorithms.potts_grid import PottsGrid
from pipeline.kernels.potts_chains import Edges

SEARCHED = ("alpha", "beta", "lambda")


class Counting(searched.Counting):
    """How well points of equal α and β label an image."""

    def __call__(self, sample, unaries, points):
        """Return the margins of an image's labels under each point: (points, 3, C) int64."""
        chosen, labels = self.settings, []
        with torch.inference_mode():
            images, log_probability = refiners.as_batch(sample.image, unaries, self.device)
            classes = log_probability.shape[1]
            module = PottsGrid(chosen, classes, dict(zip(SEARCHED, points[0], strict=True)))
            module.set("lambda", 1.0)
            unary, unit = module.unary(log_probability), module.to(self.device).edges(images)
            for *_, strength in points:
                edges = Edges(*(strength * weight for weight in unit))
                found = dual_mm.solve(unary, edges, chosen.iterations, chosen.sweeps)
                labels.append(found.labels[0].cpu().numpy())
        return searched.margins(sample.truth, labels, classes)


class System(searched.SearchedSystem, refiners.GradientSystem):
    """A Potts grid fitted by a search, or by the structured SVM; it refines one image at a time."""

    model, searched, counting = PottsGrid, SEARCHED, Counting

    def fit(self, samples, seed):
        """Search, or lower the structured SVM's loss; yields as either does."""
        way = searched.SearchedSystem if "search" in self.settings else refiners.GradientSystem
        return way.fit(self, samples, seed)

    def labels(self, images, log_probability):
        """Return labels (H, W) uint8 of one image as tensors."""
        return self._solved(images, log_probability).labels[0].cpu().numpy()

    def certified(self, image, unaries):
        """Return labels (H, W) uint8 and what is certain of them: their energy, and a bound of all energies."""
        found = self._solved(*refiners.as_batch(image, unaries, self.device))
        return found.labels[0].cpu().numpy(), {"energy": float(found.energy), "bound": float(found.bound)}

    def _solved(self, images, log_probability):
        with torch.inference_mode():
            return self.module.solve(images, log_probability)
