"""Small CRFs with learnt parts, and images for them."""

import torch

from pipeline.core import settings
from pipeline.systems.convcrf import ConvCRF
from pipeline.systems.fullcrf import FullCRF

CONFIG = settings.ROOT / "config" / "systems"
CPU = torch.device("cpu")
CLASSES = 3
# Sums of ≲ 100 numbers of size ≲ 100 in another order, over a few iterations, in float64.
ROUNDING = 1e-10
# Bandwidths and iterations that are felt on an image of a few pixels.
FELT = {"theta_alpha": 2.0, "theta_beta": 60.0, "theta_gamma": 1.5, "appearance_weight": 1.2, "smoothness_weight": 0.7}
FREE = {"name": "free", "canvas": [6, 7], "other_sizes": "crop"}


def chosen(name, **changed):
    values = settings.read(CONFIG / f"{name}.yaml", "systems").plain()
    fit = unwatched(values["fit"]) | changed.pop("fit", {})
    return settings.check(values | FELT | {"fit": fit} | changed, "systems", where="a test")


def unwatched(fit):
    """Leave out what looks at images of val: the tests' have none."""
    return {key: value for key, value in fit.items() if key != "watch"}


def crfrnn(**changed):
    small = {"filter": "exact", "iterations": 3, "training_iterations": 2}
    if changed.get("compatibility") == "potts":
        small |= {"fit": {"parameters": {}}}
    return FullCRF(chosen("crfrnn", **(small | changed)), CLASSES, {}).double()


def convcrf(name="convcrf_ct", **changed):
    small = {"filter_size": 3, "blur": 1, "iterations": 2}
    return ConvCRF(chosen(name, **(small | changed)), CLASSES, {}).double()


def case(height=4, width=5, classes=CLASSES):
    """Draw images (1 3 H W), 0..255, and log-probabilities (1 C H W), float64."""
    generator = torch.Generator().manual_seed(11)
    images = torch.rand(1, 3, height, width, generator=generator, dtype=torch.float64) * 255
    scores = torch.randn(1, classes, height, width, generator=generator, dtype=torch.float64)
    return images, scores.log_softmax(dim=1)


def stirred(crf):
    """Move every array a little from where it starts, so that nothing cancels."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name in crf.starts:
            array = getattr(crf, name)
            array += 0.3 * torch.randn(array.shape, generator=generator, dtype=array.dtype)
    return crf


def all_of(crf):
    """Name all parameters a model has, as the fit of one that learns them all."""
    return {name: 1 for name in (*crf.positive, *crf.starts) if name not in crf.unused()}
