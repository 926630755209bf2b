"""A dilated ResNet with the head of a fully convolutional network; torchvision's parameter names.

Classification files of torchvision fit the backbone, files of its ``fcn_resnet50`` and ``fcn_resnet101`` the
whole network. Sources: He et al., arXiv:1512.03385 (ResNet); Shelhamer et al., arXiv:1605.06211 (FCN).
"""

from itertools import accumulate, chain

from torch import nn
from torch.nn import functional

from pipeline.core.errors import SettingsError
from pipeline.core.grids import Grid
from pipeline.nets import channels, dilate, fcn_head, in_parts, initialise, through

STAGES = ("layer1", "layer2", "layer3", "layer4")
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def build(settings, classes):
    """Build a ResNet FCN.

    Parameters
    ----------
    settings : frozen settings object
        ``depth`` 18, 34, 50 or 101; ``width`` factor on all numbers of channels, 1.0 as published;
        ``output_stride`` 8, 16 or 32 px; ``dropout`` share of the head's channels; ``stride_in_1x1`` whether
        bottlenecks stride in their first convolution (Caffe's weights, the paper) or in the 3×3
        (torchvision's weights). The shapes are the same, so a wrong choice loads without complaint.
        Depths 18 and 34 have no bottlenecks and ignore it.
    classes : int
        Number of classes C.

    Returns
    -------
    ResNetFCN
        images (B 3 H W) float32 → logits (B C ⌈H/stride⌉ ⌈W/stride⌉) float32.

    Raises
    ------
    SettingsError
        If `depth` or `output_stride` is none of those named.
    """
    return ResNetFCN(settings, classes)


class ResNetFCN(nn.Module):
    """ResNet backbone and FCN head; see `build`."""

    recompute = False

    def __init__(self, settings, classes):
        super().__init__()
        self.grid = Grid("cells", settings.output_stride)
        self.backbone = ResNet(settings)
        self.classifier = fcn_head(self.backbone.features, classes, settings.dropout)
        initialise(self)

    def forward(self, images):
        return self.classifier(self.backbone(images, self.recompute))


class ResNet(nn.Module):
    """The four stages of a ResNet without its classifier, dilated to the output stride asked for.

    ``widths`` are the numbers of channels that its stages return, ``features`` that of the last.
    """

    def __init__(self, settings):
        super().__init__()
        if settings.depth not in BLOCKS:
            raise SettingsError("depth", str(settings.depth), "18, 34, 50 or 101", "choose one of these")
        self.features = channels(64, settings.width)
        self.conv1 = nn.Conv2d(3, self.features, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(self.features)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        # The first two strides are those of conv1 and maxpool; no output stride asked for touches them.
        layer1, layer2, layer3, layer4 = dilate((2, 2, 1, 2, 2, 2), settings.output_stride)[2:]
        self.layer1 = self._stage(0, 64, *layer1, settings)
        self.layer2 = self._stage(1, 128, *layer2, settings)
        self.layer3 = self._stage(2, 256, *layer3, settings)
        self.layer4 = self._stage(3, 512, *layer4, settings)
        self.widths = [stage[-1].features for stage in self._stages()]

    def _stages(self):
        return [getattr(self, name) for name in STAGES if hasattr(self, name)]

    def _stage(self, index, standard, stride, before, after, settings):
        inner, blocks = channels(standard, settings.width), []
        for _ in range(BLOCKS[settings.depth][index]):
            if settings.depth < 50:
                block = BasicBlock(self.features, inner, stride, before, after)
            else:
                block = Bottleneck(self.features, inner, stride, before, after, settings.stride_in_1x1)
            blocks.append(block)
            self.features, stride, before = block.features, 1, after
        return nn.Sequential(*blocks)

    def forward(self, images, recompute=False):
        """Return the features (B F ⌈H/stride⌉ ⌈W/stride⌉) of images (B 3 H W)."""
        return through((self._stem, *chain(*self._stages())), images, recompute)

    def levels(self, images, recompute=False):
        """Return what each stage makes of images (B 3 H W), the last of them the features."""
        ends = set(accumulate(map(len, self._stages())))
        parts = in_parts((self._stem, *chain(*self._stages())), images, recompute)
        return [x for number, x in enumerate(parts) if number in ends]

    def cut(self, stages):
        """Leave out what comes after so many stages; `levels` then returns fewer."""
        for name in STAGES[stages:]:
            delattr(self, name)
        self.widths = self.widths[:stages]
        self.features = self.widths[-1]

    def _stem(self, images):
        return self.maxpool(functional.relu(self.bn1(self.conv1(images)), inplace=True))


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut; only the second comes after the stride."""

    def __init__(self, arriving, inner, stride, before, after):
        super().__init__()
        self.features = inner
        self.conv1, self.bn1 = _conv3x3(arriving, inner, stride, before), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = _conv3x3(inner, inner, 1, after), nn.BatchNorm2d(inner)
        self.downsample = _shortcut(arriving, inner, stride)

    def forward(self, x):
        y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        return functional.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


class Bottleneck(nn.Module):
    """1×1 down, 3×3, 1×1 up to four times `inner`, beside a shortcut."""

    def __init__(self, arriving, inner, stride, before, after, stride_in_1x1):
        super().__init__()
        self.features = 4 * inner
        # Where the 1×1 strides, the 3×3 comes after the stride and is dilated already.
        first, second, dilation = (stride, 1, after) if stride_in_1x1 else (1, stride, before)
        self.conv1, self.bn1 = nn.Conv2d(arriving, inner, 1, stride=first, bias=False), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = _conv3x3(inner, inner, second, dilation), nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = nn.Conv2d(inner, self.features, 1, bias=False), nn.BatchNorm2d(self.features)
        self.downsample = _shortcut(arriving, self.features, stride)

    def forward(self, x):
        y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        y = functional.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return functional.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


def _conv3x3(arriving, leaving, stride, dilation):
    return nn.Conv2d(arriving, leaving, 3, stride=stride, padding=dilation, dilation=dilation, bias=False)


def _shortcut(arriving, leaving, stride):
    """Project the shortcut of a stage's first block; None where the block changes no shape.

    A stage whose stride was turned into dilation still changes its channels, so torchvision's names stay.
    """
    if stride == 1 and arriving == leaving:
        return None
    return nn.Sequential(nn.Conv2d(arriving, leaving, 1, stride=stride, bias=False), nn.BatchNorm2d(leaving))
