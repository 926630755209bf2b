"""Make one page of all results: table, words, plots, pictures, and what they came from.

reads   a run table, the table of results, packs, unaries, labels, scores, fitted systems, networks' weights and
        histories
writes  a folder: index.html, which holds everything, and figures/, the same plots as single files
"""

import dataclasses
import shutil
import sys
from pathlib import Path

import numpy as np
import torch

from pipeline import nets, systems
from pipeline.algorithms import iterations, potts_grid, prediction
from pipeline.algorithms.refiners import as_batch
from pipeline.core import device, files, layout, stage, stamp
from pipeline.core.errors import DataError
from pipeline.core.settings import Settings
from pipeline.figures import gallery, pairwise, palette, sections, stepwise, walks, words
from pipeline.figures.page import element, fill, text
from pipeline.formats import confusions, fitted, tables, weights
from pipeline.formats.labels import Labels
from pipeline.formats.packs import Pack
from pipeline.formats.unaries import Cache
from pipeline.metrics import overlap

SPLITS = "train heldout val"  # the order of the page; HDF5 has that of the alphabet


def add_arguments(parser):
    """Declare the options."""
    parser.add_argument("--runs", required=True, metavar="TABLE", help="the run table")
    parser.add_argument("--table", required=True, metavar="TABLE", help="the table of results")
    parser.add_argument("--results", required=True, metavar="FOLDER", help="where the runs' files lie")
    parser.add_argument(
        "--images", required=True, type=stage.positive, metavar="N", help="pictures shown of each network"
    )
    parser.add_argument("--output", required=True, metavar="FOLDER", help="of the page")


def run(args):
    """Gather what each section shows, and write the page."""
    runs = layout.read_runs(args.runs)
    rows, made = read_rows(args.table, runs)
    colours, figures = palette.places(dict.fromkeys(["unary", *(row.system for row in runs)])), {}
    packs = {row.pack: Pack(row.pack_file(args.results)) for row in runs}
    networks = {}
    for row in runs:
        networks.setdefault((row.pack, row.net), []).append(row)
    shown = []
    for (pack, net), members in stage.progress(networks.items(), len(networks), "networks"):
        members.sort(key=lambda row: row.system != "unary")
        shown.append(show_network(f"{net} on {pack}", packs[pack], members, rows, made, colours, figures, args))
    quality, pictures, steps, costs, walked, training, origins = zip(*shown, strict=True)
    origins = [pack.stamp for pack in packs.values()] + [one for some in origins for one in some] + [made]
    parts = [
        ("What was run", "".join(show_data(name, pack, rows) for name, pack in packs.items())),
        ("Results", show_results(packs, networks, rows, colours, figures, args.results)),
        ("By class and near boundaries", "".join(quality)),
        ("Pictures", gallery.difference_key() + "".join(pictures)),
        ("Mean field, step by step", element("p", text(stepwise.EXPLAINED)) + "".join(steps) if any(steps) else ""),
        ("Costs between neighbours", element("p", text(pairwise.EXPLAINED)) + "".join(costs) if any(costs) else ""),
        ("Walks", element("p", text(walks.EXPLAINED)) + "".join(walked) if any(walked) else ""),
        ("Training and fitting", show_networks(packs, networks, args.results) + "".join(training)),
        ("Origin", sections.origin(origins)),
    ]
    title = f"Results of {Path(args.runs).stem}"
    write(args.output, fill(title, sections.body(title, lead(runs, made), parts, closing())), figures)


def read_rows(path, runs):
    """Read the table; return its lines by Run, and its stamp."""
    lines, made = tables.read(path)
    found = {(line["pack"], line["net"], line["system"]): line for line in lines}
    rows = {row: found.get((row.pack, row.net, row.system)) for row in runs}
    missing = next((row for row, line in rows.items() if line is None), None)
    if missing is not None:
        where = f"{path}, {missing.net}/{missing.system} on {missing.pack}"
        raise DataError(where, "no such line", "one of every run", "run `aggregate` again")
    return rows, made


