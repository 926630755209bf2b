"""Show what any file between the stages holds: structure, provenance, numbers; with --png a picture.

reads   a pack, unaries or labels (partial ones too), a fitted system, a score, weights, a history, a table
writes  text to standard output, and a picture if asked: of a pack photograph | truth, of unaries best
        class | entropy, of labels the labels; with --pack photograph | truth before them, right | wrong behind
"""

import json
import sys
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
import torch

from pipeline.core import stage
from pipeline.core.errors import DataError, SettingsError
from pipeline.core.files import whole_file
from pipeline.core.grids import Grid
from pipeline.core.sample import VOID
from pipeline.core.unaries import Unaries
from pipeline.figures import panels
from pipeline.formats import confusions, fitted, journal, kinds, stores, tables, weights
from pipeline.formats import labels as label_stores
from pipeline.formats import unaries as unary_stores
from pipeline.formats.packs import Pack
from pipeline.metrics import overlap

AT_MOST = 100  # images that statistics are taken over
AT_FIRST = 3  # entries of a journal that are shown


def add_arguments(parser):
    """Declare the options."""
    parser.add_argument("path", metavar="PATH", help="a file or store of the results folder, or a table")
    parser.add_argument("--png", metavar="FILE", help="draw one image of a pack, of unaries or of labels")
    parser.add_argument("--name", metavar="SAMPLE", help="the image to draw; otherwise the first")
    parser.add_argument("--pack", metavar="FILE", help="where the photograph and its truth are")


def run(args):
    """Print what the path holds, and draw it if asked."""
    kind = kinds.kind_of(args.path)
    content = open_kind(kind, args.path)
    print(f"{args.path}: {kind}")
    for line in DESCRIBE[kind.removeprefix("partial ")](content):
        print(line)
    if args.png is not None:
        draw(kind.removeprefix("partial "), content, args)


def open_kind(kind, path):
    """Open the path with the reader of its kind."""
    readers = {
        "pack": Pack,
        "score": confusions.Score,
        "fitted": fitted.read,
        "unaries": lambda path: stores.Store(path, unary_stores.FORMAT, made_by="cache"),
        "labels": lambda path: stores.Store(path, label_stores.FORMAT, made_by="refine"),
        "weights": weights.read,
        "history": tables.read_history,
        "journal": lambda path: list(journal.read(path)),
        "table": tables.read_any,
    }
    return readers.get(kind, kinds.PartialStore)(path)


def describe_pack(pack):
    """Yield lines on the splits, the sizes, and how much there is of each class."""
    yield from provenance(pack.stamp, pack.digest)
    yield f"trimap      {pack.trimap}" + (f", {len(set(pack.blocks.values()))} blocks of video" if pack.blocks else "")
    names = []
    for split in pack.splits:
        names += pack.names(split)
        yield f"split       {split}, {len(pack.names(split))} images"
    read = (pack.sample(name) for name in names[:AT_MOST])
    counts, sizes, colours, exact, full = np.zeros(256, dtype=np.int64), [], [], 0, []
    for sample in read:
        counts += np.bincount(sample.truth.ravel(), minlength=256)
        sizes.append(sample.truth.shape)
        colours.append(sample.image.mean(axis=(0, 1)))
        exact += sample.exact is not None
        full += [] if sample.full is None else [sample.full.shape]
    if sizes:
        yield from over(len(sizes), len(names))
        yield f"sizes       {span(sizes)} px (rows × cols)"
        yield "mean colour " + ", ".join(f"{value:.1f}" for value in np.mean(colours, axis=0)) + " (RGB)"
        yield f"exact truth {exact} images"
        if full:
            yield f"scored at   {span(full)} px (rows × cols)"
        yield f"void        {counts[VOID] / counts.sum():.2%} of all pixels"
        yield from shares(counts, pack.class_names)


