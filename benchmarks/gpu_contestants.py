"""Who is timed on a GPU: each function returns one that takes a Given and works on the device its tensors are on.

Peers are optional; each is used as its own documentation shows. One that is not there raises `Missing`.
"""

import copy
import functools
import math
import sys
from importlib.util import find_spec
from typing import NamedTuple

import contestants
import mean_field
import numpy as np
import torch
import torch.nn.functional as F
from gpu_rows import Missing

from pipeline.algorithms.noisy_truth import noisy_truth
from pipeline.algorithms.potts_grid import PottsGrid
from pipeline.systems.convcrf import ConvCRF
from pipeline.systems.fullcrf import FullCRF

NOISE = {"cell": 8, "keep_probability": 0.8, "kind": "probability", "stride": 1, "seed": 0}
BLOCK_BYTES = 1 << 30  # of the kernel's rows that a filter in blocks holds at once
WALKERS = 1024  # rows of a walk's P that are held at once
STRIDES = {"rows": 37, "cols": 61}  # px by which inputs of one photograph differ


class Given(NamedTuple):
    """What a refinement begins with, on the device."""

    images: torch.Tensor  # (B, 3, H, W) float32, 0..255
    scores: torch.Tensor  # (B, C, H, W) float32, log p


# Inputs


def on_device(source, device):
    """Return a `contestants.Input` on a device."""
    return Given(*(tensor.contiguous().to(device) for tensor in contestants.tensors(source)))


def moved(one, number):
    """Return the same with image and scores moved round by some pixels: other numbers in other memory."""
    by = number * STRIDES["rows"], number * STRIDES["cols"]
    return Given(*(tensor.roll(by, dims=(2, 3)) for tensor in one))


def batch(one, images):
    """Return a batch of so many images."""
    return Given(*map(torch.cat, zip(*(moved(one, number) for number in range(images)), strict=True)))


@functools.cache
def source(shape, folder=None):
    """Return a `contestants.Input` of a shape (H, W, C): a photograph of a folder in VOC layout, or a made one."""
    if folder is not None:
        name = "x".join(map(str, shape))
        mean_field.SIZES[name] = shape
        return mean_field.inputs(folder, name)[0]
    image, truth = made(*shape)
    probability = noisy_truth(truth, shape[2], name="made", **NOISE).clip(1e-5, 1)
    return contestants.Input(image, probability.astype(np.float32))


def made(height, width, classes):
    """Return an image (H, W, 3) and its labels (H, W), uint8: patches of colour with shades, edges and grain.

    Of whole numbers alone, so that it is the same everywhere; at 375 x 500 pixels its colours fill as many vertices of
    a lattice as a usual photograph's.
    """
    rng = np.random.default_rng(0)
    steps = max(height, width) // 6 + 1
    fields = [_smooth(rng, height, width, steps) for _ in range(classes)]
    truth = np.argmax(fields, axis=0).astype(np.uint8)
    colours = rng.integers(30, 226, size=(classes, 3))
    shades = np.stack([_smooth(rng, height, width, steps) for _ in range(3)], axis=2) // 10 - 51
    grain = rng.integers(-8, 9, size=(height, width, 3))
    return (colours[truth] + shades + grain).clip(0, 255).astype(np.uint8), truth


