"""Photographs and label images as files, with errors that name the file and the pixel."""

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from pipeline.core.errors import DataError
from pipeline.core.sample import VOID

# Pillow takes images of 179 million pixels for attacks. These are the user's own; `refine` has tiles for large ones.
Image.MAX_IMAGE_PIXELS = None
UPRIGHT = 1  # EXIF's orientation of pixels that are shown as they are stored


def first_file(*candidates):
    """Return the first path that is a file; DataError naming the first of all if none is."""
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        found, expected = "no such file", "one for every name in the lists"
        raise DataError(candidates[0], found, expected, "add it or unlist the name")
    return path


def photograph(path):
    """Read a photograph as (H, W, 3) uint8 RGB; DataError if the file is damaged, or says that it is to be turned."""
    image = _open(path, "a photograph")
    turned = image.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
    if turned != UPRIGHT:
        # Whoever drew its labels may have seen it turned, or not.
        found, do = f"EXIF orientation {turned}", "turn it to where its labels are, and remove the entry"
        raise DataError(path, found, "pixels stored upright", do)
    return np.asarray(image.convert("RGB"))


def indices(path):
    """Read labels whose values are classes or ids as (H, W) uint8; DataError if damaged, or if they are colours."""
    labels = _open(path, "labels")
    if labels.mode not in ("P", "L"):
        expected = "one of mode P or L, whose values are classes"
        raise DataError(path, f"a PNG of mode {labels.mode}", expected, "save the indices, not their colours")
    return np.asarray(labels)


def check_size(truth_path, truth, image_path, image):
    """Refuse labels whose rows and cols are not the photograph's."""
    if truth.shape != image.shape[:2]:
        raise DataError(
            truth_path,
            f"labels of {truth.shape[0]} × {truth.shape[1]} px (rows × cols)",
            f"{image.shape[0]} × {image.shape[1]} as in {image_path.name}",
            "replace the one that is wrong",
        )


def check_labels(path, labels, bad, what, expected, do):
    """Refuse labels (H, W) where `bad`, of the same shape, is true anywhere; the DataError names the first pixel."""
    if bad.any():
        row, col = np.argwhere(bad)[0]
        raise DataError(f"{path}, row {row}, col {col}", f"the {what} {labels[row, col]}", expected, do)


def check_classes(path, labels, classes, do):
    """Refuse labels (H, W) that are neither one of so many classes nor void; errors as for `check_labels`."""
    bad, expected = (labels >= classes) & (labels != VOID), f"0 to {classes - 1}, or {VOID} for void"
    check_labels(path, labels, bad, "value", expected, do)


def _open(path, what):
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        reason = " ".join(str(error).split())[:100]
        raise DataError(path, f"a damaged file ({reason})", what, "replace the file") from None
