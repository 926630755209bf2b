"""Train a network and a system together, through all iterations of the system.

reads   a pack (train split), the network's weights, the system fitted to it
writes  weights of the new network, the system that goes with it, the history

The loss on plain training images, before and after, and how far the parameters moved are logged and stored.
A killed stage goes on from its last checkpoint.
"""

import json
import sys

import torch

from pipeline import nets, systems
from pipeline.algorithms import backprop, losses
from pipeline.algorithms.batches import Views
from pipeline.core import device, files, settings, stage, stamp
from pipeline.core.errors import SettingsError
from pipeline.core.files import whole_file
from pipeline.core.settings import Settings
from pipeline.formats import fitted, packs, trainings, weights
from pipeline.metrics import overlap


def add_arguments(parser):
    """Declare the options."""
    parser.add_argument("--pack", required=True, metavar="H5")
    parser.add_argument("--net", required=True, metavar="YAML", help="a file of config/nets with `source: finetune`")
    parser.add_argument("--weights", required=True, metavar="SAFETENSORS", help="of the network to start from")
    parser.add_argument("--system", required=True, metavar="NPZ", help="as `fit` left it for that network")
    parser.add_argument("--backend", required=True, choices=device.BACKENDS)
    parser.add_argument("--threads", required=True, type=stage.positive)
    parser.add_argument(
        "--workers", required=True, type=stage.natural, help="processes that prepare images; 0: this one does"
    )
    parser.add_argument("--seed", required=True, type=stage.seed)
    parser.add_argument("--output", required=True, metavar="SAFETENSORS")
    parser.add_argument("--output-system", required=True, metavar="NPZ")
    parser.add_argument("--history", required=True, metavar="JSONL")


def run(args):
    """Train jointly to the end, from a checkpoint if there is one of the same work."""
    net = settings.read(args.net, "nets")
    if net.source != "finetune":
        raise SettingsError(f"{args.net}, key 'source'", f"'{net.source}'", "'finetune'", "use `train` for this net")
    pack, given = packs.Pack(args.pack), fitted.read(args.system)
    tensors, made = weights.read_for(args.weights, pack.class_names)
    where = device.setup(args.backend, args.threads)
    system = systems.build(given.settings, pack.classes, where, given.state)
    if not hasattr(system, "module"):
        raise SettingsError(args.system, f"'{given.settings.system}'", "a differentiable system", "choose another")
    losses.check(system.module, net.finetune.loss, "finetune.loss")
    trained = Settings(made["settings"])
    described = stamp.make(
        "finetune",
        inputs={"pack": pack.digest, "weights": files.digest(args.weights), "system": files.digest(args.system)},
        # The new weights say of themselves what network they are for, as trained ones do.
        settings=Settings(net.plain() | {"network": trained.network.plain(), "scaling": trained.scaling.plain()}),
        modules=[
            f"pipeline.nets.{trained.network.architecture}",
            systems.module_name(given.settings.system),
        ],
        seed=args.seed,
        threads=args.threads,
        device=device.describe(where),
        class_names=list(pack.class_names),
    )
    learns(net, system.module, args.net)
    network = nets.build(trained.network, pack.classes)
    network.load_state_dict(tensors)
    recompute(net, network, system.module, args.net)
    module = backprop.Segmenter(network, trained.scaling, system.module)
    module = backprop.placed(module, where, net.finetune.precision)
    change = train(module, system, net, pack, args, described, where)
    with whole_file(args.output_system) as beside:
        done = fitted.Fitted(given.settings, system.state(), given.curve, described | {"change": change})
        fitted.write(beside, done)
    trainings.Checkpoint(args.output, described).remove()


def learns(net, refiner, path):
    """Let the system learn, or not; refuse a rate for one that has nothing to learn."""
    if not net.system_learning_rate:
        refiner.requires_grad_(False)
    elif not any(parameter.requires_grad for parameter in refiner.parameters()):
        found, expected = f"{net.system_learning_rate:g}", "0: this system has no parameter that a gradient moves"
        raise SettingsError(f"{path}, key 'system_learning_rate'", found, expected, "set it to 0, or change the system")