def _smooth(rng, height, width, step):
    """Return whole numbers (H, W) from 0 to 1023, bilinear between random ones that many pixels apart."""
    coarse = rng.integers(1024, size=(height // step + 2, width // step + 2))
    for axis, size in enumerate((height, width)):
        at, over = np.divmod(np.arange(size), step)
        over = over[:, None] if axis == 0 else over
        coarse = (coarse.take(at, axis) * (step - over) + coarse.take(at + 1, axis) * over) // step
    return coarse


# Ours


def refinement(model):
    """Scores from one of our models, without gradient."""

    def refine(given):
        with torch.inference_mode():
            return model(*given)

    return refine


def convcrf(classes, device, preset="convcrf_released", **changed):
    """Our ConvCRF, as the authors' code has it if no other preset is named, but for what is changed."""
    return ConvCRF(contestants.system(preset, **changed), classes, {}).to(device).eval()


def fullcrf(classes, device, preset, **changed):
    """Our FullCRF with one preset's settings but for what is changed."""
    return FullCRF(contestants.system(preset, **changed), classes, {}).to(device).eval()


def crfrnn(classes, device):
    """Our CRF-RNN in training."""
    return FullCRF(contestants.system("crfrnn_released"), classes, {}).to(device).train()


def step(model):
    """Forward and backward, to the unary and to all that is learnt; gives the gradient to the unary."""

    def train(given):
        model.zero_grad(set_to_none=True)
        start = given.scores.clone().requires_grad_()
        model(given.images, start).square().mean().backward()
        return start.grad

    return train


def hybrid(classes, device, preset):
    """Our Potts grid."""
    return PottsGrid(contestants.system(preset), classes, {}).to(device).eval()


def solution(model):
    """DualMM's `Solution`."""

    def solve(given):
        with torch.inference_mode():
            return model.solve(*given)

    return solve


def doubled(model):
    """Return a copy of a model in float64, which the reference backends alone can run."""
    return copy.deepcopy(model).double()


def in_double(one):
    """Return a Given in float64."""
    return Given(*(tensor.double() for tensor in one))


def exactly(model, one):
    """Return values (1, C, H, W) and features (1, F, H, W) of an exact filter's appearance kernel."""
    with torch.no_grad():
        return one.scores.softmax(dim=1).contiguous(), model.appearance(one.images).contiguous()


# Peers


def reference(checkout, shape, device, filter_size, blur):
    """The ConvCRF authors' code, from the user's own checkout; kernels are made anew in every call, as there."""
    if checkout is None:
        raise Missing("not run: no checkout of the ConvCRF authors' repository was given, see --convcrf")
    if str(checkout) not in sys.path:
        sys.path.insert(0, str(checkout))
    from convcrf import convcrf as released

    configuration = copy.deepcopy(released.default_conf) | {"filter_size": filter_size, "blur": blur}
    height, width, classes = shape
    on_gpu = device.type == "cuda"
    model = released.GaussCRF(conf=configuration, shape=[height, width], nclasses=classes, use_gpu=on_gpu).to(device)

    def refine(given):
        with torch.inference_mode():
            return model.forward(unary=given.scores, img=given.images)

    return refine


def in_blocks(values, features):
    """The exact filter in plain torch, some rows of the kernel matrix at a time; by matrix products throughout."""
    points, sent = features[0].flatten(1).mT, values[0].flatten(1).mT
    squares = points.square().sum(dim=1) / 2
    rows = max(1, BLOCK_BYTES // (4 * len(points)))
    out = torch.empty_like(sent)
    for some in range(0, len(points), rows):
        part = slice(some, some + rows)
        near = torch.addmm(squares, points[part], points.mT, beta=-1).sub_(squares[part, None]).exp_()
        torch.mm(near, sent, out=out[part])
    return out.mT.view_as(values)


def keops(values, features):
    """The exact filter by KeOps, which compiles the sum as it is written."""
    if find_spec("pykeops") is None:
        raise Missing("not run: pykeops is not installed")
    from pykeops.torch import LazyTensor

    points, sent = features[0].flatten(1).mT.contiguous(), values[0].flatten(1).mT.contiguous()
    receivers, senders = LazyTensor(points[:, None]), LazyTensor(points[None])
    near = (-((receivers - senders) ** 2).sum(-1) / 2).exp()
    return (near @ sent).mT.reshape(values.shape)


def pydensecrf(source):
    """The C++ library most people use, on the CPU."""
    if find_spec("pydensecrf") is None:
        raise Missing("not run: pydensecrf is not installed")
    return contestants.pydensecrf(source)


def attention(features, values):
    """A walk by torch's attention as it comes: nothing filled up, any of torch's ways."""
    asking, sent = (x.flatten(2).mT.unsqueeze(1) for x in (features, values))
    return F.scaled_dot_product_attention(asking, asking, sent, scale=1.0)[:, 0].mT.reshape(values.shape)


def walk_in_blocks(features, values):
    """A walk by plain products of matrices, some rows of P at a time."""
    walkers, sent = features.flatten(2), values.flatten(2).mT
    blocks = [(rows.mT @ walkers).softmax(dim=2) @ sent for rows in walkers.split(WALKERS, dim=2)]
    return torch.cat(blocks, dim=1).mT.reshape(values.shape)


# How far off


def far(found, exact):
    """Return the largest difference over the largest number."""
    return float((found.double() - exact).abs().max() / exact.abs().max())


def equal_labels(found, other):
    """Return the share of pixels whose best class is the same."""
    return float((found.argmax(dim=1).cpu() == other.argmax(dim=1).cpu()).double().mean())


def unchecked(model, run, one, small):
    """Return nothing: another row checks the same code."""
    return {}


def against_double(model, run, one, small):
    """Compare a result with the reference backends' in float64 on the same device; of small images only."""
    return _against_double(model, run, one) if small else {}


def gradient_against_double(model, run, one, small):
    """Compare a gradient with that of the reference backends in float64; of small images only."""
    return {"far_from_float64": far(run(model)(one), run(doubled(model))(in_double(one)))} if small else {}


def against_double_and_cpu(model, run, one, small):
    """Compare scores with float64, and those of small images with the compiled CPU path."""
    found = _against_double(model, run, one)
    if small:
        cpu = run(copy.deepcopy(model).cpu())(Given(*(tensor.cpu() for tensor in one)))
        found["labels_as_cpu"] = equal_labels(run(model)(one), cpu)
    return found


def _against_double(model, run, one):
    exact, found = run(doubled(model))(in_double(one)), run(model)(one)
    return {"far_from_float64": far(found, exact), "labels_as_float64": equal_labels(found, exact)}


def solved(model, run, one, small):
    """Hold the energy of DualMM's labels to their bound, and of small images both to float64."""
    found = run(model)(one)
    told = {"gap": float(found.gap.max())}
    if small:
        exact = run(doubled(model))(in_double(one))
        told["energy_far_from_float64"] = far(found.energy, exact.energy)
        told["bound_far_from_float64"] = far(found.bound, exact.bound)
        told["labels_as_float64"] = float((found.labels == exact.labels).double().mean())
    return told


def exact_error(values, features, out, receivers=2048, rows=32):
    """Return how `far` some pixels of an exact filter's result are from float64."""
    points, sent = features[0].flatten(1).double(), values[0].flatten(1).double()
    picked = torch.linspace(0, points.shape[1] - 1, min(receivers, points.shape[1]), device=out.device).long()
    exact = []
    for some in picked.split(rows):
        distance = sum((axis[some, None] - axis).square_() for axis in points)
        exact.append(distance.mul_(-0.5).exp_() @ sent.mT)
    return far(out[0].flatten(1)[:, picked].mT, torch.cat(exact))


def pixels(shape):
    """Return how many pixels a shape (H, W, C) has."""
    return math.prod(shape[:2])


def corner(one, side=64):
    """Return the upper left of a Given."""
    return Given(*(tensor[..., :side, :side].contiguous() for tensor in one))
