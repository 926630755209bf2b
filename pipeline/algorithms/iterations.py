"""What single iterations of mean field do, of systems whose module is a CRF with Gaussian kernels."""

import copy

import torch

from pipeline.algorithms.gaussian_crf import GaussianCRF
from pipeline.algorithms.refiners import as_batch
from pipeline.core.settings import Settings


def are_in(system):
    """Whether a system's module runs ``settings.iterations`` iterations of mean field."""
    return isinstance(getattr(system, "module", None), GaussianCRF)


def scores_after(system, image, unaries, numbers):
    """Yield the scores, the input of the softmax, after so many iterations each.

    Each is worked out from the start as the system's `refine` does it, so that those of ``settings.iterations`` are
    what its labels are the best classes of, to the bit.

    Parameters
    ----------
    system : GradientSystem
        One that `are_in` is true of.
    image : ndarray of shape (H, W, 3), uint8
    unaries : Unaries
    numbers : iterable of int
        Iterations; after 0 the scores are the unary that mean field begins with.

    Yields
    ------
    Tensor of shape (C, H, W), float32
        On the CPU.
    """
    for number in numbers:
        module = copy.copy(system.module)  # of the same parameters
        module.settings = Settings(module.settings.plain() | {"iterations": number})
        with torch.inference_mode():
            scores = module(*as_batch(image, unaries, system.device))[0].cpu()
        yield scores
