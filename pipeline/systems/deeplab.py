"""DeepLab's CRF: FullCRF whose appearance kernel is searched for on labelled images (Chen et al., arXiv:1412.7062).

The energy is that of `fullcrf`; docs/systems/deeplab.md has the paper's letters.
"""

from itertools import groupby

import numpy as np
import torch

from pipeline.algorithms import coarse_to_fine, refiners
from pipeline.metrics.overlap import confusion, marginals
from pipeline.systems.fullcrf import FullCRF

# What is searched for; points are tuples in this order, so that those of equal bandwidths stand together.
SEARCHED = ("theta_alpha", "theta_beta", "appearance_weight")
PAPERS_IMAGES = 100  # of the validation set, which the paper searched on


class System(refiners.GradientSystem):
    """A FullCRF fitted by a search and not by gradient; it refines one image at a time."""

    model = FullCRF

    def fit(self, samples, seed):
        """Search; yields one dict for every point judged: step, round, images, miou in percent, and the point."""
        samples, names = self._images(samples, seed)
        axes = {name: self.settings.search[name] for name in SEARCHED}
        known = []

        def judge(points, number):
            def count(alive, part):
                return self._count(samples, names[part], alive)

            return coarse_to_fine.judge(points, number, count, len(names), *self._first(len(names)))

        chosen = self.settings.search
        for judged in coarse_to_fine.search(axes, chosen.halvings, chosen.rounds, judge):
            for one in judged:
                known.append(one)
                yield _told(len(known), one)
        for name, value in zip(SEARCHED, coarse_to_fine.best(known).point, strict=True):
            self.module.set(name, value)

    def share(self, samples, seed, part, parts):
        """Do one of several parts of the counting that `fit` begins with; `samples` keeps it. Yields as `each`."""
        samples, names = self._images(samples, seed)
        points = coarse_to_fine.grid({name: self.settings.search[name] for name in SEARCHED})
        first, _ = self._first(len(names))
        yield from self._each(samples, tasks(names[:first], points)[part - 1 :: parts])

    def _images(self, samples, seed):
        """Return the labelled images to search on, and their names in random order."""
        if self.settings.search.images == "paper":
            samples = samples.draw("val", PAPERS_IMAGES, seed)
        order = np.random.default_rng(seed).permutation(len(samples.names))
        return samples, [samples.names[place] for place in order]

    def _first(self, images):
        """Return on how many images all points are judged, and the share of the points that goes on."""
        judging = self.settings.search.judging
        return (images, 1.0) if judging.name == "all" else (min(judging.images, images), judging.keep)

    def _count(self, samples, names, points):
        """Return the margins of points, summed over images: (points, 3, C)."""
        return summed(points, self._each(samples, tasks(names, points)))

    def _each(self, samples, tasks):
        plain = self.settings.plain()
        fixed = {key: value for key, value in plain.items() if key not in (*SEARCHED, "search", "preset")}
        return samples.each(Counting(self.settings, self.device), fixed, tasks)


class Counting:
    """How well points of equal bandwidths label an image; goes to other processes.

    Parameters
    ----------
    settings : Settings
    device : torch.device
    """

    def __init__(self, settings, device):
        self.settings, self.device = settings, device

    def __call__(self, sample, unaries, points):
        """Return hits, pixels of the truth and pixels labelled under each point: (points, 3, C) int64."""
        first = dict(zip(SEARCHED, points[0], strict=True))
        with torch.inference_mode():
            images, log_probability = refiners.as_batch(sample.image, unaries, self.device)
            classes = log_probability.shape[1]
            module = FullCRF(self.settings, classes, first).to(self.device)
            weights = torch.stack([self._weights(point, classes) for point in points])
            kernels = module.appearance(images), module.smoothness(images)
            scores = module.several(module.unary(log_probability), *kernels, weights)
            labels = scores[0].max(dim=1).indices.byte().cpu().numpy()
        return np.stack([marginals(confusion(sample.truth, one, classes)) for one in labels])

    def _weights(self, point, classes):
        return FullCRF(self.settings, classes, dict(zip(SEARCHED, point, strict=True))).to(self.device).weights(classes)


def summed(points, done):
    """Sum over images what was counted, `done` being (task, margins of its points): (points, 3, C), in their order."""
    totals = dict.fromkeys(points, 0)
    for (_, group), counts in done:
        for point, margins in zip(group, counts, strict=True):
            totals[point] = totals[point] + margins
    return np.stack([totals[point] for point in points])


def tasks(names, points):
    """Return (image, points of equal bandwidths) for every image and all points."""
    groups = [tuple(group) for _, group in groupby(points, key=lambda point: point[:2])]
    return [(name, group) for name in names for group in groups]


def _told(step, one):
    found = {"step": step, "round": one.round, "images": one.images, "miou": 100 * one.miou}
    return found | dict(zip(SEARCHED, one.point, strict=True))
