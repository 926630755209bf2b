"""A dilated MobileNetV2 with the head of a fully convolutional network; torchvision's parameter names.

The head stands on the last bottleneck (``features.17``, 320 channels). The 1×1 convolution to 1280 channels
that follows it in the classifier, ``features.18``, is left out: section 6.3 of the paper finds segmentation
about as good without it, at a fraction of the cost. In a classification file its tensors are unexpected.

Source: Sandler et al., arXiv:1801.04381, table 2.
"""

from torch import nn

from pipeline.core.grids import Grid
from pipeline.nets import channels, dilate, fcn_head, initialise, through

# Expansion factor, channels, blocks, stride of the first block: the paper's t, c, n, s.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def build(settings, classes):
    """Build a MobileNetV2 FCN.

    Parameters
    ----------
    settings : frozen settings object
        ``width`` factor on all numbers of channels, 1.0 as published; ``output_stride`` 8, 16 or 32 px;
        ``dropout`` share of the head's channels.
    classes : int
        Number of classes C.

    Returns
    -------
    MobileNetV2FCN
        images (B 3 H W) float32 → logits (B C ⌈H/stride⌉ ⌈W/stride⌉) float32.

    Raises
    ------
    SettingsError
        If `output_stride` is none of those named.
    """
    return MobileNetV2FCN(settings, classes)


class MobileNetV2FCN(nn.Module):
    """MobileNetV2 backbone and FCN head; see `build`."""

    recompute = False

    def __init__(self, settings, classes):
        super().__init__()
        self.grid = Grid("cells", settings.output_stride)
        self.backbone = MobileNetV2(settings)
        self.classifier = fcn_head(channels(STAGES[-1][1], settings.width), classes, settings.dropout)
        initialise(self)

    def forward(self, images):
        return self.classifier(self.backbone(images, self.recompute))


class MobileNetV2(nn.Module):
    """``features.0`` to ``features.17`` of a MobileNetV2, dilated to the output stride asked for."""

    def __init__(self, settings):
        super().__init__()
        blocks = [
            (factor, channels(standard, settings.width), stride if index == 0 else 1)
            for factor, standard, count, stride in STAGES
            for index in range(count)
        ]
        strides = [2] + [stride for _, _, stride in blocks]
        (stride, _, _), *plan = dilate(strides, settings.output_stride)
        arriving = channels(32, settings.width)
        layers = [_convolve(3, arriving, 3, stride=stride)]
        for (factor, leaving, _), (stride, dilation, _) in zip(blocks, plan, strict=True):
            layers.append(InvertedResidual(arriving, leaving, factor, stride, dilation))
            arriving = leaving
        self.features = nn.Sequential(*layers)

    def forward(self, images, recompute=False):
        """Return the features (B F ⌈H/stride⌉ ⌈W/stride⌉) of images (B 3 H W)."""
        return through(self.features, images, recompute)


class InvertedResidual(nn.Module):
    """Widen by `factor`, filter each channel by itself, narrow; added to the input where the shape stays."""

    def __init__(self, arriving, leaving, factor, stride, dilation):
        super().__init__()
        inner = arriving * factor
        widen = [] if factor == 1 else [_convolve(arriving, inner, 1)]
        self.conv = nn.Sequential(
            *widen,
            _convolve(inner, inner, 3, stride=stride, dilation=dilation, groups=inner),
            nn.Conv2d(inner, leaving, 1, bias=False),
            nn.BatchNorm2d(leaving),
        )
        self.residual = stride == 1 and arriving == leaving

    def forward(self, x):
        return x + self.conv(x) if self.residual else self.conv(x)


def _convolve(arriving, leaving, side, stride=1, dilation=1, groups=1):
    padding = dilation * (side // 2)
    return nn.Sequential(
        nn.Conv2d(arriving, leaving, side, stride, padding, dilation, groups, bias=False),
        nn.BatchNorm2d(leaving),
        nn.ReLU6(inplace=True),
    )