def show_network(title, pack, members, rows, made, colours, figures, args):
    """Return what the page shows of one network on one pack: HTML of its seven parts, and the stamps."""
    name = f"{members[0].pack}.{members[0].net}"
    heading = element("h3", text(title))
    scores = {row.system: read_score(row, made, args.results) for row in members}
    stores = {row.system: Labels(row.labels(args.results)) for row in members}
    ious = {system: 100 * overlap.iou(score.total("all")) for system, score in scores.items()}
    lines = [rows[row] for row in members]
    quality = sections.quality(name, pack, ious, lines, colours, figures)
    per_image = {system: quality_of_images(score) for system, score in scores.items()}
    pictures = show_pictures(pack, per_image, scores["unary"].names, stores, args.images)
    gains = gains_of_chief(per_image)
    steps = show_steps(pack, members, scores, gains, args.results)
    costs = show_costs(pack, members, per_image, scores["unary"].names, stores, args.results)
    walked = show_walks(pack, members, scores["unary"].names, gains, args.results)
    training, stamps = show_training(name, members, pack.class_names, colours, figures, args.results)
    stamps += [store.stamp for store in stores.values()] + [score.stamp for score in scores.values()]
    for score in scores.values():
        score.close()
    return (
        heading + element("div", quality, class_="plots small"),
        heading + gallery.class_key(pack.class_names) + pictures,
        heading + steps if steps else "",
        heading + costs if costs else "",
        heading + walked if walked else "",
        heading + training if training else "",
        stamps,
    )


def read_score(row, made, results):
    """Open one run's score and refuse it if the table was made of another."""
    score = confusions.Score(row.score(results))
    if made["inputs"].get(f"{row.pack}/{row.net}/{row.system}") != score.digest:
        raise DataError(score.path, "a score newer than the table", "the one aggregated", "aggregate again")
    return score


def show_data(name, pack, rows):
    """Return what one pack holds."""
    known = sorted(pack.splits, key=SPLITS.find)
    sizes = {split: len(pack.names(split)) for split in known}
    images = next(line["images"] for row, line in rows.items() if row.pack == name)
    return sections.data(name, pack, sizes, f"{images} images")


def show_results(packs, networks, rows, colours, figures, results):
    """Return table, gains and statements of every pack."""
    shown = []
    for name in packs:
        members = [row for (pack, _), some in networks.items() if pack == name for row in some]
        memory = [tables.peak_memory(row.labels(results).with_suffix(".time.tsv")) for row in members]
        shown.append(sections.results(name, [rows[row] for row in members], memory, colours, figures))
    return "".join(shown)


def show_pictures(pack, quality, names, stores, count):
    """Return the gallery of one network, chosen by the gain of its first system on single images."""
    for store in stores.values():
        store.belongs_to(pack)
    shown = []
    for index, kind in gallery.choose(gains_of_chief(quality), count):
        sample = pack.sample(names[index])
        labels = {system: store.labels(sample.name, sample.truth) for system, store in stores.items()}
        captions = {
            system: words.caption(system, values[index], quality["unary"][index]) for system, values in quality.items()
        }
        of_chief = f" {kind} of {chief(quality)}" if len(quality) > 1 else ""
        title = text(sample.name) + element("span", text(of_chief))
        shown.append(gallery.scene(sample, labels, captions, title))
    return gallery.scenes(shown, len(stores))


def chief(quality):
    """Return the first system after the unary, by which images are chosen, of those in the keys."""
    return list(quality)[min(1, len(quality) - 1)]


def gains_of_chief(quality):
    """Return what that system gains on each image, points of mean IoU: (n,)."""
    return quality[chief(quality)][:, 0] - quality["unary"][:, 0]


def quality_of_images(score):
    """Return mean IoU and accuracy of every image by itself, percent: (n, 2)."""
    parts = [np.stack([overlap.mean_iou(p), overlap.accuracy(p)], axis=1) for p in score.parts("all")]
    return 100 * np.concatenate(parts)


