"""Turn the counts of all runs into one table: quality, gain with its interval, share changed, time.

reads   a run table, the score and the fitted system of every run
writes  a table, one line per run

Gains are points of mean IoU with a 95 % paired bootstrap interval over images (blocks of a video where there are
any): over the unary of the same network, and over the run named in `against`.
"""

import sys
from statistics import median

import numpy as np

from pipeline.core import layout, stage, stamp
from pipeline.core.errors import DataError
from pipeline.formats import confusions, fitted, tables
from pipeline.metrics import overlap
from pipeline.metrics.bootstrap import paired_difference

LITTLE, MUCH = 0.1, 20.0  # percent of pixels changed below or above which a system deserves a look


def add_arguments(parser):
    """Declare the options."""
    parser.add_argument("--runs", required=True, metavar="TABLE", help="the run table")
    parser.add_argument("--results", required=True, metavar="FOLDER", help="where the scores lie")
    parser.add_argument("--resamples", required=True, type=stage.positive, metavar="N", help="of the bootstrap")
    parser.add_argument("--seed", required=True, type=stage.seed, metavar="N", help="of the bootstrap")
    parser.add_argument("--output", required=True, metavar="TABLE", help="the table, tab-separated")


def run(args):
    """Write one line for each run."""
    runs = layout.read_runs(args.runs)
    inputs, rows = {}, []
    for row in stage.progress(runs, len(runs), "runs"):
        score = confusions.Score(row.score(args.results))
        inputs[f"{row.pack}/{row.net}/{row.system}"] = score.digest
        own = margins(score)
        rows.append(describe(row, score, own, args) | gains(row, score, own, args))
        rows[-1]["note"] = note(row, score, own, rows[-1], args)
        score.close()
    columns = list(rows[0])
    other = next((row for row in rows if list(row) != columns), None)
    if other is not None:
        raise DataError(
            f"{args.runs}, {other['net']}/{other['system']} on {other['pack']}",
            "other band widths than the first run's",
            "one set of widths for the whole table",
            "run `score` again with the same widths",
        )
    made = stamp.make("aggregate", inputs=inputs, resamples=args.resamples, seed=args.seed)
    tables.write(args.output, rows, made)


def describe(row, score, own, args):
    """Return the columns of one run, whose margins are `own`, that need no other run; shares in percent."""
    counts = score.total("all")
    bands = score.total("bands")
    columns = {
        "pack": row.pack,
        "net": row.net,
        "system": row.system,
        "preset": score.settings.get("preset", layout.NONE),
        "images": str(len(score.names)),
        "classes": str(int(overlap.classes_met(counts))),
        "miou": percent(overlap.mean_iou(counts)),
        "paper_miou": "" if row.paper == layout.NONE else row.paper,
        "category_miou": category_miou(score, counts),
        "accuracy": percent(overlap.accuracy(counts)),
        "class_accuracy": percent(overlap.class_accuracy(counts)),
        "fw_iou": percent(overlap.frequency_weighted_iou(counts)),
        "exact_miou": percent(overlap.mean_iou(score.total("exact"))) if score.has_exact else "",
        "unseen_miou": unseen_miou(score, own, fitted.read(row.fitted(args.results)).stamp["inputs"].get("images", ())),
    }
    for name, measure in (("miou", overlap.mean_iou), ("accuracy", overlap.accuracy)):
        for width, band in zip(score.widths, bands, strict=True):
            columns[f"{name}_band_{width}"] = percent(measure(band))
    columns["changed_percent"] = percent(score.per_image("changed").mean())
    columns["gap_percent"] = f"{100 * gaps(score).mean():.5f}" if score.has_certificate else ""
    columns["seconds_per_image"] = f"{median(score.per_image('seconds')):.4f}"
    return columns


def unseen_miou(score, own, seen):
    """Return the mean IoU of the images that the system was not fitted on; empty if those are all, or none."""
    unseen = np.array([name not in seen for name in score.names])
    return percent(overlap.mean_iou_of(own[unseen].sum(axis=0))) if 0 < unseen.sum() < len(unseen) else ""


def category_miou(score, counts):
    """Return the mean IoU of the pack's categories; empty if it has none."""
    groups = overlap.numbered(score.categories, score.class_names)
    return percent(overlap.category_mean_iou(counts, groups)) if groups else ""


def gaps(score):
    """Return how far each image's energy may be above the least one, as a share of the magnitude of its bound."""
    energy, bound = (score.per_image(key) for key in confusions.CERTIFICATE)
    return (energy - bound) / np.maximum(np.abs(bound), np.finfo(float).tiny)


def gains(row, score, own, args):
    """Return the gain over the unary and over `against`, each with the ends of its interval, in points."""
    unary = layout.NONE if row.system == "unary" else f"{row.net}/unary"
    return {
        **gain("gain", unary, row, score, own, args),
        "against": row.against,
        **gain("against_gain", row.against, row, score, own, args),
    }


def gain(name, other, row, score, own, args):
    """Return the columns of the gain over the run `other`, "NET/SYSTEM"; empty if that is "-"."""
    keys = (name, f"{name}_low", f"{name}_high")
    if other == layout.NONE:
        return dict.fromkeys(keys, "")
    net, system = other.split("/")
    reference = confusions.Score(layout.Run(row.pack, net, system, layout.NONE).score(args.results))
    score.compares_with(reference)
    found = difference(score, own, margins(reference), args)
    reference.close()
    return dict(zip(keys, map(percent, (found.value, found.low, found.high)), strict=True))


def difference(score, own, other, args):
    """Return the bootstrap difference of mean IoU between the margins of a score and those of another run."""
    blocks = score.block if score.block != score.names else None
    return paired_difference(own, other, resamples=args.resamples, seed=args.seed, blocks=blocks)


def margins(score):
    """Return `overlap.marginals` of every image, (n, 3, C)."""
    return np.concatenate([overlap.marginals(part) for part in score.parts("all")])


def note(row, score, own, columns, args):
    """Say what a reader of the line must know, and warn of it: "untrained", "changes little", "changes much"."""
    notes = []
    constant = one_class_everywhere(own)
    if row.system == "unary" and not difference(score, own, constant, args).low > 0:
        notes.append("untrained")
        stage.log.warning("warning: %s on %s is not better than its most frequent class everywhere", row.net, row.pack)
    changed = float(columns["changed_percent"])
    if row.system != "unary" and not LITTLE <= changed <= MUCH:
        notes.append("changes little" if changed < LITTLE else "changes much")
        stage.log.warning(
            "warning: %s on %s, %s changes %.3f %% of the pixels; usual are %g to %g: look at its settings "
            "and at the kind of the unaries",
            *(row.net, row.pack, row.system, changed, LITTLE, MUCH),
        )
    return ", ".join(notes)


def one_class_everywhere(own):
    """Return the margins (n, 3, C) of the labelling that gives all pixels the truth's most frequent class."""
    truth = own[:, 1]
    frequent = truth.sum(axis=0).argmax()
    constant = np.zeros_like(own)
    constant[:, 1] = truth
    constant[:, 0, frequent] = truth[:, frequent]
    constant[:, 2, frequent] = truth.sum(axis=1)
    return constant


def percent(share):
    """Write a share as a percentage with three decimals, empty if it is NaN."""
    return "" if np.isnan(share) else f"{100 * share:z.3f}"


def main(argv=None):
    """Run the stage; return its exit status."""
    return stage.main("pipeline.aggregate", __doc__, add_arguments, run, argv)


if __name__ == "__main__":
    sys.exit(main())
