"""Write labels as PASCAL VOC's test server takes them: one archive of PNGs, read again before it is there.

reads   a pack, all shards of one system's labels
writes  results/VOC2012/Segmentation/comp6_test_cls/NAME.png for every image of the split, VOC's colours, in a .tgz
"""

import sys

from pipeline.core import stage
from pipeline.core.errors import DataError
from pipeline.core.files import whole_file
from pipeline.figures import palette
from pipeline.formats import label_archives
from pipeline.formats.labels import Labels
from pipeline.formats.packs import Pack

CLASSES = 21
COMPETITIONS = ("comp5", "comp6")  # trained on VOC's own data alone; on other data too


def add_arguments(parser):
    """Declare the options."""
    parser.add_argument("--pack", required=True, metavar="H5")
    parser.add_argument("--labels", required=True, nargs="+", metavar="ZARR", help="all shards")
    parser.add_argument("--split", required=True, help="val of config/packs/voc2012_test.yaml is VOC's list test")
    parser.add_argument("--competition", required=True, choices=COMPETITIONS, help="comp6: other data was used too")
    parser.add_argument("--output", required=True, metavar="TGZ")


def run(args):
    """Write the archive and hold it against the labels."""
    pack, labels = Pack(args.pack), Labels(args.labels)
    labels.belongs_to(pack)
    if pack.classes != CLASSES:
        raise DataError(args.pack, f"{pack.classes} classes", f"VOC's {CLASSES}", "use a pack of VOC 2012")
    names = pack.names(args.split)
    folder = f"results/VOC2012/Segmentation/{args.competition}_test_cls"
    entries = [f"{folder}/{name}.png" for name in names]
    with whole_file(args.output) as beside:
        written = (labels.labels(name, pack.sample(name).truth) for name in stage.progress(names, len(names), "images"))
        label_archives.write(beside, zip(entries, written, strict=True), palette.voc())
        read = (labels.read(name)[0] for name in names)
        label_archives.check(beside, zip(entries, read, strict=True), args.output)
    stage.log.info("%d images in %s", len(names), args.output)


def main(argv=None):
    """Run the tool; return its exit status."""
    return stage.main("pipeline.tools.voc_server", __doc__, add_arguments, run, argv)


if __name__ == "__main__":
    sys.exit(main())
