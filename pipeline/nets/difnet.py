"""DifNet: the scores of one ResNet diffused by the similarities of another (Jiang et al., NeurIPS 2018).

Without walks it is the paper's baseline, Sim-Deeplab: the seed branch alone. `Diffusion` also serves the system of the
same name, whose seeds are cached unaries. docs/systems/difnet.md has the symbols.
"""

import torch
from torch import nn

from pipeline.algorithms import diffusion
from pipeline.core.errors import SettingsError
from pipeline.core.grids import Grid
from pipeline.nets import initialise, through
from pipeline.nets.resnet_fcn import STAGES, ResNet

LEVELS = ("image", *STAGES)  # where features for walks can be taken
DILATIONS = {"aspp": (6, 12, 18, 24), "single": ()}  # of the head's 3×3 convolutions; without any it is one 1×1
IMPORTANCE = (8, 4, 1)  # channels of its convolutions


def build(settings, classes):
    """Build a DifNet.

    Parameters
    ----------
    settings : frozen settings object
        ``depth``, ``width``, ``output_stride``, ``stride_in_1x1`` of both ResNets, as for `resnet_fcn`; ``head``
        "aspp", the sum of four dilated 3×3 convolutions, or "single", one 1×1 convolution; ``walks`` the level of
        each walk, of `LEVELS`, in any order and number; [] for the seed branch alone; ``affinity`` of features,
        "product" as published or "distance"; ``positions`` px that count as much as one unit of scaled colour in the
        image's features, 0 as published for none; ``feature_channels`` K of Ψ, 64 as published; ``feature_gain``
        where the factors of Ψ's normalisation start, 1 as published.
    classes : int
        Number of classes C.

    Returns
    -------
    DifNet
        images (B 3 H W) float32 → logits (B C ⌈H/stride⌉ ⌈W/stride⌉) float32.

    Raises
    ------
    SettingsError
        If a depth, stride, head or level is none of those named.
    """
    if settings.head not in DILATIONS:
        raise SettingsError("head", f"'{settings.head}'", " or ".join(DILATIONS), "choose one of these")
    return DifNet(settings, classes)


class DifNet(nn.Module):
    """Seed branch, and if there are walks the diffusion of its scores; see `build`."""

    recompute = False

    def __init__(self, settings, classes):
        super().__init__()
        self.grid = Grid("cells", settings.output_stride)
        self.backbone = ResNet(settings)
        self.classifier = Head(self.backbone.features, classes, DILATIONS[settings.head])
        self.diffusion = Diffusion(settings, classes) if settings.walks else None
        initialise(self, None)
        self.classifier.start()

    def forward(self, images):
        scores = self.classifier(self.backbone(images, self.recompute))
        return scores if self.diffusion is None else self.diffusion(images, scores, self.recompute)

    def walked(self, images):
        """Return the `Walked` of scaled images (B 3 H W)."""
        return self.diffusion.walked(images, self.classifier(self.backbone(images)))

    def adapted(self, tensors):
        """Give both branches the tensors of a file that has but one, as classifiers' files do."""
        if self.diffusion is None or self.diffusion.similarity is None:
            return tensors
        if any(name.startswith("diffusion.similarity.") for name in tensors):
            return tensors
        branch = [name for name in self.diffusion.similarity.state_dict() if f"backbone.{name}" in tensors]
        return tensors | {f"diffusion.similarity.{name}": tensors[f"backbone.{name}"] for name in branch}


class Head(nn.ModuleList):
    """The sum of dilated 3×3 convolutions (ASPP of DeepLab v2), or one 1×1: (B F h w) → scores (B C h w)."""

    def __init__(self, features, classes, dilations):
        spread = [nn.Conv2d(features, classes, 3, padding=reach, dilation=reach) for reach in dilations]
        super().__init__(spread or [nn.Conv2d(features, classes, 1)])

    def start(self):
        """Draw small weights, N(0, 0.01), so that all classes start about even."""
        for layer in self:
            nn.init.normal_(layer.weight, std=0.01)

    def forward(self, features):
        return sum(layer(features) for layer in self)


