"""Tiny inputs for tests, written with the pipeline's own writers: seeded, smooth, a few small images.

`pack` first; `unaries`, `labels` and `fitted` then take the path of that pack. All return the path they wrote.
"""

import json

import numpy as np
import torch
from scipy import ndimage

from pipeline.core import settings
from pipeline.core.grids import Grid
from pipeline.core.sample import Sample
from pipeline.formats import fitted as fitted_files
from pipeline.formats import labels as label_stores
from pipeline.formats import packs, weights
from pipeline.formats import unaries as unary_stores
from pipeline.formats.packs import Pack

CLASS_NAMES = ("ground", "leaf", "berry", "stone", "water")
SIZES = ((24, 32), (30, 21), (17, 40), (33, 33), (20, 26), (28, 23))  # rows, cols
CELLS = Grid("cells", 4)
SPLITS = {"train": 2, "heldout": 2, "val": 6}
VOID = 255
COLOURS = np.array([[90, 70, 50], [60, 140, 60], [170, 40, 70], [130, 130, 140], [50, 90, 170]], np.float64)
STAMP = {
    "project": "edgewise 0",
    "commit": "0123456789ab",
    "versions": {"python": "3", "torch": "2"},
    "source": "0" * 12,
    "inputs": {},
    "settings": {},
    "seed": 0,
}


def stamp(stage, **more):
    """Return a stamp as `core.stamp.make` would, without looking at the code."""
    return STAMP | {"stage": stage} | more


def smooth(rng, shape, sigma):
    """Draw smooth noise of unit spread; the last two axes are rows and cols."""
    drawn = ndimage.gaussian_filter(rng.standard_normal(shape), (0,) * (len(shape) - 2) + (sigma, sigma))
    return drawn / drawn.std()


def sample(name, seed, size=(24, 32), classes=4, exact=True):
    """Make one Sample: smooth regions, a void line one pixel wide along their edges, colours that tell classes."""
    rng = np.random.default_rng(seed)
    whole = smooth(rng, (classes, *size), 4).argmax(axis=0).astype(np.uint8)
    truth = whole.copy()
    truth[:, 1:][whole[:, 1:] != whole[:, :-1]] = VOID
    truth[1:][whole[1:] != whole[:-1]] = VOID
    image = COLOURS[whole] + 25 * smooth(rng, (3, *size), 1).transpose(1, 2, 0)
    return Sample(name, image.clip(0, 255).astype(np.uint8), truth, whole if exact else None)


def pack(
    path, *, classes=4, sizes=SIZES, splits=SPLITS, exact=True, trimap="void", blocks=None, seed=0, void=True,
    categories=None, full=False,
):  # fmt: skip
    """Write a pack; sizes go round over all images, named val_0, val_1, …; without `void` all pixels have a class.

    With `full` the truth is there at twice the size too, one pixel of each four its neighbour's, so that it tells more.
    """
    named = {split: [f"{split}_{number}" for number in range(count)] for split, count in splits.items()}
    with packs.writer(
        path,
        class_names=CLASS_NAMES[:classes],
        categories=categories or {},
        splits=named,
        blocks=blocks or {},
        trimap=trimap,
        stamp=stamp("pack", seed=seed),
    ) as put:
        for number, name in enumerate(name for names in named.values() for name in names):
            made = sample(name, seed * 1000 + number, sizes[number % len(sizes)], classes, exact)
            truth = made.truth if void else made.exact
            whole = Sample(name, made.image, truth, made.exact, full_size(truth) if full else None)
            put(packs.encode(whole, classes))
    return path


def full_size(truth):
    """Return a truth (2H, 2W) uint8: three of each four pixels as in `truth` (H, W), one as its left neighbour."""
    larger = truth.repeat(2, axis=0).repeat(2, axis=1)
    larger[::2, ::2] = np.roll(truth, 1, axis=1)
    return larger


