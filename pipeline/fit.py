"""Fit one system to one network's unaries, on the held-out images.

reads   a pack (held-out split), unaries, a system's settings
writes  the fitted system: settings, fitted numbers, the curve of the fit

A system that learns nothing passes its settings through.
"""

import sys

from pipeline import systems
from pipeline.core import device, settings, stage, stamp
from pipeline.core.errors import DataError
from pipeline.core.files import whole_file
from pipeline.formats import fitted, packs, unaries

SPLIT = "heldout"


class HeldOut:
    """The held-out images with their unaries, read from disk at each access."""

    def __init__(self, pack, cache):
        self.pack, self.cache, self.names = pack, cache, pack.names(SPLIT)
        if not self.names:
            raise DataError(pack.path, "no held-out images", "at least one", "pack again with some held out")

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        sample = self.pack.sample(self.names[index])
        return sample, self.cache.unaries(sample.name, sample.image)


def add_arguments(parser):
    """Declare the options."""
    parser.add_argument("--pack", required=True, metavar="H5")
    parser.add_argument("--unaries", required=True, nargs="+", metavar="ZARR", help="all shards")
    parser.add_argument("--settings", required=True, metavar="YAML", help="a file of config/systems")
    parser.add_argument("--backend", required=True, choices=device.BACKENDS)
    parser.add_argument("--threads", required=True, type=stage.positive)
    parser.add_argument("--seed", required=True, type=stage.seed)
    parser.add_argument("--output", required=True, metavar="NPZ")


def run(args):
    """Fit, telling each step, and write the result."""
    wanted = settings.read(args.settings, "systems")
    pack, cache = packs.Pack(args.pack), unaries.Cache(args.unaries)
    cache.belongs_to(pack)
    where = device.setup(args.backend, args.threads)
    described = stamp.make(
        "fit",
        inputs={"pack": pack.digest, "unaries": cache.digest},
        settings=wanted,
        modules=[systems.module_name(wanted.system)],
        seed=args.seed,
        threads=args.threads,
        device=device.describe(where),
    )
    system = systems.build(wanted, pack.classes, where)
    curve = []
    for step in system.fit(HeldOut(pack, cache), args.seed):
        curve.append(step)
        stage.log.info("%s", " ".join(f"{name} {value:.5g}" for name, value in step.items()))
    result = fitted.Fitted(wanted, system.state(), curve, described)
    with whole_file(args.output) as beside:
        fitted.write(beside, result)


def main(argv=None):
    """Run the stage; return its exit status."""
    return stage.main("pipeline.fit", __doc__, add_arguments, run, argv)


if __name__ == "__main__":
    sys.exit(main())