class Diffusion(nn.Module):
    """Importance map, similarity branch and walks: images and scores → diffused scores.

    Parameters
    ----------
    settings : frozen settings object
        depth, width, output_stride, stride_in_1x1, walks, affinity, positions, feature_channels, feature_gain; see
        `build`.
    classes : int

    Attributes
    ----------
    mu, beta : Parameter of shape (T,)
        Logits of each walk's μ and β; 0, for 0.5, at first.
    """

    def __init__(self, settings, classes):
        super().__init__()
        if unknown := [level for level in settings.walks if level not in LEVELS]:
            raise SettingsError("walks", f"'{unknown[0]}'", f"of {', '.join(LEVELS)}", "walk on one of these")
        self.walks, self.affinity, self.positions = tuple(settings.walks), settings.affinity, settings.positions
        if self.positions and "image" not in self.walks:
            expected = "0 where no walk is over the image"
            raise SettingsError("positions", f"{self.positions:g}", expected, "set it to 0, or walk on the image")
        # Walks over the image alone need no branch, others as much of it as they look at.
        deepest = max(map(LEVELS.index, self.walks))
        self.similarity = ResNet(settings) if deepest else None
        widths = {"image": 5 if self.positions else 3}
        if deepest:
            self.similarity.cut(deepest)
            widths |= zip(STAGES, self.similarity.widths, strict=False)
        self.features = nn.ModuleList(Features(widths[level], settings) for level in self.walks)
        self.importance = Importance(classes)
        self.mu, self.beta = (nn.Parameter(torch.zeros(len(self.walks))) for _ in range(2))

    def forward(self, images, scores, recompute=False):
        """Return y after the last walk (B C h w), float32, for scaled images (B 3 H W) and scores (B C h w)."""
        return self.walked(images, scores, recompute).states[-1]

    def walked(self, images, scores, recompute=False):
        """Return the `Walked` of scaled images (B 3 H W) and scores (B C h w), float32."""
        levels = self.levels(images, scores.shape[2:], recompute)
        importance = self.importance(scores)
        # W is not scaled down: half precision would be off by whole units in its exponents.
        with torch.autocast(images.device.type, enabled=False):
            levels, seed, mixing = [level.float() for level in levels], (importance * scores).float(), self.mixing()
            states = list(diffusion.cascade(seed, levels, *mixing, self.affinity))
        return diffusion.Walked(scores, importance, states, levels, mixing, self.affinity)

    def levels(self, images, size, recompute=False):
        """Return ψ of each walk, list of T Tensors (B K h w), for a seed of the size (h, w)."""
        found = {"image": with_positions(images, self.positions) if self.positions else images}
        if self.similarity is not None:
            found |= zip(STAGES, self.similarity.levels(images, recompute), strict=False)
        pairs = zip(self.features, self.walks, strict=True)
        return [_resized(features, found[level], size, recompute) for features, level in pairs]

    def mixing(self):
        """Return μ and β of each walk, (T,) in [0, 1]."""
        return self.mu.sigmoid(), self.beta.sigmoid()


class Branch(nn.Module):
    """A similarity branch by itself, under the names that weight files have."""

    def __init__(self, similarity):
        super().__init__()
        self.backbone = similarity

    def adapted(self, tensors):
        """Leave out of a file's tensors the stages that were cut off, where no walk looks."""
        cut = tuple(f"backbone.{stage}." for stage in STAGES if not hasattr(self.backbone, stage))
        return {name: tensor for name, tensor in tensors.items() if not name.startswith(cut)}


def _resized(features, x, size, recompute):
    """Return ψ of one level at the seed's size; at the image's own size nothing of it need be kept."""
    return through((lambda x: diffusion.resized(features(x), size),), x, recompute)


def with_positions(images, unit):
    """Return images (B 3 H W) with row and column behind the colours: (B 5 H W), in units of so many px."""
    height, width = images.shape[2:]
    axes = (torch.arange(size, dtype=images.dtype, device=images.device) / unit for size in (height, width))
    both = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    return torch.cat([images, both.expand(len(images), -1, -1, -1)], dim=1)


class Features(nn.Sequential):
    """Ψ: a 1×1 convolution to K channels, normalised."""

    def __init__(self, arriving, settings):
        super().__init__(nn.Conv2d(arriving, settings.feature_channels, 1), nn.BatchNorm2d(settings.feature_channels))
        nn.init.constant_(self[1].weight, settings.feature_gain)


class Importance(nn.Sequential):
    """M = H(x): how much a position's scores count, from those around it: (B C h w) → (B 1 h w) in [0, 1]."""

    def __init__(self, classes):
        layers = []
        for arriving, leaving in zip((classes, *IMPORTANCE), IMPORTANCE, strict=False):
            layers += [nn.BatchNorm2d(arriving), nn.ReLU(), nn.Conv2d(arriving, leaving, 5, padding=2, bias=False)]
        super().__init__(*layers, nn.Sigmoid())
