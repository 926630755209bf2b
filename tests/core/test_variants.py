"""Settings files that are another one but for a few keys: those keys, and no other."""

import pytest

from pipeline.core import settings

CONFIG = settings.ROOT / "config"
COMPATIBILITY = {"compatibility", "fit.parameters.compatibility"}
POSITIONS = {"positions", "fit.parameters.positions"}
LONGER = {"fit.epochs", "fit.watch"}
SYSTEMS = {
    "convcrf_base": ("convcrf", LONGER),
    "convcrf_c": ("convcrf_base", COMPATIBILITY),
    "convcrf_t": ("convcrf_base", POSITIONS),
    "convcrf_ct": ("convcrf_base", COMPATIBILITY | POSITIONS),
    "convcrf_paper_c": ("convcrf_paper", COMPATIBILITY),
    "convcrf_paper_t": ("convcrf_paper", POSITIONS),
    "convcrf_paper_ct": ("convcrf_paper", COMPATIBILITY | POSITIONS),
    "crfrnn_start": ("crfrnn", {"fit.epochs"}),
    "crfrnn_shared": ("crfrnn_start", COMPATIBILITY | {"kernel_weights"}),
    "crfrnn_perclass": ("crfrnn_start", COMPATIBILITY),
    "crfrnn_symmetric": ("crfrnn_start", {"compatibility"}),
    "crfrnn_t5": ("crfrnn_start", {"iterations"}),
    "crfrnn_t10": ("crfrnn_start", {"training_iterations"}),
    "crfrnn_untied": ("crfrnn_t5", {"untied"}),
    "crfrnn_relu": ("crfrnn_start", {"normalise"}),
    "crfrnn_released": ("crfrnn_paper", {"preset", "kernel_weights"}),
    "hybrid_network": (
        "hybrid_svm",
        {"weights", "fit.epochs", "fit.learning_rate"}
        | {f"fit.parameters.{name}" for name in ("alpha", "beta", "lambda", "edge_network")},
    ),
    "deeplab_paper_heldout": ("deeplab_paper", {"search.images"}),
}
NETS = {
    f"fcn8s_crfrnn_{name}": ("fcn8s_crfrnn", {"system"})
    for name in ("shared", "perclass", "symmetric", "t5", "t10", "untied", "relu")
} | {
    "fcn8s_crfrnn_only": ("fcn8s_crfrnn", {"finetune.learning_rate"}),
    "fcn16s": ("fcn32s", {"init_from", "network.variant", "train.iterations"}),
    "fcn8s": ("fcn16s", {"init_from", "network.variant"}),
    "fcn16s_paper": ("fcn32s_paper", {"weights", "init_from", "network.variant", "train.learning_rate"}),
    "fcn8s_paper": ("fcn16s_paper", {"init_from", "network.variant", "train.learning_rate"}),
    "fcn8s_longer": (
        "fcn8s",
        {"init_from", "train.iterations"}
        | {f"train.{key}" for key in ("epochs", "crop", "optimiser", "learning_rate", "schedule", "weight_decay")}
        | {f"train.{key}_rate" for key in ("classifier", "bias")},
    ),
    "difnet18_seed": ("difnet18", {"network.walks", "train.learns"}),
    "difnet34_seed": ("difnet18_seed", {"network.depth", "init_from"}),
    "difnet18_start": (
        "difnet18_seed",
        {"init_from", "weights"} | {f"train.{key}" for key in ("epochs", "learning_rate", "heldout_every")},
    ),
    "difnet34_start": ("difnet18_start", {"network.depth"}),
    "difnet18_135": ("difnet18", {"network.walks"}),
    "difnet18_distance": (
        "difnet18",
        {f"network.{key}" for key in ("walks", "affinity", "positions", "feature_channels")},
    ),
    "difnet_voc_101": ("difnet_voc_50", {"network.depth", "weights"}),
    "difnet_voc_18": ("difnet_voc_50", {"network.depth", "weights"}),
    "difnet_voc_34": ("difnet_voc_50", {"network.depth", "weights"}),
    "difnet_voc_50_seed": ("difnet_voc_50", {"network.walks", "train.learns"}),
    "difnet_voc_18_seed": ("difnet_voc_50_seed", {"network.depth", "weights"}),
    "difnet_voc_34_seed": ("difnet_voc_50_seed", {"network.depth", "weights"}),
    "difnet_voc_101_seed": ("difnet_voc_50_seed", {"network.depth", "weights"}),
    "difnet_voc_50_noaspp": ("difnet_voc_50", {"network.head"}),
    "difnet_voc_50_135": ("difnet_voc_50", {"network.walks"}),
    "difnet_paper_50": ("difnet_voc_50", {f"train.{key}_rate" for key in ("learning", "classifier", "bias")}),
    "fcn32s_cityscapes": ("fcn32s_paper", {"train.crop", "train.weight_decay"}),
    "fcn16s_cityscapes": ("fcn16s_paper", {"init_from", "train.crop", "train.weight_decay"}),
    "fcn8s_cityscapes": ("fcn8s_paper", {"init_from", "train.crop", "train.weight_decay"}),
    "resnet18_crfrnn": ("resnet18_convcrf", {"system"}),
    "resnet101_paper_crfrnn": ("resnet101_paper_convcrf", {"system"}),
}
PACKS = {"pascal_context_59": ("pascal_context", {"background"})}


def flat(values, prefix=""):
    """Return nested settings by dotted keys; lists and `name` choices are values."""
    found = {}
    for key, value in values.items():
        if isinstance(value, dict) and "name" not in value and key != "watch":
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


@pytest.mark.parametrize(("joint", "alone"), [("fcn8s_hybrid", "fcn8s_longer")])
def test_a_control_is_trained_like_the_joint_network(joint, alone):
    joint, alone = (settings.read(CONFIG / "nets" / f"{name}.yaml", "nets") for name in (joint, alone))
    ours, control = flat(joint.finetune.plain()), flat(alone.train.plain())
    assert {key for key in ours if ours[key] != control[key]} == {"loss", "normalisation"}
    assert joint.net == alone.init_from


@pytest.mark.parametrize(
    ("kind", "name", "base", "keys"),
    [
        (kind, name, *of)
        for kind, all_ in (("systems", SYSTEMS), ("nets", NETS), ("packs", PACKS))
        for name, of in all_.items()
    ],
)
def test_a_variant_differs_in_its_keys_alone(kind, name, base, keys):
    mine, theirs = (flat(settings.read(CONFIG / kind / f"{each}.yaml", kind).plain()) for each in (name, base))
    assert {key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key)} == keys
