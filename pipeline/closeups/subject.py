"""One network on one pack with the systems that refine it: all that a close-up may look at."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipeline import systems
from pipeline.core import device
from pipeline.figures import gallery
from pipeline.formats import fitted
from pipeline.formats.confusions import Score
from pipeline.formats.labels import Labels
from pipeline.formats.packs import Pack
from pipeline.formats.unaries import Cache
from pipeline.metrics import overlap


@dataclass(frozen=True)
class Subject:
    """A network's runs on a pack and what came of them, by system; the first is the unary."""

    pack: Pack
    runs: tuple  # of layout.Run
    scores: dict[str, Score]
    labels: dict[str, Labels]
    results: str  # the folder
    shards: int  # of unaries and of labels

    @cached_property
    def names(self):
        """The images that were scored, list of str."""
        return self.scores["unary"].names

    @cached_property
    def quality(self):
        """Mean IoU and accuracy of every image by itself, percent: dict of str to ndarray of shape (N, 2)."""
        return {name: _quality(score) for name, score in self.scores.items()}

    @cached_property
    def chief(self):
        """The first system after the unary, by which images are chosen; the unary where there is none."""
        return list(self.scores)[min(1, len(self.scores) - 1)]

    def gains(self, system):
        """Return what a system gains on each image, points of mean IoU: (N,)."""
        return self.quality[system][:, 0] - self.quality["unary"][:, 0]

    def best(self, system):
        """Return the index of the image a system gains most on."""
        return gallery.choose(self.gains(system), 1)[0][0]

    @cached_property
    def fitted(self):
        """Runs with their fitted systems, ready on the CPU: list of (Run, System)."""
        where, found = device.setup("cpu", threads=1), []
        for run in self.runs:
            given = fitted.read(run.fitted(self.results))
            found.append((run, systems.build(given.settings, self.pack.classes, where, given.state)))
        return found

    def fitted_with(self, part):
        """Return those whose module, that of a differentiable system, has a method of this name."""
        return [(run, system) for run, system in self.fitted if hasattr(getattr(system, "module", None), part)]

    def unaries(self, sample):
        """Return the `Unaries` of one image."""
        return self._cache.unaries(sample.name, sample.image)

    @cached_property
    def _cache(self):
        cache = Cache(self.runs[0].unaries(self.results, self.shards))
        cache.belongs_to(self.pack)
        return cache


def _quality(score):
    parts = [np.stack([overlap.mean_iou(p), overlap.accuracy(p)], axis=1) for p in score.parts("all")]
    return 100 * np.concatenate(parts)
