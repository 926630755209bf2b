"""Who is compared: each function takes an Input and returns a call that refines it once and gives Q (C, H, W).

Peers are optional (benchmarks/requirements.txt); each is used as its own documentation shows.
"""

import copy
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from pipeline.algorithms.mean_field import beliefs
from pipeline.core import settings
from pipeline.systems.convcrf import ConvCRF
from pipeline.systems.fullcrf import FullCRF

ITERATIONS = 5
WEIGHTS, THETAS = (10.0, 3.0), (80.0, 13.0, 3.0)  # the demonstration values of Krähenbühl and Koltun's library


class Input(NamedTuple):
    """One image and its unary."""

    image: np.ndarray  # (H, W, 3) uint8
    probability: np.ndarray  # (C, H, W) float32, clipped to 1e-5


def system(name, **changed):
    """Return a preset's settings with these changed."""
    values = settings.read(settings.ROOT / "config" / "systems" / f"{name}.yaml", "systems").plain()
    if "fit" in changed:
        changed["fit"] = values["fit"] | changed["fit"]
    return settings.check(values | changed, "systems", where="a benchmark")


def ours(model, source):
    """One of our systems, without gradient."""
    images, log_probability = tensors(source)

    def call():
        with torch.inference_mode():
            return beliefs(model(images, log_probability))[0].numpy()

    return call


def tensors(source):
    """Return an Input as (1 3 H W) and log-probability (1 C H W)."""
    images = torch.from_numpy(source.image.copy()).permute(2, 0, 1)[None].float()
    return images, torch.from_numpy(source.probability).log()[None]


def fullcrf(source, **changed):
    """Our FullCRF with the library's demonstration values."""
    return ours(FullCRF(system("fullcrf_densecrf", **changed), len(source.probability), {}), source)


def convcrf(source, **changed):
    """Our ConvCRF, as the authors' code has it but for what is changed."""
    return ours(ConvCRF(system("convcrf_released", **changed), len(source.probability), {}), source)


def convcrf_training(source, **changed):
    """Forward and backward through our ConvCRF, to the unary and to all its numbers."""
    learnt = ["appearance_weight", "smoothness_weight", "theta_beta", "theta_gamma", "unary_weight"]
    learnt += ["compatibility"] if changed.get("compatibility", "potts") != "potts" else []
    fit = {"parameters": dict.fromkeys(learnt, 1)}
    return training(
        ConvCRF(system("convcrf_released", fit=fit, **changed), len(source.probability), {}), *tensors(source)
    )


def crfrnn_training(source, **changed):
    """Forward and backward through our CRF-RNN, five iterations, to the unary, its weights and its compatibility."""
    model = FullCRF(system("crfrnn_released", **changed), len(source.probability), {}).train()
    return training(model, *tensors(source))


def crfasrnn_training(source, checkout):
    """The same through crfasrnn_pytorch, from the user's own checkout, built as its page says."""
    sys.path[:0] = [str(checkout), str(Path(checkout) / "crfasrnn")]
    from crfasrnn.crfrnn import CrfRnn

    return training(CrfRnn(len(source.probability), num_iterations=ITERATIONS), *tensors(source))


def training(model, images, scores):
    """Return a call of forward and backward."""

    def call():
        start = scores.clone().requires_grad_()
        out = model(images, start)
        out.square().mean().backward()
        return start.grad[0].numpy()

    return call


def pydensecrf(source, normalisation="symmetric", weights=WEIGHTS):
    """The C++ library most people use (PyPI: pydensecrf2); weights of the appearance and the smoothness kernel."""
    from pydensecrf import densecrf

    mode = {
        "symmetric": densecrf.NORMALIZE_SYMMETRIC,
        "after": densecrf.NORMALIZE_AFTER,
        "before": densecrf.NORMALIZE_BEFORE,
    }[normalisation]
    classes, height, width = source.probability.shape
    image = np.ascontiguousarray(source.image).copy()

    energy = np.ascontiguousarray(-np.log(source.probability).reshape(classes, -1))

    def call():
        crf = densecrf.DenseCRF2D(width, height, classes)
        crf.setUnaryEnergy(energy)
        crf.addPairwiseGaussian(sxy=THETAS[2], compat=weights[1], normalization=mode)
        crf.addPairwiseBilateral(sxy=THETAS[0], srgb=THETAS[1], rgbim=image, compat=weights[0], normalization=mode)
        return np.asarray(crf.inference(ITERATIONS)).reshape(classes, height, width)

    return call


def reference(source, checkout, filter_size, blur=4, train=False, compatibility=False):
    """The ConvCRF authors' code, from the user's own checkout; kernels are made anew in every call, as there."""
    sys.path.insert(0, str(checkout))
    from convcrf import convcrf as released

    configuration = copy.deepcopy(released.default_conf)
    configuration |= {"filter_size": filter_size, "blur": blur, "trainable": train, "convcomp": compatibility}
    classes, *shape = source.probability.shape
    model = released.GaussCRF(conf=configuration, shape=shape, nclasses=classes, use_gpu=False)
    images, scores = tensors(source)
    if train:
        return training(lambda images, start: model.forward(unary=start, img=images), images, scores)

    def call():
        with torch.inference_mode():
            return model.forward(unary=scores, img=images)[0].softmax(dim=0).numpy()

    return call


def crfseg(source):
    """The PyPI package crfseg: a spatial Gaussian in a window of 11, blind to the image."""
    from crfseg import CRF

    model = CRF(n_spatial_dims=2, filter_size=11, n_iter=ITERATIONS)
    scores = torch.from_numpy(source.probability).log()[None]

    def call():
        with torch.inference_mode():
            return model(scores)[0].softmax(dim=0).numpy()

    return call