def show_steps(pack, members, scores, gains, results):
    """Return what the iterations of mean field do to one image, of the first system that runs it; "" if none does.

    The image is the one that the first system gains most on, the class the one that gains most in it.
    """
    row, system = next(built(members, pack, results, iterations.are_in), (None, None))
    if row is None:
        return ""
    index = gallery.choose(gains, 1)[0][0]
    sample = pack.sample(scores["unary"].names[index])
    label = most_gained(*(counts_of(scores[name], index) for name in ("unary", row.system)))
    unaries = read_unaries(row, pack, results).unaries(sample.name, sample.image)
    numbers, steps = stepwise.shown(system.settings.iterations), []
    for number, after in zip(numbers, iterations.scores_after(system, sample.image, unaries, numbers), strict=True):
        counts = overlap.confusion(sample.truth, after.max(dim=0).indices.byte().numpy(), pack.classes)
        belief = after.softmax(dim=0)[label]
        steps.append((number, after[label].numpy(), belief.numpy(), 100 * overlap.iou(counts)[label]))
    title = text(sample.name) + element("span", text(f" {pack.class_names[label]}, by {row.system}"))
    return stepwise.scene(sample, label, steps, title)


def built(members, pack, results, wanted):
    """Yield those runs, each with its fitted system, whose system is wanted."""
    where = device.setup("cpu", threads=1)
    for row in members:
        given = fitted.read(row.fitted(results))
        system = systems.build(given.settings, pack.classes, where, given.state)
        if wanted(system):
            yield row, system


def show_costs(pack, members, quality, names, stores, results):
    """Return the costs of neighbours' jumps, of the systems that have them, each on the image it gains most on."""
    shown = []
    for row, system in built(members, pack, results, lambda system: hasattr(getattr(system, "module", None), "edges")):
        gains = quality[row.system][:, 0] - quality["unary"][:, 0]
        sample = pack.sample(names[gallery.choose(gains, 1)[0][0]])
        with torch.inference_mode():
            edges = system.module.edges(torch.from_numpy(sample.image).permute(2, 0, 1)[None].float())
        labels = (stores[name].labels(sample.name, sample.truth) for name in ("unary", row.system))
        title = text(sample.name) + element("span", text(f" by {row.system}"))
        shown.append(pairwise.scene(sample, *labels, potts_grid.costs(edges)[0].numpy(), title))
    return "".join(shown)


def show_walks(pack, members, names, gains, results):
    """Return what random walks do to one image, the first system's best: the network's own, and those of systems."""
    sample, shown = pack.sample(names[gallery.choose(gains, 1)[0][0]]), ""
    for path in members[0].histories(results)[:1]:
        file = path.with_suffix(".safetensors")
        chosen = Settings(weights.read_stamp(file)["settings"])
        if chosen.get("network", {}).get("walks"):
            network = nets.build(chosen.network, pack.classes).eval()
            network.load_state_dict(weights.read(file)[0])
            images = prediction.as_input(sample.image, chosen.scaling, torch.device("cpu"))
            shown += walked_scene(sample, network.walked, (images,), chosen.network.walks, members[0].net)
    for row, system in built(members, pack, results, lambda system: hasattr(getattr(system, "module", None), "walked")):
        unaries = read_unaries(row, pack, results).unaries(sample.name, sample.image)
        given = as_batch(sample.image, unaries, system.device)
        shown += walked_scene(sample, system.module.walked, given, system.settings.walks, row.system)
    return shown


def walked_scene(sample, walked, given, levels, name):
    """Return one image's diffusion, by what returns the `Walked` of what is given."""
    with torch.inference_mode():
        found = walked(*given)
        before, _, *after = (each.byte().numpy() for each in found.labels(sample.truth.shape))
        pixels = walks.places(sample.truth, before, after[-1])
        rows = found.rows(torch.tensor([found.position(pixel, sample.truth.shape) for pixel in pixels]))
    each = zip(levels, zip(*(share.tolist() for share in found.mixing), strict=True), after, rows, strict=True)
    steps = [
        (f"walk {number}, {level}", mixing, labels, row[0].numpy())
        for number, (level, mixing, labels, row) in enumerate(each, start=1)
    ]
    maps = before, found.influence()[0].numpy(), found.importance[0, 0].numpy()
    return walks.scene(sample, pixels, maps, steps, text(sample.name) + element("span", text(f" by {name}")))


def counts_of(score, index):
    """Return the counts of one image, (C, C)."""
    return np.concatenate(list(score.parts("all")))[index]


def most_gained(before, after):
    """Return the class of the truth whose IoU grows most from one table of counts (C, C) to the other."""
    grown = overlap.iou(after) - overlap.iou(before)
    return int(np.where(before.sum(axis=1) > 0, grown, -np.inf).argmax())


