"""DifNet-50's parts on a GPU, as Table 4 of its paper has them; and its five walks by other ways than ours."""

from functools import partial

import gpu_clock as clock
import gpu_contestants as who
import gpu_rows
import torch

from pipeline import nets
from pipeline.core import settings
from pipeline.kernels.random_walk import random_walk

SIDE, CLASSES = 505, 21  # px, as in the paper
LEAST_CALLS = 20
MOST_SETS = 8  # of images: what the networks make of one is larger than a cache anyway
WALKS = "five walks"
NETWORKS = {"DifNet-50": "difnet_voc_50", "Sim-Deeplab-101": "difnet_voc_101_seed"}
PARTS = ("seed branch", "similarity branch", "features", "importance", WALKS, *NETWORKS)


def rows(side, device, seconds):
    """Return two dicts of rows by name: times, and kernels of ours."""
    size = f"{side}x{side}x{CLASSES}"
    timing = {f"{size}, {part}": partial(timed, part, side, device, seconds) for part in PARTS}
    ways = {"torch's attention as it comes": who.attention, "in blocks of rows": who.walk_in_blocks}
    timing |= {f"{size}, {WALKS}, {name}": partial(walked, way, side, device, seconds) for name, way in ways.items()}
    return timing, {f"kernels of {size}, {WALKS}": partial(profiled, side, device)}


def timed(part, side, device, seconds):
    """Time one part; the walks are also compared with float64."""
    with torch.inference_mode():
        found = clock.timed(calls(part, side, device), device, seconds, LEAST_CALLS)
        found |= {"images": 1}
        return found | (gpu_rows.checks(partial(against_double, random_walk, side, device)) if part == WALKS else {})


def walked(way, side, device, seconds):
    """Time the five walks by another way than ours."""
    with torch.inference_mode():
        found = clock.timed(
            [partial(walks, way, *each) for each in walkers(side, device)], device, seconds, LEAST_CALLS
        )
        return found | gpu_rows.checks(partial(against_double, way, side, device))


def profiled(side, device):
    """Return the time of the walks' kernels."""
    with torch.inference_mode():
        return clock.kernels(calls(WALKS, side, device), device)


def network(name, device):
    """Build one of the networks, its weights drawn."""
    chosen = settings.read(settings.ROOT / f"config/nets/{NETWORKS[name]}.yaml", "nets")
    torch.manual_seed(0)
    return nets.build(chosen.network, CLASSES).eval().to(device)


def images_of(side, device):
    """Return sets of one image each, more than a cache holds."""
    generator = torch.Generator().manual_seed(0)
    count = min(MOST_SETS, clock.input_sets(4 * 3 * side * side, device))
    return [torch.rand(1, 3, side, side, generator=generator).to(device) for _ in range(count)]


def calls(part, side, device):
    """Return the calls of one part."""
    if part == WALKS:
        return [partial(walks, random_walk, *each) for each in walkers(side, device)]
    built = network(part if part in NETWORKS else "DifNet-50", device)
    images = images_of(side, device)
    scores = built.classifier(built.backbone(images[0]))
    if part == "importance":
        return [partial(built.diffusion.importance, scores)]
    part = {
        "seed branch": lambda image: built.classifier(built.backbone(image)),
        "similarity branch": lambda image: built.diffusion.similarity(image),
        "features": lambda image: built.diffusion.levels(image, scores.shape[2:]),
    }.get(part, built)
    return [partial(part, image) for image in images]


def walkers(side, device):
    """Return sets of seeds, levels and mixing of the five walks, more than a cache holds."""
    built = network("DifNet-50", device)
    mixing = tuple(each.detach() for each in built.diffusion.mixing())

    def one(image):
        scores = built.classifier(built.backbone(image))
        return scores, built.diffusion.levels(image, scores.shape[2:]), mixing

    first = one(images_of(side, device)[0])
    size = sum(tensor.nbytes for tensor in (first[0], *first[1]))
    return [
        (first[0].roll(k, 2), [x.roll(k, 2) for x in first[1]], mixing) for k in range(clock.input_sets(size, device))
    ]


def walks(way, seed, levels, mixing):
    """Take five walks; `way` is a random walk of features and values."""
    state = seed
    for features, mu, beta in zip(levels, *mixing, strict=True):
        state = beta * (mu * way(features, state) + (1 - mu) * seed) + (1 - beta) * state
    return state


def against_double(way, side, device):
    """Return how far the walks are from the reference's in float64, which stores P."""
    seed, levels, mixing = walkers(side, device)[0]
    in_double = seed.double(), [x.double() for x in levels], [x.double() for x in mixing]
    exact = walks(partial(random_walk, backend="reference"), *in_double)
    found = walks(way, seed, levels, mixing)
    return {"far_from_float64": who.far(found, exact), "labels_as_float64": who.equal_labels(found, exact)}
