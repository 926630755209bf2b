"""Sharpen one network's unaries with one fitted system.

reads   a pack (images), unaries, a fitted system
writes  labels, one uint8 map per image of one shard, the seconds each took, and if the system certifies it how good
        they are

A killed stage keeps the images it had finished.
"""

import sys
import time
from functools import partial

import torch

from pipeline import systems
from pipeline.algorithms import tiling
from pipeline.core import device, errors, files, stage, stamp
from pipeline.core.errors import DataError
from pipeline.formats import fitted, labels, packs, unaries

LARGE = 2**22  # pixels of an image; smaller ones are not looked at before they are tried


def add_arguments(parser):
    """Declare the options."""
    parser.add_argument("--pack", required=True, metavar="H5")
    parser.add_argument("--unaries", required=True, nargs="+", metavar="ZARR", help="all shards")
    parser.add_argument("--system", required=True, metavar="NPZ", help="what `fit` or `finetune` wrote")
    parser.add_argument("--split", required=True, help="which images")
    parser.add_argument("--shard", required=True, type=stage.shard, metavar="K-of-N", help="which part of them")
    parser.add_argument("--backend", required=True, choices=device.BACKENDS)
    parser.add_argument("--threads", required=True, type=stage.positive)
    parser.add_argument("--tile", required=True, type=stage.natural, metavar="PX", help="side of squares; 0: none")
    parser.add_argument("--halo", required=True, type=stage.natural, metavar="PX", help="how much further one sees")
    parser.add_argument("--output", required=True, metavar="ZARR")


def run(args):
    """Refine every image of the shard; the first one is done once more beforehand, so that times are warm."""
    pack, cache, given = packs.Pack(args.pack), unaries.Cache(args.unaries), fitted.read(args.system)
    cache.belongs_to(pack)
    where = device.setup(args.backend, args.threads)
    system = systems.build(given.settings, pack.classes, where, given.state)
    refined = partial(refine, system, cache, where, (args.tile, args.halo))
    memory = MemoryCheck(system, cache, where, args.tile)
    part, count = args.shard
    names = pack.names(args.split)[part - 1 :: count]
    described = stamp.make(
        "refine",
        inputs={"pack": pack.digest, "unaries": cache.digest, "system": files.digest(args.system)},
        settings=given.settings,
        modules=[systems.module_name(given.settings.system)],
        split=args.split,
        shard=f"{part}-of-{count}",
        threads=args.threads,
        device=device.describe(where),
        **({"tile": args.tile, "halo": args.halo} if args.tile else {}),
    )
    with labels.writer(
        args.output, names=names, class_names=pack.class_names, pack_digest=pack.digest, stamp=described
    ) as out:
        left = [name for name in names if name not in out.names]
        if len(left) < len(names):
            stage.log.info("%d of %d images are there already", len(names) - len(left), len(names))
        for name in left[:1]:
            image = pack.sample(name).image
            memory.check(name, image)
            refined(name, image)
        for name in stage.progress(left, len(left), "images"):
            image = pack.sample(name).image
            memory.check(name, image)
            out.put(name, *refined(name, image))


class MemoryCheck:
    """Refuses an image that memory will not hold, before hours are spent on it; in tiles, chosen to fit, none."""

    def __init__(self, system, cache, where, tile):
        self.system, self.cache, self.where = system, cache, where
        self.checked = LARGE if tile == 0 else float("inf")  # pixels of the largest image that is known to fit

    def check(self, name, image):
        """Estimate what an image takes, if it is larger than all before; DataError if it is more than there is."""
        height, width = image.shape[:2]
        if height * width <= self.checked or min(height, width) < max(tiling.SIDES):
            return None
        self.checked = height * width
        scores, peak = self.cache.unaries(name, image), partial(device.peak, self.where)
        needs, free = tiling.estimate(self.system.refine, image, scores, peak), device.available(self.where)
        if needs is None or free is None:
            return stage.log.info(
                "image %s, %d × %d px: whether memory holds it cannot be told here", name, height, width
            )
        told = f"{height} × {width} px, which take about {needs / 2**30:.1f} GiB"
        if needs > free:
            do = "set `tile` in config.yaml (--tile), 1024 for example, or take a machine with more"
            raise DataError(f"image {name}", told, f"at most the {free / 2**30:.1f} GiB that are free", do)
        return stage.log.info("image %s: %s of the %.1f GiB that are free", name, told, free / 2**30)


def refine(system, cache, where, tiles, name, image):
    """Return one image's labels and what is stored beside them: seconds, share of changed pixels, a certificate."""
    scores = cache.unaries(name, image)
    _wait_for(where)
    started = time.perf_counter()
    with errors.of(f"image {name}"):
        answer, certificate = labelled(system, image, scores, *tiles)
    _wait_for(where)
    seconds = time.perf_counter() - started
    plain = scores.log_probability(*image.shape[:2], where).max(dim=0).indices.byte().cpu().numpy()
    return answer, {"seconds": seconds, "changed": float((answer != plain).mean())} | certificate


def labelled(system, image, scores, tile, halo):
    """Return the labels of an image, and, if the system certifies those of whole images, their energy and its bound."""
    if tile:
        whole = max(image.shape[:2]) <= tile
        return system.refine(image, scores) if whole else tiling.refine(system.refine, image, scores, tile, halo), {}
    return system.certified(image, scores) if hasattr(system, "certified") else (system.refine(image, scores), {})


def _wait_for(where):
    if where.type == "cuda":
        torch.cuda.synchronize(where)


def main(argv=None):
    """Run the stage; return its exit status."""
    return stage.main("pipeline.refine", __doc__, add_arguments, run, argv)


if __name__ == "__main__":
    sys.exit(main())