def read_unaries(row, pack, results):
    """Open one network's unaries."""
    paths = row.unaries(results)
    if not paths:
        where = f"{results}, {row.net} on {row.pack}"
        raise DataError(where, "no unaries", "those that the labels were made of", "run `cache` again")
    cache = Cache(paths)
    cache.belongs_to(pack)
    return cache


def show_networks(packs, networks, results):
    """Return what the networks are that were built from settings of their own: "" if there are none."""
    told = {}
    for (pack, net), members in networks.items():
        paths = members[0].unaries(results)
        chosen = Settings(Cache(paths).stores[0].stamp["settings"]) if paths else {}
        if "network" in chosen:
            facts = nets.facts(chosen.network, packs[pack].classes)
            told[f"{net} on {pack}"] = facts, training_speed(members[0], chosen, results)
    return sections.networks(told) if told else ""


def training_speed(row, chosen, results):
    """Return images a second in the steps of a network's training, or None if it was not trained here."""
    epochs = [epoch for path in row.histories(results) for epoch in tables.read_history(path)]
    seconds = sum(epoch.get("seconds", 0) for epoch in epochs)
    return epochs[-1]["steps"] * chosen.train.batch / seconds if seconds and "train" in chosen else None


def show_training(name, members, class_names, colours, figures, results):
    """Return how one network was trained and its systems fitted, and the stamps of the fits."""
    histories = {path.stem: tables.read_history(path) for path in members[0].histories(results)}
    shown, folded, stamps, curves = sections.training(name, histories, figures), "", [], {}
    shown += sections.stages(name, trainings_of(members[0], results), figures)
    for row in members:
        if not row.fitted(results).is_file():
            continue
        found = fitted.read(row.fitted(results))
        place = colours[row.system]
        file_name = f"{name}.{row.system}.fit"
        shown += sections.fitting(file_name, row.system, found.curve, place, figures)
        curves[row.system] = found.curve
        penalty = found.state.get("compatibility")
        if penalty is not None and np.ptp(penalty - (1 - np.eye(len(class_names)))) > 0:
            place = f"{name}.{row.system}.compatibility"
            shown += sections.compatibility(place, row.system, penalty, class_names, figures)
        folded += sections.parameters(row.system, found.settings, found.state)
        stamps.append(found.stamp)
    shown += sections.watched(f"{name}.fits", curves, colours, figures)
    return (element("div", shown, class_="plots small") if shown else "") + folded, stamps


def trainings_of(row, results):
    """Return (network, history) of a run's network and of all that it started from, the first one first."""
    found = []
    while row is not None and (paths := row.histories(results)):
        found.insert(0, (row.net, tables.read_history(paths[0])))
        chosen = weights.read_stamp(paths[0].with_suffix(".safetensors"))["settings"]
        before = chosen.get("init_from", chosen.get("net"))
        row = dataclasses.replace(row, net=before) if before else None
    return found


def lead(runs, made):
    """Say in one line what the page is about."""
    counts = [len({getattr(row, key) for row in runs}) for key in ("pack", "net", "system")]
    kinds = ("data set", "network", "system")
    told = ", ".join(f"{count} {kind}{'s' * (count > 1)}" for count, kind in zip(counts, kinds, strict=True))
    return text(
        f"{len(runs)} runs: {told}. Intervals from {made['resamples']} bootstrap resamples, "
        f"seed {made['seed']}. Commit {made['commit']}."
    )


def closing():
    """Return the last line of the page."""
    made = stamp.make("report", inputs={})
    return text(f"Made by {made['project']}, commit {made['commit']}. All numbers: the table of `aggregate`.")


def write(path, html, figures):
    """Write the folder whole or not at all."""
    beside = files.partial(path)
    shutil.rmtree(beside, ignore_errors=True)
    (beside / "figures").mkdir(parents=True)
    for name, svg in figures.items():
        (beside / "figures" / name).write_text(svg, encoding="utf-8")
    (beside / "index.html").write_text(html, encoding="utf-8")
    files.move_folder(beside, path)
    stage.log.info("%s: %.1f MB", Path(path) / "index.html", len(html.encode()) / 1e6)


def main(argv=None):
    """Run the stage; return its exit status."""
    return stage.main("pipeline.report", __doc__, add_arguments, run, argv)


if __name__ == "__main__":
    sys.exit(main())
