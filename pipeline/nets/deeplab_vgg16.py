"""DeepLab: VGG-16 by the hole algorithm, with logits every 8 px; alone, or with multi-scale features (MSc).

Source: Chen et al., arXiv:1412.7062, sections 3 and 4.3, Tables 1 and 2; the pools as in the authors' published network
definitions.
"""

import torch
from torch import nn
from torch.nn import functional

from pipeline.core.errors import SettingsError
from pipeline.core.grids import Grid
from pipeline.core.settings import nearest
from pipeline.nets import channels, in_parts, initialise
from pipeline.nets.vgg16 import INNER, POOLED, STAGES, adapted, features, fully_connected, stages

# Table 2: kernel and dilation ("input stride") of fc6, and by how much its channels and fc7's are fewer.
VARIANTS = {"base": (4, 4, 1), "4x4": (4, 8, 1), "7x7": (7, 4, 1), "largefov": (3, 12, 4)}
BRANCH = 128  # channels of each multi-scale branch, as published


def build(settings, classes):
    """Build one of the four networks of Table 2.

    Parameters
    ----------
    settings : frozen settings object
        ``variant`` "base", "4x4", "7x7" or "largefov"; ``multiscale`` whether features of the image and the first four
        pools stand beside the last ones (section 4.3); ``width`` factor on all numbers of channels, 1.0 as published;
        ``dropout`` after fc6, fc7 and every multi-scale branch, 0.5 as published.
    classes : int
        Number of classes C.

    Returns
    -------
    DeepLab
        images (B 3 H W) float32 → logits (B C ⌈H/8⌉ ⌈W/8⌉) float32.

    Raises
    ------
    SettingsError
        If there is no such variant.
    """
    if settings.variant not in VARIANTS:
        raise SettingsError("variant", f"'{settings.variant}'", "a known variant", nearest(settings.variant, VARIANTS))
    return DeepLab(settings, classes)


class DeepLab(nn.Module):
    """See `build`."""

    grid, recompute = Grid("points", 8), False

    def __init__(self, settings, classes):
        super().__init__()
        self.variant = settings.variant
        kernel, dilation, fewer = VARIANTS[settings.variant]
        self.large = settings.variant == "largefov"
        arriving, inner = channels(POOLED, settings.width), channels(INNER // fewer, settings.width)
        pools = _odd_pools() if self.large else _even_pools()
        self.backbone = nn.ModuleDict({"features": features(settings.width, pools, last_dilation=2)})
        self.fc6 = nn.Conv2d(arriving, inner, kernel, dilation=dilation, padding=(kernel - 1) * dilation // 2)
        self.fc7 = nn.Conv2d(inner, inner, 1)
        self.dropout = nn.Dropout(settings.dropout)
        self.multiscale = nn.ModuleList()
        if settings.multiscale:
            arriving = [3] + [channels(stage[-1], settings.width) for stage in STAGES[:4]]
            branch = channels(BRANCH, settings.width)
            strides = (8, 4, 2, 1, 1)  # from the image and each pool to 8 px
            for entering, stride in zip(arriving, strides, strict=True):
                self.multiscale.append(_branch(entering, branch, stride, settings.dropout))
            inner += len(strides) * branch
        self.classifier = nn.Sequential(nn.Conv2d(inner, classes, 1))
        initialise(self)

    def forward(self, images):
        rows, cols = (-(-size // self.grid.stride) for size in images.shape[-2:])
        if not self.large:
            # Even pools reach both ends of 8 n + 2 pixels.
            beyond = [-(size - 2) % self.grid.stride for size in images.shape[-2:]]
            images = functional.pad(images, (0, beyond[1], 0, beyond[0]))
        *pooled, x = in_parts(stages(self), images, self.recompute)
        seen = [images, *pooled]
        x = fully_connected(self, x)[..., :rows, :cols]
        if self.multiscale:
            x = torch.cat([x, *(b(y)[..., :rows, :cols] for b, y in zip(self.multiscale, seen, strict=True))], dim=1)
        return self.classifier(x)

    def facts(self):
        """Return the columns of Table 2."""
        kernel, dilation, _ = VARIANTS[self.variant]
        return {"fc6": f"{kernel} × {kernel}", "hole": dilation, "field of view, px": field_of_view(self.variant)}

    def adapted(self, tensors):
        """Return the tensors of a weight file as this network has them, see `vgg16.adapted`."""
        return adapted(tensors, self.fc6, self.fc7)


def field_of_view(variant):
    """Return what fc6 sees of the image, in px, as Table 2 counts it: an entry of VGG-16's last pool is 32 px."""
    kernel, dilation, _ = VARIANTS[variant]
    return 8 * (kernel - 1) * dilation + 32


def _even_pools():
    """2 × 2 px. The first three reach beyond the image by 1 px; after five, entry n is centred at pixel 8 n + ½."""
    halving = [nn.MaxPool2d(2, stride=2, padding=1, ceil_mode=True) for _ in range(3)]
    return [*halving, nn.MaxPool2d(2, stride=1), nn.MaxPool2d(3, stride=1, padding=1)]


def _odd_pools():
    """3 × 3 px, and a mean at the end: entry n is centred at pixel 8 n."""
    halving = [nn.MaxPool2d(3, stride=2, padding=1) for _ in range(3)]
    last = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), nn.AvgPool2d(3, stride=1, padding=1))
    return [*halving, nn.MaxPool2d(3, stride=1, padding=1), last]


def _branch(arriving, leaving, stride, dropout):
    return nn.Sequential(
        nn.Conv2d(arriving, leaving, 3, stride=stride, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(leaving, leaving, 1),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
    )
