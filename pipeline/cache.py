"""Cache a network's scores for the images that systems are fitted and tried on.

reads   a pack; weights, or for `source: noisy_truth` the truth
writes  unaries: logits at the network's stride, or made of the truth; one shard of the images

A killed stage keeps the images it had finished.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch

from pipeline import nets
from pipeline.algorithms import prediction
from pipeline.algorithms.noisy_truth import noisy_truth
from pipeline.core import device, files, settings, stage, stamp
from pipeline.core.errors import DataError, SettingsError
from pipeline.core.grids import Grid
from pipeline.core.settings import Settings
from pipeline.core.unaries import check
from pipeline.formats import packs, unaries, weights


def add_arguments(parser):
    """Declare the options."""
    parser.add_argument("--pack", required=True, metavar="H5")
    parser.add_argument("--net", required=True, metavar="YAML", help="a file of config/nets")
    origin = parser.add_mutually_exclusive_group(required=True)
    origin.add_argument("--weights", metavar="FILE", help="of `train` or `finetune`, or your own")
    origin.add_argument("--seed", type=stage.seed, metavar="N", help="of the noise, for `source: noisy_truth`")
    parser.add_argument("--shard", required=True, type=stage.shard, metavar="K-of-N", help="which part of the images")
    parser.add_argument("--backend", required=True, choices=device.BACKENDS)
    parser.add_argument("--threads", required=True, type=stage.positive)
    parser.add_argument("--output", required=True, metavar="ZARR")


@dataclass(frozen=True)
class Source:
    """What gives the scores.

    Attributes
    ----------
    scores : callable
        Takes a Sample, returns its scores: Tensor of shape (C, h, w), float32, on the CPU.
    kind : str
        One of `core.unaries.KINDS`.
    grid : Grid
        Where the scores stand in the image.
    origin : str
        Names the source in errors.
    made_of : dict
        What the stamp says of it: `inputs`, `modules` and more.
    """

    scores: Callable
    kind: str
    grid: Grid
    origin: str
    made_of: dict


def run(args):
    """Store the scores of the shard's images; those a killed run had finished are kept."""
    net = settings.read(args.net, "nets")
    pack = packs.Pack(args.pack)
    where = device.setup(args.backend, args.threads)
    part, count = args.shard
    names = [name for split in net.cache.splits for name in pack.names(split)][part - 1 :: count]
    source = noise(args, net, pack) if net.source == "noisy_truth" else network(args, net, pack, where)
    described = stamp.make(
        "cache",
        settings=net,
        shard=f"{part}-of-{count}",
        threads=args.threads,
        device=device.describe(where),
        **source.made_of,
    )
    with unaries.writer(
        args.output,
        names=names,
        class_names=pack.class_names,
        kind=source.kind,
        grid=source.grid,
        dtype=net.cache.dtype,
        pack_digest=pack.digest,
        stamp=described,
    ) as out:
        left = [name for name in names if name not in out.names]
        if len(left) < len(names):
            stage.log.info("%d of %d images are there already", len(names) - len(left), len(names))
        for name in stage.progress(left, len(left), "images"):
            sample = pack.sample(name)
            scores = source.scores(sample)
            check(scores, source.kind, f"{source.origin}, image {name}")
            unaries.put(out, name, scores.numpy(), sample.image, net.cache.dtype)


def network(args, net, pack, where):
    """Return the Source that a network is: its logits, at its own stride."""
    if args.weights is None:
        raise SettingsError(
            f"{args.net}, key 'source'", f"'{net.source}'", "'noisy_truth'", "give --weights, no --seed"
        )
    model, scaling, architecture = load(args, net, pack)
    model.to(where)
    return Source(
        scores=lambda sample: prediction.logits(model, sample.image, scaling, where)[0].cpu(),
        kind="logits",
        grid=model.grid,
        origin=args.weights,
        made_of={
            "inputs": {"pack": pack.digest, "weights": files.digest(args.weights)},
            "modules": [f"pipeline.nets.{architecture}"],
        },
    )


def noise(args, net, pack):
    """Return the Source that the truth is, with noise."""
    if args.seed is None:
        raise SettingsError(f"{args.net}, key 'source'", "'noisy_truth'", "a network", "give --seed, no --weights")

    def scores(sample):
        recipe = {key: net[key] for key in ("cell", "keep_probability", "kind", "stride")}
        made = noisy_truth(sample.truth, pack.classes, **recipe, seed=args.seed, name=sample.name)
        return torch.from_numpy(made)

    made_of = {"inputs": {"pack": pack.digest}, "seed": args.seed}
    return Source(scores, kind=net.kind, grid=Grid("cells", net.stride), origin=args.net, made_of=made_of)


def load(args, net, pack):
    """Return (network with its weights, input scaling, architecture); what our own files say of themselves holds."""
    if net.source == "given":
        network = nets.build(net.network, pack.classes)
        tensors = weights.read_start(args.weights, net.scaling)
        match = weights.load_into(network, tensors, args.weights, least=1.0)
        stage.log.info("%s: %s", args.weights, match.report())
        if match.missing or match.mismatched:
            raise DataError(
                args.weights,
                match.report(),
                f"every tensor of the network with {pack.classes} classes",
                "train it on this pack with `source: train` and `weights:` this file",
            )
        return network, net.scaling, net.network.architecture
    tensors, made = weights.read_for(args.weights, pack.class_names)
    trained = Settings(made["settings"])
    network = nets.build(trained.network, pack.classes)
    network.load_state_dict(tensors)
    return network, trained.scaling, trained.network.architecture


def main(argv=None):
    """Run the stage; return its exit status."""
    return stage.main("pipeline.cache", __doc__, add_arguments, run, argv)


if __name__ == "__main__":
    sys.exit(main())
