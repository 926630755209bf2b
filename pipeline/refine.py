"""Sharpen one network's unaries with one fitted system.

reads   a pack (images), unaries, a fitted system
writes  labels, one uint8 map per image of one shard, the seconds each took, and if the system certifies it how good
        they are

A killed stage keeps the images it had finished.
"""

import sys
import time

import torch

from pipeline import systems
from pipeline.core import device, errors, files, stage, stamp
from pipeline.formats import fitted, labels, packs, unaries


def add_arguments(parser):
    """Declare the options."""
    parser.add_argument("--pack", required=True, metavar="H5")
    parser.add_argument("--unaries", required=True, nargs="+", metavar="ZARR", help="all shards")
    parser.add_argument("--system", required=True, metavar="NPZ", help="what `fit` or `finetune` wrote")
    parser.add_argument("--split", required=True, help="which images")
    parser.add_argument("--shard", required=True, type=stage.shard, metavar="K-of-N", help="which part of them")
    parser.add_argument("--backend", required=True, choices=device.BACKENDS)
    parser.add_argument("--threads", required=True, type=stage.positive)
    parser.add_argument("--output", required=True, metavar="ZARR")


def run(args):
    """Refine every image of the shard; the first one is done once more beforehand, so that times are warm."""
    pack, cache, given = packs.Pack(args.pack), unaries.Cache(args.unaries), fitted.read(args.system)
    cache.belongs_to(pack)
    where = device.setup(args.backend, args.threads)
    system = systems.build(given.settings, pack.classes, where, given.state)
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
    )
    with labels.writer(
        args.output, names=names, class_names=pack.class_names, pack_digest=pack.digest, stamp=described
    ) as out:
        left = [name for name in names if name not in out.names]
        if len(left) < len(names):
            stage.log.info("%d of %d images are there already", len(names) - len(left), len(names))
        for name in left[:1]:
            refine(system, pack.sample(name).image, cache, name, where)
        for name in stage.progress(left, len(left), "images"):
            out.put(name, *refine(system, pack.sample(name).image, cache, name, where))


def refine(system, image, cache, name, where):
    """Return one image's labels and what is stored beside them: seconds, share of changed pixels, a certificate."""
    scores = cache.unaries(name, image)
    _wait_for(where)
    started = time.perf_counter()
    with errors.of(f"image {name}"):
        answer, certificate = labelled(system, image, scores)
    _wait_for(where)
    seconds = time.perf_counter() - started
    plain = scores.log_probability(*image.shape[:2]).max(dim=0).indices.byte().numpy()
    return answer, {"seconds": seconds, "changed": float((answer != plain).mean())} | certificate


def labelled(system, image, scores):
    """Return the labels of an image, and the energy and its bound if the system is one that certifies them."""
    return system.certified(image, scores) if hasattr(system, "certified") else (system.refine(image, scores), {})


def _wait_for(where):
    if where.type == "cuda":
        torch.cuda.synchronize(where)


def main(argv=None):
    """Run the stage; return its exit status."""
    return stage.main("pipeline.refine", __doc__, add_arguments, run, argv)


if __name__ == "__main__":
    sys.exit(main())
