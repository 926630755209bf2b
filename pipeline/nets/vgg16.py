"""VGG-16, fully convolutional, and its parts for the networks that are made of it; torchvision's parameter names.

Source: Simonyan and Zisserman, arXiv:1409.1556 (the network, configuration D); Long et al., arXiv:1411.4038 (its fully
connected layers as convolutions).
"""

import itertools

import torch
from torch import nn
from torch.nn import functional

from pipeline.core.grids import Grid
from pipeline.nets import channels, initialise, through

# Convolutions between the pools, by their channels.
STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
POOLED = 512  # channels of the last pool, as published
INNER = 4096  # channels of the two layers that once were fully connected, as published
PIXELS = 7  # rows and columns of the first one's kernels
FIRST_NORM = "backbone.features.1.running_mean"  # a name that only networks with batch normalisation have


def build(settings, classes):
    """Build a VGG-16 whose fully connected layers are convolutions: one answer for every 32 × 32 px.

    Parameters
    ----------
    settings : frozen settings object
        ``width`` factor on all numbers of channels, 1.0 as published; ``dropout`` after each of the two layers that
        were fully connected, 0.5 as published; ``batch_norm`` whether every convolution is normalised, as in
        torchvision's vgg16_bn, which trains from scratch where the plain network hardly does.
    classes : int
        Number of classes C.

    Returns
    -------
    VGG16
        images (B 3 H W) float32 → logits (B C ⌈H/32⌉ ⌈W/32⌉) float32.
    """
    return VGG16(settings, classes)


