"""FCN-32s, FCN-16s and FCN-8s: VGG-16, fully convolutional, whose coarse scores are joined by those of earlier pools.

Sources: Long et al., arXiv:1411.4038, sections 3 and 4; pads, crops and names of layers as in the authors' published
network definitions. FCN-8s is the unary network of CRF-RNN, Zheng et al., arXiv:1502.03240, section 7, whose inner
deconvolutions are learned.
"""

import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from pipeline.core.errors import SettingsError
from pipeline.core.grids import Grid
from pipeline.core.settings import nearest
from pipeline.nets import channels, in_parts, initialise
from pipeline.nets.vgg16 import (
    INNER,
    PIXELS,
    POOLED,
    STAGES,
    FullyConnected,
    adapted,
    features,
    fully_connected,
    stages,
)


class Skip(NamedTuple):
    """A pool whose scores are added, and the deconvolution that brings the coarser scores to its size."""

    pool: str
    stage: int  # of VGG-16, which ends in it, from 0
    channels: int  # as published
    deconvolution: str
    bias: bool  # whether it has one where it is learned
    crop: int  # rows and columns cut off the pool before the coarser scores begin, with padding


SKIPS = (
    Skip("pool4", 3, STAGES[3][-1], "upscore2", True, 5),
    Skip("pool3", 2, STAGES[2][-1], "upscore_pool4", False, 9),
)

# Number of skips; and with padding, where the first entry stands, px, and how many before it no pixel needs. After
# conv1_1 and five pools entry n stands at 32 n + 15.5 − 99, fc6 sees 7 of them: at 32 k + 12.5. A deconvolution puts
# 1.5 entries before the first: 16 k − 11.5, then 8 k − 23.5.
VARIANTS = {"32s": (0, 12.5, 0), "16s": (1, -11.5, 0), "8s": (2, -7.5, 2)}

# What names from elsewhere, and those of `vgg16`, begin with, and what ours do. CRF layers are no part of the backbone.
BEGINNINGS = {
    "backbone.score_": "classifier.score_",
    "backbone.upscore": "upsampling.upscore",
    "backbone.crfrnn.": "crfrnn.",
    "classifier.0.": "classifier.score_fr.",
}


def build(settings, classes):
    """Build an FCN.

    Parameters
    ----------
    settings : frozen settings object
        ``variant`` "32s", "16s" or "8s", the stride of the logits; ``width`` factor on all numbers of channels, 1.0 as
        published; ``dropout`` after fc6 and fc7, 0.5 as published; ``padding`` around the image at conv1_1, 100 px as
        published, or 0: fc6 then pads itself, which is far cheaper on small images; ``upsampling`` "fixed", bilinear,
        or "learned", a deconvolution that starts bilinear and mixes classes, as in CRF-RNN.
    classes : int
        Number of classes C.

    Returns
    -------
    FCN
        images (B 3 H W) float32 → logits (B C h w) float32. Without padding h × w is ⌈H/stride⌉ × ⌈W/stride⌉, with it
        as many as stand from the last entry before the first pixel to the first one behind the last pixel.

    Raises
    ------
    SettingsError
        If there is no such variant.

    Notes
    -----
    The published networks end in a fixed deconvolution and a crop to the image; enlarging by ``grid.resize`` is the
    same. One thing differs: FCN-32s has no entry before pixel 12.5 nor, for 13 of 32 sizes, behind the last pixels, at
    most 12.5 px of them. There the deconvolution lets the scores of all classes fade towards 0 by one factor, while
    ours keep those of the outermost entry: other probabilities, equal labels.
    """
    if settings.variant not in VARIANTS:
        raise SettingsError("variant", f"'{settings.variant}'", "a known variant", nearest(settings.variant, VARIANTS))
    return FCN(settings, classes)