def recompute(net, network, refiner, path):
    """Tell network and refiner what they need not keep for the backward pass."""
    network.recompute, refiner.recompute = ("network" in net.recompute, "system" in net.recompute)
    normalised = any(isinstance(layer, torch.nn.BatchNorm2d) for layer in network.modules())
    if network.recompute and normalised and net.finetune.normalisation == "trained":
        # Its statistics would be taken twice.
        found, expected = "'network' with batch normalisation that is trained", "normalisation: frozen"
        raise SettingsError(f"{path}, key 'recompute'", found, expected, "freeze it, or take 'network' out")
    if refiner.recompute and refiner.settings.get("tolerance", 0) > 0:
        found, expected = f"'system' with a tolerance of {refiner.settings.tolerance}", "one that runs all iterations"
        raise SettingsError(f"{path}, key 'recompute'", found, expected, "take 'system' out, or set tolerance: 0")


def train(module, system, net, pack, args, described, where):
    """Run the training, write weights and history; return what changed."""
    wanted = net.finetune
    views = Views(pack.sample, pack.names(wanted.split), wanted, module.scaling.mean, args.seed)
    groups = backprop.network_groups(module.network, wanted)
    groups += backprop.groups(module.refiner, lambda name: net.system_learning_rate * module.refiner.rate(name), 0.0)
    training = backprop.Training(module, groups, wanted, views.steps_per_epoch, args.seed)
    start = {name: value.detach().clone() for name, value in module.named_parameters()}
    watched = pack.names(wanted.split)[: net.watched_images]
    before = mean_loss(module, wanted.loss, pack, watched, where)
    untrained = [untrained_epoch() | heldout(module, system, pack, where)] if wanted.heldout_every else []
    checkpoint = trainings.Checkpoint(args.output, described)

    def evaluate():
        return heldout(module, system, pack, where)

    trainings.run_to_end(training, training.run(views, workers=args.workers, evaluate=evaluate), checkpoint)
    after = mean_loss(module, wanted.loss, pack, watched, where)
    change = {f"{name}_before": value for name, value in before.items()}
    change |= {f"{name}_after": value for name, value in after.items()}
    change |= {part: moved(start, module, part) for part in ("network", "refiner")}
    stage.log.info("%s", json.dumps(change))
    described = described | {"change": change}
    trainings.write(args.output, args.history, module.network.state_dict(), untrained + training.history, described)
    return change


def untrained_epoch():
    """Return the history's entry before the first step: what the system gains by itself shows there."""
    return {"epoch": 0, "steps": 0, "loss": None, "lr": None, "heldout_miou": None, "seconds": 0.0}


def mean_loss(module, loss, pack, names, where):
    """Return the mean loss of plain, whole training images: what fine-tuning should lower.

    Where a system knows its loss from two sides only (`bounds`), `loss` is the lower one, and `loss_bound` the upper.
    """
    module.eval()
    objective = backprop.Objective(module, loss, "float32")
    total, bound, count = 0.0, 0.0, 0
    both = hasattr(module.refiner, "bounds")
    with torch.inference_mode():
        for name in names:
            sample = pack.sample(name)
            image = as_tensor(sample.image, where)
            truth = torch.from_numpy(sample.truth).long()[None].to(where)
            if both:
                found = module.refined(image, lambda *given, truth=truth: module.refiner.bounds(*given, truth))
                added, terms = found.lower, found.labelled
                bound += float(found.upper)
            else:
                added, terms = objective(image, truth)
            total, count = total + float(added), count + int(terms)
    return {"loss": total / max(count, 1)} | ({"loss_bound": bound / max(count, 1)} if both else {})


def heldout(module, system, pack, where):
    """Return the mean IoU of the pair's labels on the held-out images, and that of categories; percent."""
    module.eval()
    with torch.inference_mode():
        samples = map(pack.sample, pack.names("heldout"))
        pairs = ((one.truth, module.refined(as_tensor(one.image, where), system.labels)) for one in samples)
        found = overlap.percents(pairs, pack.class_names, pack.categories)
    return {f"heldout_{name}": value for name, value in found.items()}


def as_tensor(image, where):
    """Return a photograph (H, W, 3) uint8 as (1, 3, H, W) float32, 0..1."""
    return torch.from_numpy(image).permute(2, 0, 1)[None].to(where).float() / 255


def moved(start, module, part):
    """Return how far the parameters of one part moved, relative to their length: ‖θ' − θ‖ / ‖θ‖."""
    now = {name: value.detach() for name, value in module.named_parameters() if name.startswith(part)}
    way = sum(float((value - start[name]).square().sum()) for name, value in now.items())
    length = sum(float(start[name].square().sum()) for name in now)
    return (way / max(length, 1e-30)) ** 0.5


def main(argv=None):
    """Run the stage; return its exit status."""
    return stage.main("pipeline.finetune", __doc__, add_arguments, run, argv)


if __name__ == "__main__":
    sys.exit(main())
