"""Pack a raw data set into one HDF5 file.

reads   a raw data set, or makes the embedded one
writes  a pack: images, truth, splits, class names and their categories
"""

import sys

from pipeline import datasets
from pipeline.core import settings, stage, stamp, workers
from pipeline.core.errors import SettingsError
from pipeline.core.sample import VOID
from pipeline.core.settings import nearest
from pipeline.formats import packs


def add_arguments(parser):
    """Declare the options."""
    parser.add_argument("--settings", required=True, metavar="YAML", help="the data set, a file of config/packs")
    parser.add_argument("--seed", required=True, type=stage.seed, help="of the images that `embedded` makes")
    parser.add_argument("--threads", required=True, type=stage.positive, help="samples read and encoded at a time")
    parser.add_argument("--output", required=True, metavar="H5")


def run(args):
    """Read every sample once and store it."""
    wanted = settings.read(args.settings, "packs")
    source = datasets.read(wanted, args.seed)
    categories = wanted.categories.plain() if "categories" in wanted else {}
    check_categories(categories, source.class_names, args.settings)
    check_counts(wanted.get("counts", {}), source.splits, args.settings)
    names = [name for split in source.splits.values() for name in split]
    described = stamp.make(
        "pack",
        inputs={},
        settings=wanted,
        seed=args.seed,
        modules=[f"pipeline.datasets.{wanted.reader}"],
    )
    with packs.writer(
        args.output,
        class_names=source.class_names,
        categories=categories,
        splits=source.splits,
        blocks=source.blocks,
        trimap=wanted.trimap,
        stamp=described,
    ) as put:
        void = pixels = 0
        done = workers.in_threads(lambda name: encoded(source, name), names, args.threads)
        for arrays, void_here, size in stage.progress(done, len(names), "images"):
            put(arrays)
            void, pixels = void + void_here, pixels + size
    sizes = ", ".join(f"{split} {len(names)}" for split, names in source.splits.items())
    told = len(names), sizes, len(source.class_names), 100 * void / pixels
    stage.log.info("%d images (%s), %d classes, %.1f %% of the pixels void", *told)


def encoded(source, name):
    """Return one sample as a pack holds it, how many of its pixels are void, and how many it has."""
    sample = source.sample(name)
    arrays = packs.encode(sample, len(source.class_names))
    return arrays, int((sample.truth == VOID).sum()), sample.truth.size


def check_counts(counts, splits, path):
    """Refuse splits of another size than is known of the data."""
    for split, count in counts.items():
        if len(splits[split]) != count:
            found, do = f"{len(splits[split])} images", "complete the data, or mend the key if the data is another"
            raise SettingsError(f"{path}, key 'counts.{split}'", found, str(count), do)


def check_categories(categories, class_names, path):
    """Refuse categories of classes that are not there, or of one class twice."""
    named = [name for names in categories.values() for name in names]
    for place, name in enumerate(named):
        if name not in class_names:
            raise SettingsError(f"{path}, key 'categories'", f"'{name}'", "a class", nearest(name, class_names))
        if name in named[:place]:
            raise SettingsError(f"{path}, key 'categories'", f"'{name}' twice", "each class once", "delete one")


def main(argv=None):
    """Run the stage; return its exit status."""
    return stage.main("pipeline.pack", __doc__, add_arguments, run, argv)


if __name__ == "__main__":
    sys.exit(main())