class FCN(nn.Module):
    """See `build`."""

    recompute = False

    def __init__(self, settings, classes):
        super().__init__()
        self.variant, self.padding = settings.variant, settings.padding
        count, origin, self.before = VARIANTS[settings.variant]
        self.skips, stride = SKIPS[:count], 32 >> count
        self.grid = Grid("points", stride, origin) if self.padding else Grid("cells", stride)
        arriving, inner = (channels(standard, settings.width) for standard in (POOLED, INNER))
        pools = [nn.MaxPool2d(2, stride=2, ceil_mode=True) for _ in STAGES]
        self.backbone = nn.ModuleDict({"features": features(settings.width, pools, last_dilation=1)})
        if self.padding:
            self.backbone.features[0].padding = (self.padding, self.padding)
        self.fc6 = FullyConnected(arriving, inner, PIXELS, padding=0 if self.padding else PIXELS // 2)
        self.fc7 = nn.Conv2d(inner, inner, 1)
        self.dropout = nn.Dropout(settings.dropout)
        self.classifier = nn.ModuleDict({"score_fr": nn.Conv2d(inner, classes, 1)})
        self.upsampling = nn.ModuleDict()
        for skip in self.skips:
            self.classifier[f"score_{skip.pool}"] = nn.Conv2d(channels(skip.channels, settings.width), classes, 1)
            learned = settings.upsampling == "learned"
            self.upsampling[skip.deconvolution] = Upsampling(classes, learned, skip.bias, beyond=not self.padding)
        initialise(self, last="score_fr")
        for skip in self.skips:
            # A network that starts from a coarser one then begins with its answers (section 4.2).
            nn.init.zeros_(self.classifier[f"score_{skip.pool}"].weight)

    def forward(self, images):
        pooled = list(in_parts(stages(self), images, self.recompute))
        scores = self.classifier.score_fr(fully_connected(self, pooled[-1]))
        for skip in self.skips:
            scores = self.upsampling[skip.deconvolution](scores)
            crop = skip.crop if self.padding else 0
            finer = pooled[skip.stage][..., crop:, crop:]
            # With padding the pool reaches farther; without, the scores do where a pool's last entry saw half as much.
            rows, cols = map(min, scores.shape[-2:], finer.shape[-2:])
            finer = self.classifier[f"score_{skip.pool}"](finer[..., :rows, :cols])
            scores = scores[..., :rows, :cols] + finer
        return self._needed(scores, images.shape[-2:]) if self.padding else scores

    def facts(self):
        """Return what tells the networks of this file apart."""
        return {"variant": self.variant, "padding, px": self.padding}

    def adapted(self, tensors):
        """Return the tensors of a weight file as this network has them, see `vgg16.adapted`.

        Known besides are the layers of Caffe's FCN and of public ports of CRF-RNN under their names, and the classifier
        of our `vgg16`, which is one for every pixel like score_fr.
        """
        return adapted({_own_name(name): tensor for name, tensor in tensors.items()}, self.fc6, self.fc7)

    def _needed(self, scores, size):
        """Return the scores from the last entry before the first pixel to the first one behind the last pixel."""
        ends = (self.before + math.ceil((pixels - 1 - self.grid.origin) / self.grid.stride) + 1 for pixels in size)
        rows, cols = (slice(self.before, end) for end in ends)
        return scores[..., rows, cols]


class Upsampling(nn.Module):
    """Twice the rows and columns, by a deconvolution of kernel 4 and stride 2 that is bilinear, or starts so.

    Parameters
    ----------
    classes : int
    learned : bool
        Whether it is a parameter (C C 4 4) that mixes classes; if not, every class is enlarged by itself and there is
        nothing to learn.
    bias : bool
        Whether a learned one has a bias.
    beyond : bool
        What is beyond the scores (B C h w): the outermost ones go on and (B C 2h 2w) come back, on the same image;
        or zeros, and (B C 2h+2 2w+2) come back, the outermost fading, as published.
    """

    def __init__(self, classes, learned, bias, beyond):
        super().__init__()
        ramp = torch.tensor([0.25, 0.75, 0.75, 0.25])
        kernel = torch.outer(ramp, ramp)
        self.beyond, self.groups, self.bias = beyond, 1 if learned else classes, None
        if learned:
            self.weight = nn.Parameter(torch.eye(classes).view(classes, classes, 1, 1) * kernel)
            if bias:
                self.bias = nn.Parameter(torch.zeros(classes))
        else:
            self.register_buffer("weight", kernel.repeat(classes, 1, 1, 1), persistent=False)

    def forward(self, scores):
        cut = 0
        if self.beyond:
            scores, cut = functional.pad(scores, (1, 1, 1, 1), mode="replicate"), 3
        return functional.conv_transpose2d(scores, self.weight, self.bias, stride=2, padding=cut, groups=self.groups)


def _own_name(name):
    for theirs, ours in BEGINNINGS.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name
