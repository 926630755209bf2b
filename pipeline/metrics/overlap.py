"""Overlap of labels with the truth, all from one table of counts.

Counts are kept and ratios made last: everything here but `confusion` takes counts, whose leading axes
(images, bands, resamples) may be any.

Source: Everingham et al., "The PASCAL Visual Object Classes Challenge: A Retrospective", IJCV 2015, section 3.4,
for IoU; Long et al., arXiv:1411.4038, section 5, for the other three.
"""

import numpy as np

from pipeline.core.errors import DataError
from pipeline.core.sample import VOID


def confusion(truth, labels, classes):
    """Count the pixels of each pair (true class, label); pixels whose truth is void are left out.

    Parameters
    ----------
    truth, labels : ndarray of shape (H, W), uint8
        Class of every pixel; 255 in `truth` is void.
    classes : int
        Number of classes C, void not counted.

    Returns
    -------
    ndarray of shape (C, C), int64
        Row = true class, column = label, in pixels.

    Raises
    ------
    DataError
        If the shapes differ, or a scored pixel holds something that is no class.
    """
    if truth.shape != labels.shape:
        raise DataError("labels", f"shape {labels.shape}", f"{truth.shape} as the truth", "refine again")
    scored = truth != VOID
    pairs = pair_index(truth[scored], labels[scored], classes)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def nearest(labels, shape):
    """Enlarge labels (h, w) to `shape` (H, W): every pixel takes the label whose cell its middle lies in."""
    sizes = zip(labels.shape, shape, strict=True)
    rows, cols = (((np.arange(new) + 0.5) * old / new).astype(np.intp) for old, new in sizes)
    return labels[np.ix_(rows, cols)]


def pair_index(truth, labels, classes):
    """Number the pairs (true class, label) of scored pixels from 0 to C² − 1; DataError if one is no class."""
    for name, array in (("truth", truth), ("labels", labels)):
        if array.size and array.max() >= classes:
            found = f"the class {int(array.max())} at a pixel that is scored"
            raise DataError(name, found, f"0 to {classes - 1}", "make it with the class names of this pack")
    return truth.astype(np.int64) * classes + labels


def percent(pairs, classes):
    """Return the mean IoU in percent, to three digits, of pairs of truth and labels, (H, W) uint8 each, counted as one.

    Parameters as for `confusion`.
    """
    return percents(pairs, range(classes), {})["miou"]


def percents(pairs, class_names, categories):
    """Return the same as "miou", and where there are categories, class names by category, theirs as "category_miou"."""
    counts = sum(confusion(truth, labels, len(class_names)) for truth, labels in pairs)
    found = {"miou": mean_iou(counts)}
    if categories:
        found["category_miou"] = category_mean_iou(counts, numbered(categories, class_names))
    return {name: round(100 * float(value), 3) for name, value in found.items()}


def numbered(categories, class_names):
    """Return the numbers of the classes of every category, whose names are given."""
    return [[class_names.index(name) for name in names] for names in categories.values()]


def marginals(counts):
    """Return what IoU needs of counts (…, C, C): (…, 3, C), rows hits, pixels of the truth, pixels labelled."""
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    return np.stack([hits, counts.sum(axis=-1), counts.sum(axis=-2)], axis=-2)


def iou(counts):
    """Return the intersection over union of each class: (…, C, C) → (…, C); NaN if the class is in neither."""
    return iou_of(marginals(counts))


def iou_of(margins):
    """Return the IoU of each class from `marginals`: (…, 3, C) → (…, C)."""
    hits, truth, labelled = np.moveaxis(margins, -2, 0)
    return _ratio(hits, truth + labelled - hits)


def mean_iou(counts):
    """Return the mean IoU over the classes that have one: (…, C, C) → (…); `classes_met` says how many."""
    return mean_iou_of(marginals(counts))


def mean_iou_of(margins):
    """Return the mean IoU from `marginals`: (…, 3, C) → (…)."""
    return _mean(iou_of(margins))


def category_mean_iou(counts, categories):
    """Return the mean IoU of categories: (…, C, C) → (…). A pixel is right if its label is of the truth's category.

    Parameters
    ----------
    counts : ndarray of shape (…, C, C)
    categories : sequence of sequence of int
        The classes of each; other classes are of none, and so wrong beside any.

    Notes
    -----
    Source: Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", CVPR 2016, section 4.
    """
    truth, labelled = (counts.sum(axis=axis) for axis in (-1, -2))
    margins = [
        [counts[..., classes, :][..., classes].sum(axis=(-2, -1)), truth[..., classes].sum(axis=-1),
         labelled[..., classes].sum(axis=-1)]
        for classes in map(list, categories)
    ]  # fmt: skip
    return mean_iou_of(np.moveaxis(np.array(margins), (0, 1), (-1, -2)))


def classes_met(counts):
    """Return how many classes occur in truth or labels, and so have an IoU: (…, C, C) → (…), int64."""
    return np.isfinite(iou(counts)).sum(axis=-1)


def accuracy(counts):
    """Return the share of scored pixels that are right: (…, C, C) → (…)."""
    return _ratio(np.trace(counts, axis1=-2, axis2=-1), counts.sum(axis=(-2, -1)))


def class_accuracy(counts):
    """Return the mean, over the classes of the truth, of the share of their pixels that are right."""
    hits, truth, _ = np.moveaxis(marginals(counts), -2, 0)
    return _mean(_ratio(hits, truth))


def frequency_weighted_iou(counts):
    """Return the IoU averaged with the pixels of the truth as weights: (…, C, C) → (…)."""
    margins = marginals(counts)
    truth = margins[..., 1, :]
    return _ratio((truth * np.nan_to_num(iou_of(margins))).sum(axis=-1), truth.sum(axis=-1))


def _ratio(part, whole):
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def _mean(values):
    """Average over the last axis, NaN left out; NaN where nothing is left."""
    return _ratio(np.nansum(values, axis=-1), np.isfinite(values).sum(axis=-1))
