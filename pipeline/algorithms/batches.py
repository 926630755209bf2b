"""The batches of a training: which view of which image comes when, a function of seed and step alone.

So a training that was killed goes on at any step, and one that is spread over processes sees the same views.
"""

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from pipeline.algorithms.augmentation import augment
from pipeline.core.errors import SettingsError


class Views(Dataset):
    """Random views of the images of one split; an item is asked for as (epoch, position in the epoch).

    Parameters
    ----------
    sample : callable
        Reads one Sample by name.
    names : sequence of str
    settings : Settings
        Keys `crop`, `batch`, `augmentation`.
    fill : sequence of 3 float
        Colour outside the images, 0..1.
    seed : int
    """

    def __init__(self, sample, names, settings, fill, seed):
        self.sample, self.names, self.settings, self.fill, self.seed = sample, names, settings, fill, seed
        if settings.batch > len(names):
            raise SettingsError(
                "batch", str(settings.batch), f"at most the {len(names)} images of the split", "lower it"
            )

    @property
    def steps_per_epoch(self):
        """Full batches in one pass over the images; the rest waits for the next pass's order."""
        return len(self.names) // self.settings.batch

    def __getitem__(self, key):
        epoch, position = key
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.names))
        sample = self.sample(self.names[order[position]])
        rng = np.random.default_rng([self.seed, epoch, position])
        crop = tuple(self.settings.crop)
        return augment(sample.image, sample.truth, self.settings.augmentation, crop, self.fill, rng)

    def loader(self, first, last, *, workers, rank=0, ranks=1):
        """Return the batches of steps `first` to `last` − 1 as (images (b 3 H W), truth (b H W)).

        With several processes each gets its `rank`-th share of every batch.
        """
        batch, share = self.settings.batch, self.settings.batch // ranks
        if batch % ranks:
            raise SettingsError("batch", str(batch), f"a multiple of the {ranks} processes", "change one of the two")
        keys = []
        for step in range(first, last):
            epoch, within = divmod(step, self.steps_per_epoch)
            begin = within * batch + rank * share
            keys.append([(epoch, position) for position in range(begin, begin + share)])
        return DataLoader(self, batch_sampler=keys, num_workers=workers, persistent_workers=False)


def scaled(images, scaling):
    """Scale images (B 3 H W), 0..1 RGB, as the network's weights want them: (x − mean) / std, red or blue first."""
    mean, std = (torch.tensor(scaling[key], device=images.device).view(1, 3, 1, 1) for key in ("mean", "std"))
    images = (images - mean) / std
    return images.flip(1) if scaling.channels == "bgr" else images
