"""Train the network that gives the unaries.

reads   a pack (train split); perhaps weights to start from, a local file or another network's
writes  weights (safetensors) and the training's history (a line per epoch)

Under `torchrun` several processes share every batch. A killed training goes on from its last checkpoint.
"""

import sys

import torch

from pipeline import nets
from pipeline.algorithms import backprop, losses, prediction
from pipeline.algorithms.batches import Views
from pipeline.core import device, files, settings, stage, stamp
from pipeline.core.errors import SettingsError
from pipeline.formats import packs, trainings, weights
from pipeline.metrics import overlap


def add_arguments(parser):
    """Declare the options."""
    parser.add_argument("--pack", required=True, metavar="H5")
    parser.add_argument("--net", required=True, metavar="YAML", help="a file of config/nets with `source: train`")
    parser.add_argument("--start", metavar="SAFETENSORS", help="weights of the network that `init_from` names")
    parser.add_argument("--backend", required=True, choices=device.BACKENDS)
    parser.add_argument("--threads", required=True, type=stage.positive)
    parser.add_argument(
        "--workers", required=True, type=stage.natural, help="processes that prepare images; 0: this one does"
    )
    parser.add_argument("--seed", required=True, type=stage.seed)
    parser.add_argument("--output", required=True, metavar="SAFETENSORS")
    parser.add_argument("--history", required=True, metavar="JSONL")


def run(args):
    """Train to the end, from a checkpoint if there is one of the same work."""
    net = settings.read(args.net, "nets")
    if net.source != "train":
        raise SettingsError(f"{args.net}, key 'source'", f"'{net.source}'", "'train'", "this net is not trained")
    pack = packs.Pack(args.pack)
    start = starting_file(args, net)
    where = device.setup(args.backend, args.threads)
    rank, ranks = device.join_processes(where)
    described = stamp.make(
        "train",
        inputs={"pack": pack.digest} | ({"weights": files.digest(start)} if start else {}),
        settings=net,
        modules=[f"pipeline.nets.{net.network.architecture}"],
        seed=args.seed,
        threads=args.threads,
        processes=ranks,
        device=device.describe(where),
        class_names=list(pack.class_names),
    )
    training, views = prepare(net, pack, start, args, where)
    checkpoint = trainings.Checkpoint(args.output, described)

    def evaluate():
        return heldout(training.module.network, net.scaling, pack, where) if rank == 0 else {}

    steps = training.run(views, workers=args.workers, rank=rank, ranks=ranks, evaluate=evaluate)
    trainings.run_to_end(training, steps, checkpoint, leads=rank == 0)
    if rank == 0:
        tensors = training.module.network.state_dict()
        trainings.write(args.output, args.history, tensors, training.history, described)
        checkpoint.remove()


def starting_file(args, net):
    """Return the weight file to start from: that of `init_from`, that of `weights`, or None."""
    if "init_from" in net and not args.start:
        raise SettingsError(f"{args.net}, key 'init_from'", f"'{net.init_from}'", "its weights", "give --start FILE")
    if "init_from" not in net and args.start:
        raise SettingsError("--start", f"'{args.start}'", "none", f"leave it out, or set init_from in {args.net}")
    return args.start or (net.weights if net.weights != "none" else None)


def prepare(net, pack, start, args, where):
    """Build the network, freshly initialised or from a weight file, and what it is trained with."""
    torch.manual_seed(args.seed)
    network = nets.build(net.network, pack.classes)
    if start:
        if "init_from" in net:
            tensors, _ = weights.read_for(start, pack.class_names)
        else:
            tensors = weights.read_start(start, net.scaling)
        match = weights.load_into(network, tensors, start)
        stage.log.info("%s: %s", start, match.report())
    losses.check(None, net.train.loss, "train.loss")
    module = backprop.Segmenter(network, net.scaling, loss_at=net.loss_at)
    module = backprop.placed(module, where, net.train.precision)
    views = Views(pack.sample, pack.names(net.train.split), net.train, net.scaling.mean, args.seed)
    groups = backprop.network_groups(network, net.train)
    return backprop.Training(module, groups, net.train, views.steps_per_epoch, args.seed), views


def heldout(network, scaling, pack, where):
    """Return the mean IoU of the network's own labels on the held-out images, and that of categories; percent."""
    samples = map(pack.sample, pack.names("heldout"))
    pairs = ((sample.truth, prediction.labels(network, sample.image, scaling, where)) for sample in samples)
    found = overlap.percents(pairs, pack.class_names, pack.categories)
    return {f"heldout_{name}": value for name, value in found.items()}


def main(argv=None):
    """Run the stage; return its exit status."""
    return stage.main("pipeline.train", __doc__, add_arguments, run, argv)


if __name__ == "__main__":
    sys.exit(main())
