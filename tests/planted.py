"""A problem whose answer is planted in its colours, for systems that fit themselves and refine."""

import builders
import numpy as np
import torch

from pipeline.core.grids import Grid
from pipeline.core.sample import Sample
from pipeline.core.unaries import Unaries


def planted(seed, size=(20, 24)):
    """Two colours, two classes, unaries with noise that the colours tell away."""
    rng = np.random.default_rng(seed)
    truth = (builders.smooth(rng, size, 4) > 0).astype(np.uint8)
    image = np.where(truth[..., None] == 1, [200, 60, 60], [60, 60, 200]) + rng.integers(-8, 9, (*size, 3))
    scores = np.stack([1.0 - truth, truth]) * 1.5 + 1.5 * rng.standard_normal((2, *size))
    sample = Sample(str(seed), image.astype(np.uint8), truth)
    return sample, Unaries(torch.from_numpy(scores.astype(np.float32)), "logits", Grid("cells", 1))


def wrong(system, sample, unaries):
    """Return the share of pixels a system gets wrong."""
    return float((system.refine(sample.image, unaries) != sample.truth).mean())
