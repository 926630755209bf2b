"""Networks that give logits, one file each; a network's settings name the file as ``architecture``.

What every network keeps, so that `train` and `cache` need not know which one they hold:

- its file has ``build(settings, classes)``, which returns the network, freshly initialised from torch's
  global generator: whoever builds seeds it. `settings` is the network's frozen settings object;
- it takes images (B 3 H W), float32, scaled as its weights want them, of any H and W from 1 on;
- it returns logits (B C ⌈H/stride⌉ ⌈W/stride⌉), float32, or more where its points begin before the image. Upsampling
  is left to the caller;
- ``network.grid``, a `pipeline.core.grids.Grid`, has that stride, in pixels, says where the entries stand in the image,
  and so how they are enlarged;
- parameters below ``backbone.`` are named as in torchvision, so that users' weight files load; what is
  trained anew for each set of classes stands below ``classifier.``;
- where a weight file's tensors need more than a prefix, ``network.adapted(tensors)`` returns them as the network has
  them. Without it names and shapes must agree;
- ``network.recompute``, false when it is built, may be set true: its parts then keep only what enters them for the
  backward pass and work the rest out again there (`in_parts`);
- ``network.facts()``, if it is there, returns what else a table of networks tells of it, by heading.

Below `build` stand the few pieces that several networks share.
"""

import importlib
import math
import pkgutil
from collections import deque

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from pipeline.core.errors import SettingsError
from pipeline.core.settings import nearest

COUNTED_AT = 505  # px, both sides: where DifNet's Table 4 has its times
MULTIPLY_ADDS = f"10⁹ multiply-adds at {COUNTED_AT} × {COUNTED_AT} px"
CPU_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def build(settings, classes):
    """Build the network that `settings` describe.

    Parameters
    ----------
    settings : frozen settings object
        ``settings.architecture`` names a file of this folder; the other keys are that file's.
    classes : int
        Number of classes C, void not counted.

    Returns
    -------
    nn.Module
        As described at the top of this file, in training mode, on the CPU.

    Raises
    ------
    SettingsError
        If no architecture has that name, or the architecture refuses one of its settings.
    """
    name = settings.architecture
    known = sorted(module.name for module in pkgutil.iter_modules(__path__))
    if name not in known:
        raise SettingsError("architecture", f"'{name}'", "a known architecture", nearest(name, known))
    return importlib.import_module(f"{__name__}.{name}").build(settings, classes)


def facts(settings, classes):
    """Return what a table tells of a network, by heading: parameters, multiply-adds, stride, and what it adds itself.

    Parameters
    ----------
    settings, classes
        As for `build`; nothing is allocated.

    Returns
    -------
    dict of str to (int, float or str)
        Multiply-adds are those of convolutions and products of matrices. A network adds what its own ``facts()``
        returns, if it has that.
    """
    # Fake tensors have shapes but no numbers; those on the "meta" device would not take autocast.
    with FakeTensorMode(), FlopCounterMode(display=False, custom_mapping={CPU_ATTENTION: _attention}) as counter:
        network = build(settings, classes).eval()
        with torch.no_grad():
            network(torch.zeros(1, 3, COUNTED_AT, COUNTED_AT))
    told = {"architecture": settings.architecture, "parameters": sum(each.numel() for each in network.parameters())}
    told[MULTIPLY_ADDS] = round(counter.get_total_flops() / 2e9, 1)
    return told | {"stride, px": network.grid.stride} | (network.facts() if hasattr(network, "facts") else {})


def _attention(queries, keys, values, *arguments, out_shape=None, **options):
    """Return the operations of fused attention on the CPU, which torch does not count: shapes (B, heads, N, K)."""
    *batch, length, width = queries
    return 2 * math.prod(batch) * length * keys[-2] * (width + values[-1])


def in_parts(parts, x, recompute):
    """Yield what each of several modules makes of what the one before made.

    Parameters
    ----------
    parts : iterable of callable
    x : Tensor
        What enters the first.
    recompute : bool
        Whether the backward pass works each part out again from what entered it, instead of keeping what is inside:
        much less memory, and the forward pass once more.
    """
    for part in parts:
        x = checkpoint(part, x, use_reentrant=False) if recompute else part(x)
        yield x


def through(parts, x, recompute):
    """Return what comes out of the last of `in_parts`."""
    return deque(in_parts(parts, x, recompute), maxlen=1).pop()


def channels(standard, width):
    """Scale a number of channels by `width`, to the nearest multiple of 8 (GPUs like it) and at least 8."""
    return max(8, 8 * round(standard * width / 8))


def dilate(strides, output_stride):
    """Turn the strides that would exceed `output_stride` into dilation ("à trous").

    Where a stride falls away, what follows keeps its reach by dilation; the layer that bore the stride still
    has the dilation from before it. Every entry of the strided network is then found, unchanged, in the
    dilated one.

    Parameters
    ----------
    strides : sequence of int
        Stride of each layer of the classification network, from the image on.
    output_stride : {8, 16, 32}
        Pixels between neighbours in the output.

    Returns
    -------
    list of (stride, before, after)
        For each layer its stride, the dilation before its stride would have acted, and the one after.

    Raises
    ------
    SettingsError
        If `output_stride` is not 8, 16 or 32.
    """
    if output_stride not in (8, 16, 32):
        raise SettingsError("output_stride", str(output_stride), "8, 16 or 32", "choose one of these")
    plan, reached, before = [], 1, 1
    for stride in strides:
        after = before
        if reached * stride > output_stride:
            stride, after = 1, before * stride
        plan.append((stride, before, after))
        reached, before = reached * stride, after
    return plan


def fcn_head(features, classes, dropout):
    """Make the head of torchvision's FCN, (B F H W) → (B C H W), with dropout of whole channels.

    Parameters
    ----------
    features, classes : int
        Channels in and out.
    dropout : float
        Share of channels dropped while training; Teichmann and Cipolla, arXiv:1805.04777, take 0.5.
    """
    inner = features // 4
    return nn.Sequential(
        nn.Conv2d(features, inner, 3, padding=1, bias=False),
        nn.BatchNorm2d(inner),
        nn.ReLU(inplace=True),
        nn.Dropout2d(dropout),
        nn.Conv2d(inner, classes, 1),
    )


def initialise(network, last=-1):
    """Draw fresh weights: Kaiming normal by fan-out (He et al., arXiv:1502.01852), the last layer N(0, 0.01).

    The small last layer, ``network.classifier[last]``, starts all classes about even; with None no layer is it. Batch
    norm starts as the identity, which is how torch makes it.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    if last is not None:
        nn.init.normal_(network.classifier[last].weight, std=0.01)
