"""Count how the labels of one run agree with the truth: everywhere, near boundaries, and without void.

Where a pack has the truth at a larger size than its images, labels are enlarged to it.

reads   a pack (truth), labels
writes  confusion counts per image, for all pixels, for bands around boundaries and against the exact truth
"""

import sys

from pipeline.core import stage, stamp
from pipeline.core.errors import SettingsError
from pipeline.formats import confusions
from pipeline.formats.labels import Labels
from pipeline.formats.packs import Pack
from pipeline.metrics.boundary import band_confusions
from pipeline.metrics.overlap import confusion, mean_iou, nearest


def add_arguments(parser):
    """Declare the options."""
    parser.add_argument("--pack", required=True, metavar="FILE", help="the pack that was refined")
    parser.add_argument("--labels", required=True, nargs="+", metavar="STORE", help="labels of one system, all shards")
    parser.add_argument("--split", required=True, help="which images to score: train, heldout or val")
    parser.add_argument(
        "--widths", required=True, type=stage.positive, nargs="+", metavar="PX", help="of the bands, rising"
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="the score, HDF5")


def run(args):
    """Count image by image, and say the mean IoU of all."""
    if args.widths != sorted(set(args.widths)):
        raise SettingsError("--widths", " ".join(map(str, args.widths)), "rising widths", "sort them")
    pack, labels = Pack(args.pack), Labels(args.labels)
    labels.belongs_to(pack)
    names = pack.names(args.split)
    if not names:
        raise SettingsError(args.pack, f"no image in split '{args.split}'", "at least one", "pack some")
    stamped = stamp.make(
        "score",
        inputs={"pack": pack.digest, "labels": labels.digest},
        split=args.split,
        widths=args.widths,
    )
    with confusions.writer(
        args.output,
        names=names,
        blocks=pack.blocks,
        class_names=pack.class_names,
        categories=pack.categories,
        split=args.split,
        widths=args.widths,
        trimap=pack.trimap,
        settings=labels.stamp["settings"],
        pack_digest=pack.digest,
        stamp=stamped,
    ) as out:
        total = near = 0
        for name in stage.progress(names, len(names), "images"):
            sample = pack.sample(name)
            counts = count(sample, labels.labels(name, sample.truth), pack, args.widths)
            measured = labels.attributes_of(name)
            numbers = {key: measured[key] for key in (*confusions.NUMBERS, *confusions.CERTIFICATE) if key in measured}
            out.put(name, counts, numbers)
            total, near = total + counts["all"], near + counts["bands"].sum()
        check_bands(near, total.sum(), pack)
    stage.log.info("mean IoU %.2f %% over %d images", 100 * mean_iou(total), len(names))


def check_bands(near, counted, pack):
    """Refuse bands around void where there is none: every one of them would be empty."""
    if pack.trimap == "void" and counted and not near:
        found = "no pixel near void, though its trimap is 'void'"
        advice = "set `trimap: label_edges` in the pack's settings and pack again"
        raise SettingsError(pack.path, found, "void along the boundaries of the truth", advice)


def count(sample, labels, pack, widths):
    """Return the confusion counts of one image by the names that `confusions` stores them under."""
    truth = sample.truth if sample.full is None else sample.full
    enlarged = nearest(labels, truth.shape)
    counts = {
        "all": confusion(truth, enlarged, pack.classes),
        "bands": band_confusions(truth, enlarged, pack.classes, widths, pack.trimap),
    }
    if sample.exact is not None:
        counts["exact"] = confusion(sample.exact, labels, pack.classes)
    return counts


def main(argv=None):
    """Run the stage; return its exit status."""
    return stage.main("pipeline.score", __doc__, add_arguments, run, argv)


if __name__ == "__main__":
    sys.exit(main())
