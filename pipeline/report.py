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

from pipeline import closeups, nets
from pipeline.closeups.subject import Subject
from pipeline.core import files, layout, stage, stamp
from pipeline.core.errors import DataError
from pipeline.core.settings import Settings
from pipeline.figures import gallery, palette, sections, words
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
    parser.add_argument("--shards", required=True, type=stage.positive, metavar="N", help="of unaries and of labels")
    parser.add_argument(
        "--images", required=True, type=stage.natural, metavar="N", help="pictures shown of each network"
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
    for (pack, _), members in stage.progress(networks.items(), len(networks), "networks"):
        members.sort(key=lambda row: row.system != "unary")
        shown.append(show_network(packs[pack], members, rows, made, colours, figures, args))
    quality, pictures, training, origins, *near = zip(*shown, strict=True)
    origins = [pack.stamp for pack in packs.values()] + [one for some in origins for one in some] + [made]
    parts = [
        ("What was run", "".join(show_data(name, pack, rows) for name, pack in packs.items())),
        ("Results", show_results(packs, networks, rows, colours, figures, args)),
        ("By class and near boundaries", "".join(quality)),
        ("Pictures", gallery.difference_key() + "".join(pictures)),
    ]
    for (title, explained, _), found in zip(closeups.KINDS, near, strict=True):
        parts.append((title, element("p", text(explained)) + "".join(found) if any(found) else ""))
    parts += [
        ("Training and fitting", show_networks(packs, networks, args) + "".join(training)),
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


def show_network(pack, members, rows, made, colours, figures, args):
    """Return what the page shows of one network on one pack.

    HTML by class, pictures, training, then the stamps, then HTML of every kind of close-up.
    """
    name = f"{members[0].pack}.{members[0].net}"
    heading = element("h3", text(f"{members[0].net} on {members[0].pack}"))
    scores = {row.system: read_score(row, made, args.results) for row in members}
    stores = {row.system: Labels(row.labels(args.results, args.shards)) for row in members}
    for store in stores.values():
        store.belongs_to(pack)
    subject = Subject(pack, tuple(members), scores, stores, args.results, args.shards)
    ious = {system: 100 * overlap.iou(score.total("all")) for system, score in scores.items()}
    quality = sections.quality(name, pack, ious, [rows[row] for row in members], colours, figures)
    pictures = show_pictures(subject, args.images)
    near = [show(subject) for _, _, show in closeups.KINDS]
    training, stamps = show_training(name, members, pack.class_names, colours, figures, args.results)
    stamps += [store.stamp for store in stores.values()] + [score.stamp for score in scores.values()]
    for score in scores.values():
        score.close()
    return (
        heading + element("div", quality, class_="plots small"),
        heading + gallery.class_key(pack.class_names) + pictures,
        heading + training if training else "",
        stamps,
        *(heading + found if found else "" for found in near),
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


def show_results(packs, networks, rows, colours, figures, args):
    """Return table, gains and statements of every pack."""
    shown = []
    for name in packs:
        members = [row for (pack, _), some in networks.items() if pack == name for row in some]
        stores = [row.labels(args.results, args.shards) for row in members]
        memory = [tables.peak_memory(path.with_suffix(".time.tsv") for path in paths) for paths in stores]
        shown.append(sections.results(name, [rows[row] for row in members], memory, colours, figures))
    return "".join(shown)


def show_pictures(subject, count):
    """Return the gallery of one network, chosen by the gain of its chief system on single images."""
    shown, quality = [], subject.quality
    for index, kind in gallery.choose(subject.gains(subject.chief), count):
        sample = subject.pack.sample(subject.names[index])
        labels = {system: store.labels(sample.name, sample.truth) for system, store in subject.labels.items()}
        captions = {
            system: words.caption(system, values[index], quality["unary"][index]) for system, values in quality.items()
        }
        of_chief = f" {kind} of {subject.chief}" if len(quality) > 1 else ""
        title = text(sample.name) + element("span", text(of_chief))
        shown.append(gallery.scene(sample, labels, captions, title))
    return gallery.scenes(shown, len(subject.labels))


def show_networks(packs, networks, args):
    """Return what the networks are that were built from settings of their own: "" if there are none."""
    told = {}
    for (pack, net), members in networks.items():
        chosen = Settings(Cache(members[0].unaries(args.results, args.shards)).stamp["settings"])
        if "network" in chosen:
            facts = nets.facts(chosen.network, packs[pack].classes)
            told[f"{net} on {pack}"] = facts, training_speed(members[0], chosen, args.results)
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
