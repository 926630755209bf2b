"""Systems whose numbers are searched for on labelled images, by the mean IoU of what they label."""

from itertools import groupby

import numpy as np
import torch

from pipeline.algorithms import coarse_to_fine
from pipeline.metrics.overlap import confusion, marginals

PAPERS_IMAGES = 100  # of the validation set, which section 5 of arXiv:1412.7062 searches on


class SearchedSystem:
    """What such a system does to fit itself; keeps `fit` and `share` of the protocol of `pipeline.systems`.

    A subclass has ``settings``, with `search`, and ``device``, and gives `searched`, three names, and `counting`, a
    `Counting`. Points are tuples of numbers in the order of `searched`; those that agree in all but the last number are
    counted together.
    """

    searched, counting = (), None

    def fit(self, samples, seed):
        """Search; yields one dict for every point judged: step, round, images, miou in percent, and the point."""
        samples, names = self._images(samples, seed)
        axes = {name: self.settings.search[name] for name in self.searched}
        known = []

        def judge(points, number):
            def count(alive, part):
                return summed(alive, self._each(samples, tasks(names[part], alive)))

            return coarse_to_fine.judge(points, number, count, len(names), *self._first(len(names)))

        chosen = self.settings.search
        for judged in coarse_to_fine.search(axes, chosen.halvings, chosen.rounds, judge):
            for one in judged:
                known.append(one)
                yield told(self.searched, len(known), one)
        self.take(coarse_to_fine.best(known).point)

    def take(self, point):
        """Go on with the numbers of a point."""
        for name, value in zip(self.searched, point, strict=True):
            self.module.set(name, value)

    def share(self, samples, seed, part, parts):
        """Do one of several parts of the counting that `fit` begins with; `samples` keeps it. Yields as `each`."""
        samples, names = self._images(samples, seed)
        points = coarse_to_fine.grid({name: self.settings.search[name] for name in self.searched})
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

    def _each(self, samples, tasks):
        plain = self.settings.plain()
        fixed = {key: value for key, value in plain.items() if key not in (*self.searched, "search", "preset")}
        return samples.each(self.counting(self.settings, self.device), fixed, tasks)


class Counting:
    """How well points label an image; goes to other processes. A subclass gives ``__call__(sample, unaries, points)``.

    That returns the `margins` of the labels under points which agree in all but the last number.

    Parameters
    ----------
    settings : Settings
    device : torch.device
    """

    def __init__(self, settings, device):
        self.settings, self.device = settings, device

    def __setstate__(self, state):
        self.__dict__ = state
        if self.device.type == "cuda":
            # In another process, where kernels would go to the first GPU.
            torch.cuda.set_device(self.device)


def told(searched, step, one):
    """Return what the curve of a fit says of one Judged, its numbers being those of the names in `searched`."""
    found = {"step": step, "round": one.round, "images": one.images, "miou": 100 * one.miou}
    return found | dict(zip(searched, one.point, strict=True))


def tasks(names, points):
    """Return (image, points that agree in all but the last number) for every image and all points."""
    groups = [tuple(group) for _, group in groupby(points, key=lambda point: point[:-1])]
    return [(name, group) for name in names for group in groups]


def margins(truth, labels, classes):
    """Return hits, pixels of the truth and pixels labelled by class: (n, 3, C) int64, for n labellings (H, W)."""
    return np.stack([marginals(confusion(truth, one, classes)) for one in labels])


def summed(points, done):
    """Sum over images what was counted, `done` being (task, margins of its points): (points, 3, C), in their order."""
    totals = dict.fromkeys(points, 0)
    for (_, group), counts in done:
        for point, found in zip(group, counts, strict=True):
            totals[point] = totals[point] + found
    return np.stack([totals[point] for point in points])
