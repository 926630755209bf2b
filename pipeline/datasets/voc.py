"""Any folder in PASCAL VOC layout.

ROOT/JPEGImages/ID.jpg (or .png)     photograph
ROOT/SegmentationClass/ID.png        8-bit palette or grey PNG; the pixel's value is its class, 255 is void
ROOT/ImageSets/Segmentation/SPLIT.txt  one ID a line
"""

from pathlib import Path

from pipeline.core.errors import DataError
from pipeline.core.sample import Sample
from pipeline.core.settings import nearest
from pipeline.datasets import Source, pictures, splits


def read(settings, seed):
    """Open a VOC-layout folder; `settings` as in the reader's schema, `seed` is not used.

    Raises
    ------
    DataError
        If a folder, list, image or label is missing or does not fit; the message names the file.
    """
    root = Path(settings.root).expanduser()
    class_names = _class_names(settings, root)
    named = {split: names_in(root, "Segmentation", name) for split, name in settings.splits.items()}
    divided, blocks = splits.divide(root, named, settings.block_length)
    for names in named.values():
        for name in names:
            _files(root, name)
    return Source(class_names, divided, lambda name: _sample(root, name, len(class_names)), blocks)


def names_in(root, folder, split):
    """Return the names of the list ROOT/ImageSets/FOLDER/SPLIT.txt; errors as for `splits.names_of`."""
    path = root / "ImageSets" / folder / f"{split}.txt"
    known = [file.stem for file in path.parent.glob("*.txt")]
    return splits.names_of(path, nearest(split, known) if known else f"check that {root} has the layout of PASCAL VOC")


def image_file(root, name):
    """Return the path of a photograph in ROOT/JPEGImages; DataError if there is none."""
    return pictures.first_file(*(root / "JPEGImages" / f"{name}{ending}" for ending in (".jpg", ".jpeg", ".png")))


def truth_file(root, name):
    """Return the path of its labels in ROOT/SegmentationClass, there or not."""
    return root / "SegmentationClass" / f"{name}.png"


def _class_names(settings, root):
    names = settings.class_names
    if isinstance(names, str):
        path = root / names
        if not path.is_file():
            raise DataError(path, "no such file", "a list of class names, one a line", "add it, or list them")
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not 2 <= len(names) <= 255 or len(set(names)) < len(names):
        found = f"{len(names)} class names, {len(set(names))} different"
        raise DataError(f"{root}, class names", found, "2 to 255 different ones", "mend the list")
    return tuple(names)


def _files(root, name):
    """Return the paths of an image and its labels; DataError if one is missing."""
    return image_file(root, name), pictures.first_file(truth_file(root, name))


def _sample(root, name, classes):
    image_path, truth_path = _files(root, name)
    image, truth = pictures.photograph(image_path), pictures.indices(truth_path)
    pictures.check_size(truth_path, truth, image_path, image)
    pictures.check_classes(truth_path, truth, classes, "mend the labels or the class names")
    return Sample(name, image, truth)