def describe_unaries(store):
    """Yield lines on the kind and range of the scores, the best classes and how sure they are."""
    yield from describe_store(store, ("kind", "grid", "dtype"))
    low, high, total, size, entropies, counts, shapes = np.inf, -np.inf, 0.0, 0, [], np.zeros(256, np.int64), []
    for name in store.names[:AT_MOST]:
        scores, attributes = store.read(name)
        log_p = log_probability(store, scores, scores.shape[1:])
        low, high = min(low, float(scores.min())), max(high, float(scores.max()))
        total, size = total + float(scores.sum(dtype=np.float64)), size + scores.size
        entropies.append(float(-(np.exp(log_p) * log_p).sum(axis=0).mean()))
        counts += np.bincount(log_p.argmax(axis=0).ravel(), minlength=256)
        shapes.append(tuple(attributes["image_size"]))
    if shapes:
        yield from over(len(shapes), len(store.names))
        yield f"sizes       {span(shapes)} px (rows × cols)"
        yield f"scores      min {low:.4g}, mean {total / size:.4g}, max {high:.4g}"
        yield f"entropy     {np.mean(entropies):.4g} nats on average, {np.log(len(scores)):.4g} if nothing is known"
        yield from shares(counts, store.attributes["class_names"])


def describe_labels(store):
    """Yield lines on the classes, the time, and how much differs from the unary."""
    yield from describe_store(store, ())
    counts, shapes = np.zeros(256, dtype=np.int64), []
    for name in store.names[:AT_MOST]:
        array, _ = store.read(name)
        counts += np.bincount(array.ravel(), minlength=256)
        shapes.append(array.shape)
    if shapes:
        measured = [store.attributes_of(name) for name in store.names[:AT_MOST]]
        yield from over(len(shapes), len(store.names))
        yield f"sizes       {span(shapes)} px (rows × cols)"
        yield f"changed     {np.mean([one['changed'] for one in measured]):.3%} of the unary's labels"
        yield f"seconds     {median(one['seconds'] for one in measured):.4f} per image, median"
        yield from shares(counts, store.attributes["class_names"])


def describe_store(store, keys):
    """Yield what all stores have in common."""
    yield from provenance(store.stamp, store.attributes.get("digest", "not whole yet"))
    for key in keys:
        told = store.attributes[key]
        told = ", ".join(f"{name} {value}" for name, value in told.items()) if isinstance(told, dict) else told
        yield f"{key:11} {told}"
    yield f"images      {len(store.names)}: {', '.join(islice(store.names, 4))}{', …' * (len(store.names) > 4)}"


def describe_fitted(content):
    """Yield settings, fitted numbers and the two ends of the fit's curve."""
    yield from provenance(content.stamp)
    yield f"settings    {json.dumps(content.settings.plain(), ensure_ascii=False)}"
    for name, array in content.state.items():
        yield numbers(name, array)
    if content.curve:
        yield f"curve       {len(content.curve)} entries, first {content.curve[0]}, last {content.curve[-1]}"


def describe_score(score):
    """Yield mean IoU everywhere and in bands, and the IoU of each class, percent."""
    yield from provenance(score.stamp, score.digest)
    counts = score.total("all")
    yield f"images      {len(score.names)} of {score.split}, {len(set(score.block))} blocks"
    yield f"mean IoU    {100 * overlap.mean_iou(counts):.2f} % over {overlap.classes_met(counts)} classes"
    for width, band in zip(score.widths, score.total("bands"), strict=True):
        yield f"  ≤ {width:2} px   {100 * overlap.mean_iou(band):.2f} %"
    for name, value in zip(score.class_names, overlap.iou(counts), strict=True):
        yield f"  {name:18} {100 * value:6.2f} %"


def describe_weights(content):
    """Yield every tensor, with its range."""
    tensors, made = content
    yield from provenance(made)
    yield f"tensors     {len(tensors)}, {sum(tensor.numel() for tensor in tensors.values()):,} numbers"
    for name, tensor in tensors.items():
        yield numbers(name, tensor.double().numpy(), str(tensor.dtype).removeprefix("torch."))


def describe_history(epochs):
    """Yield one line for each epoch."""
    for epoch in epochs:
        yield "  ".join(f"{key} {value:.5g}" for key, value in epoch.items() if value is not None)