def scores_of(truth, classes, *, seed, stride=4, noise=1.0):
    """Return logits (C h w) float32 at `stride`: the truth blurred, with smooth noise; void tells nothing."""
    height, width = (-(-size // stride) for size in truth.shape)
    hot = np.stack([(truth == label).astype(np.float32) for label in range(classes)])
    coarse = Grid("cells", stride).resize(torch.from_numpy(hot)[None], height, width)[0].numpy()
    drawn = smooth(np.random.default_rng(seed), coarse.shape, 0.7)
    return (4 * coarse + noise * drawn).astype(np.float32)


def unaries(
    path,
    pack,
    *,
    splits=("heldout", "val"),
    noise=1.0,
    kind="logits",
    grid=CELLS,
    names=None,
    seed=0,
    net=None,
):
    """Write the unaries of a pack's images, `names` or those of `splits`, as one shard; `net` are its settings."""
    opened = Pack(pack)
    names = names or [name for split in splits for name in opened.names(split)]
    with unary_stores.writer(
        path,
        names=names,
        class_names=opened.class_names,
        kind=kind,
        grid=grid,
        dtype="float32",
        pack_digest=opened.digest,
        stamp=stamp("cache", seed=seed, settings=net or {}),
    ) as out:
        for number, name in enumerate(names):
            read = opened.sample(name)
            scores = scores_of(read.truth, opened.classes, seed=seed * 1000 + number, stride=grid.stride, noise=noise)
            unary_stores.put(out, name, _as_kind(scores, kind), read.image, "float32")
    return path


def labels(path, pack, unaries, *, split="val", sharpen=0.0, seconds=0.25, system="convcrf", preset="default", seed=0):
    """Write labels of one split: the unaries' best class, but the truth at the share `sharpen` of the pixels.

    With `sharpen` 0 they are the unary system's; the nearer to 1, the better the system seems.
    """
    opened, cache = Pack(pack), unary_stores.Cache([unaries])
    names = opened.names(split)
    made = stamp("refine", settings={"system": system, "preset": preset}, device="cpu", threads=1)
    with label_stores.writer(
        path, names=names, class_names=opened.class_names, pack_digest=opened.digest, stamp=made
    ) as out:
        for number, name in enumerate(names):
            read = opened.sample(name)
            log_p = cache.unaries(name, read.image).log_probability(*read.truth.shape)
            plain = log_p.argmax(dim=0).numpy().astype(np.uint8)
            near = smooth(np.random.default_rng(seed * 1000 + number), plain.shape, 2)
            mended = (near <= np.quantile(near, sharpen)) & (read.truth != VOID) & (sharpen > 0)
            array = np.where(mended, read.truth, plain)
            changed = float((array != plain).mean())
            out.put(name, array, {"seconds": seconds * (1 + number), "changed": changed})
    return path


def fitted(path, *, system="convcrf", state=None, curve=None, images=()):
    """Write a system fitted on `images`, with a falling curve and the settings of its file in ``config/systems``."""
    chosen = settings.read(settings.ROOT / "config/systems" / f"{system}.yaml", "systems")
    state = {"theta_alpha": np.float32(31.5)} if state is None else state
    if curve is None:
        curve = [{"step": step, "loss": 0.4 + 0.5**step, "theta_alpha": 40 - step} for step in range(6)]
    path.parent.mkdir(parents=True, exist_ok=True)
    fitted_files.write(
        path, fitted_files.Fitted(chosen, state, curve, stamp("fit", seed=0, inputs={"images": list(images)}))
    )
    return path


def search(first_images=10):
    """Return the curve of a search as deeplab reports it: a grid of 2 × 2 × 3, judged on `first_images` but for two
    points, which were judged on 10; then a round of one point, off the grid and the best."""
    grid = [(alpha, beta, weight) for alpha in (10.0, 30.0) for beta in (5.0, 10.0) for weight in (4.0, 6.0, 8.0)]
    points = [(point, 1, 10 if place in (4, 7) else first_images, 50.0 + place) for place, point in enumerate(grid)]
    points.append(((20.0, 7.5, 6.0), 2, 10, 60.25))
    names = ("theta_alpha", "theta_beta", "appearance_weight")
    return [
        {"step": step, "round": number, "images": images, "miou": miou} | dict(zip(names, point, strict=True))
        for step, (point, number, images, miou) in enumerate(points, start=1)
    ]


def history(path, epochs=8):
    """Write a training history as `train` does, with a held-out score every second epoch."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        {
            "epoch": epoch,
            "steps": 10 * epoch,
            "loss": 2 / epoch,
            "lr": 0.01 / epoch,
            "heldout_miou": None if epoch % 2 else 60 - 40 / epoch,
            "seconds": 2.5,
        }
        for epoch in range(1, epochs + 1)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def training(path, settings, epochs=8):
    """Write a history and beside it weights whose stamp has these settings."""
    history(path, epochs)
    weights.write(path.with_suffix(".safetensors"), {"x": torch.zeros(1)}, stamp("train", settings=settings))
    return path


def _as_kind(scores, kind):
    """Turn logits into scores of another kind that say the same."""
    log_p = torch.from_numpy(scores).log_softmax(dim=0).numpy()
    return {"logits": scores, "probability": np.exp(log_p), "neg_log_probability": -log_p}[kind]