class VGG16(nn.Module):
    """See `build`."""

    grid, recompute = Grid("cells", 32), False

    def __init__(self, settings, classes):
        super().__init__()
        arriving, inner = (channels(standard, settings.width) for standard in (POOLED, INNER))
        pools = [nn.MaxPool2d(2, stride=2, ceil_mode=True) for _ in STAGES]
        layers = features(settings.width, pools, last_dilation=1, batch_norm=settings.batch_norm)
        self.backbone = nn.ModuleDict({"features": layers})
        self.fc6 = FullyConnected(arriving, inner, PIXELS, padding=PIXELS // 2)
        self.fc7 = nn.Conv2d(inner, inner, 1)
        self.dropout = nn.Dropout(settings.dropout)
        self.classifier = nn.Sequential(nn.Conv2d(inner, classes, 1))
        initialise(self)

    def forward(self, images):
        return self.classifier(fully_connected(self, through(stages(self), images, self.recompute)))

    def adapted(self, tensors):
        """Return the tensors of a weight file as this network has them, see below."""
        return adapted(tensors, self.fc6, self.fc7, plain=FIRST_NORM not in self.state_dict())


class FullyConnected(nn.Conv2d):
    """A convolution whose kernels outweigh what they see, as it once was a layer on a whole image.

    It is then done as one product of matrices, which reads the kernels as they lie. Libraries of convolutions copy
    them into an order of their own, VGG-16's 411 MB once forward and twice backward. Half precision copies them
    anyway, and so would kernels that lie channels last: these stay with the library.
    """

    def forward(self, x):
        rows, cols = (size + 2 * self.padding[0] - self.kernel_size[0] + 1 for size in x.shape[2:])
        as_it_lies = self.weight.is_contiguous() and x.dtype == self.weight.dtype
        if not as_it_lies or len(x) * rows * cols > self.out_channels:
            return super().forward(x)
        patches = functional.unfold(x, self.kernel_size, padding=self.padding).mT
        return functional.linear(patches, self.weight.flatten(1), self.bias).mT.unflatten(2, (rows, cols))


def fully_connected(network, x):
    """Return what the two layers that once were fully connected make of the last pool, with their dropout."""
    x = network.dropout(functional.relu(network.fc6(x), inplace=True))
    return network.dropout(functional.relu(network.fc7(x), inplace=True))


def stages(network):
    """Return the five stages of a network's `features`, each with the pool at its end."""
    layers, inner = network.backbone.features, (nn.Conv2d, nn.BatchNorm2d, nn.ReLU)
    ends = [place for place, layer in enumerate(layers, start=1) if not isinstance(layer, inner)]
    return [layers[start:end] for start, end in itertools.pairwise([0, *ends])]


def features(width, pools, last_dilation, batch_norm=False):
    """Return the thirteen convolutions with their ReLUs and five pools: (B 3 H W) → (B F h w).

    Parameters
    ----------
    width : float
        Factor on the channels.
    pools : sequence of 5 nn.Module
    last_dilation : int
        Of the last three convolutions.
    batch_norm : bool
    """
    layers, arriving = [], 3
    for stage, pool, dilation in zip(STAGES, pools, (1, 1, 1, 1, last_dilation), strict=True):
        for standard in stage:
            leaving = channels(standard, width)
            layers.append(nn.Conv2d(arriving, leaving, 3, padding=dilation, dilation=dilation))
            if batch_norm:
                layers.append(nn.BatchNorm2d(leaving))
            layers.append(nn.ReLU(inplace=True))
            arriving = leaving
        layers.append(pool)
    return nn.Sequential(*layers)


def adapted(tensors, fc6, fc7, plain=True):
    """Return the tensors of a weight file with the names and shapes that networks of this kind have.

    Caffe's names, from conv1_1 to fc7, and torchvision's of the fully connected layers are turned into ours. Fully
    connected layers become convolutions; where the network's are smaller, they are decimated: positions of the kernel
    and channels are taken at even distances, the same channels of fc6 where it gives them and where fc7 takes them.

    Parameters
    ----------
    tensors : dict of str to Tensor
        A classification file's names stand below ``backbone.``; names that are not known stay as they are.
    fc6, fc7 : nn.Conv2d
        The network's.
    plain : bool
        Whether the network has no batch normalisation; the file's is then folded into its convolutions, which changes
        nothing but the rounding of what they give.

    Returns
    -------
    dict of str to Tensor

    Notes
    -----
    Source: Chen et al., arXiv:1412.7062, sections 3.1 and 3.2, "simple decimation". Kernels of 7 × 7 become 4 × 4 by
    the positions 0, 2, 4, 6 and 3 × 3 by 0, 3, 6; channels are taken as 0, 4, 8, … where 4,096 become 1,024.
    """
    named = {NAMES.get(name, name): tensor for name, tensor in tensors.items()}
    if plain and FIRST_NORM in named:
        named = _folded(named)
    takes = {
        "fc6.weight": (fc6.out_channels, None, *fc6.kernel_size),
        "fc6.bias": (fc6.out_channels,),
        "fc7.weight": (fc7.out_channels, fc7.in_channels),
        "fc7.bias": (fc7.out_channels,),
    }
    return named | {name: _decimated(_as_kernels(named[name]), taken) for name, taken in takes.items() if name in named}


def _as_kernels(tensor):
    """Return the weight of a fully connected layer as that of a convolution: fc6 saw 7 × 7 px, fc7 one."""
    if tensor.ndim != 2:
        return tensor
    side = PIXELS if tensor.shape[1] % PIXELS**2 == 0 else 1
    return tensor.unflatten(1, (-1, side, side))


def _decimated(tensor, wanted):
    """Take as many entries of each axis as wanted, at even distances; None keeps an axis, and so does one too short."""
    for axis, count in enumerate(wanted):
        size = tensor.shape[axis]
        if count is not None and count < size:
            # Positions of a kernel keep both of its ends.
            places = (
                torch.arange(count) * (size - 1) // (count - 1) if axis > 1 else torch.arange(count) * size // count
            )
            tensor = tensor.index_select(axis, places)
    return tensor


def _folded(tensors):
    """Fold the batch normalisation of features named as in torchvision's vgg16_bn, and name them as in vgg16."""
    others = {name: tensor for name, tensor in tensors.items() if not name.startswith("backbone.features.")}
    place = theirs = 0
    for stage in STAGES:
        for _ in stage:
            conv, norm = (f"backbone.features.{theirs + number}." for number in (0, 1))
            scale = tensors[f"{norm}weight"] / (tensors[f"{norm}running_var"] + nn.BatchNorm2d(1).eps).sqrt()
            others[f"backbone.features.{place}.weight"] = tensors[f"{conv}weight"] * scale.view(-1, 1, 1, 1)
            shift = tensors[f"{conv}bias"] - tensors[f"{norm}running_mean"]
            others[f"backbone.features.{place}.bias"] = tensors[f"{norm}bias"] + scale * shift
            place, theirs = place + 2, theirs + 3
        place, theirs = place + 1, theirs + 1
    return others


def _foreign_names():
    """Yield (name in a file from elsewhere, name here) of Caffe's layers and of torchvision's fully connected ones."""
    layers, place = [("classifier.0", "fc6"), ("classifier.3", "fc7"), ("fc6", "fc6"), ("fc7", "fc7")], 0
    for stage, convolutions in enumerate(STAGES, start=1):
        for number in range(1, len(convolutions) + 1):
            layers.append((f"conv{stage}_{number}", f"backbone.features.{place}"))
            place += 2
        place += 1
    for theirs, ours in layers:
        for kind in ("weight", "bias"):
            yield f"backbone.{theirs}.{kind}", f"{ours}.{kind}"


NAMES = dict(_foreign_names())