def describe_journal(entries):
    """Yield how much a search has counted."""
    keys = [json.loads(key) for key, _ in entries]
    images, points = {str(image) for image, _ in keys}, {str(point) for _, point in keys}
    yield f"entries     {len(keys)}: {len(points)} points, {len(images)} images"
    for (image, point), (_, array) in zip(keys[:AT_FIRST], entries, strict=False):
        yield numbers(f"{image} {point}", array)


def describe_table(content):
    """Yield a table of runs or of results, its columns in line."""
    rows, made = content
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
    if made:
        yield from provenance(made)


DESCRIBE = {name.removeprefix("describe_"): function for name, function in globals().items() if "describe_" in name}


def provenance(stamp, digest=None):
    """Yield what a file came from."""
    if digest:
        yield f"digest      {digest}"
    for key, value in stamp.items():
        if value not in ({}, [], "", None) and key != "settings":
            yield f"{key:11} {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"


def over(told, there):
    """Yield a line if not all images were looked at."""
    if told < there:
        yield f"of the first {told} of {there} images:"


def span(sizes):
    """Write the range of sizes (rows, cols)."""
    small, large = np.min(sizes, axis=0), np.max(sizes, axis=0)
    one = f"{small[0]} × {small[1]}"
    return one if (small == large).all() else f"{one} to {large[0]} × {large[1]}"


def shares(counts, class_names):
    """Yield the share of each class among the pixels that have one."""
    whole = max(1, int(counts[: len(class_names)].sum()))
    for label, name in enumerate(class_names):
        yield f"  {name!s:18} {counts[label] / whole:7.2%}"


def numbers(name, array, dtype=None):
    """Write name, shape, type and range of an array."""
    array = np.asarray(array)
    size = " × ".join(map(str, array.shape)) or "one number"
    told = f"  {name:24} {size}, {dtype or array.dtype}"
    if array.size == 1:
        return f"{told}: {array.item():.6g}"
    return f"{told}: min {array.min():.4g}, mean {array.mean():.4g}, max {array.max():.4g}"


def log_probability(store, scores, size):
    """Return log p(class), (C, H, W) float32, of what a store holds of one image."""
    kind, grid = store.attributes["kind"], Grid(**store.attributes["grid"])
    return Unaries(torch.from_numpy(scores.astype(np.float32)), kind, grid).log_probability(*size).numpy()


def draw(kind, content, args):
    """Write the picture of one image."""
    if kind not in ("pack", "unaries", "labels"):
        raise SettingsError("--png", f"a picture of a {kind}", "a pack, unaries or labels", "leave --png out")
    pack = content if kind == "pack" else Pack(args.pack) if args.pack else None
    known = [name for split in pack.splits for name in pack.names(split)] if kind == "pack" else content.names
    if not known or (args.name and args.name not in known):
        raise DataError(args.path, f"no image {args.name or 'at all'}", "one that is there", "choose another")
    name = args.name or known[0]
    sample = pack.sample(name) if pack else None
    shown = [sample.image, panels.labels(sample.truth)] if pack else []
    if kind != "pack":
        scores, attributes = content.read(name)
        found = scores
        if kind == "unaries":
            log_p = log_probability(content, scores, attributes["image_size"])
            found = log_p.argmax(axis=0).astype(np.uint8)
        check_size(found, sample, f"{args.path}, image {name}")
        shown.append(panels.labels(found))
        shown += [panels.entropy(log_p)] if kind == "unaries" else []
        shown += [panels.errors(sample.truth, found)] if pack else []
    with whole_file(args.png) as beside:
        Path(beside).write_bytes(panels.side_by_side(shown))
    print(f"drew        {name} in {args.png}")


def check_size(found, sample, where):
    """Refuse to set a map beside a photograph of another size."""
    if sample is not None and found.shape != sample.truth.shape:
        raise DataError(where, f"a map of {found.shape}", f"{sample.truth.shape} as in --pack", "name its own pack")


def main(argv=None):
    """Run the tool; return its exit status."""
    return stage.main("pipeline.tools.inspect", __doc__, add_arguments, run, argv)


if __name__ == "__main__":
    sys.exit(main())
