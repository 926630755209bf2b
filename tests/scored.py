"""A tiny flow from a pack to the page: what lies before the scores is made up, the last three stages are run."""

import shutil
from pathlib import Path

import builders
from tiny import TRAINED, TUNED

from pipeline import aggregate, report, score
from pipeline.formats import tables

SHARPEN = {"net/unary": 0, "net/convcrf": 0.2, "net/fullcrf": 0.0003, "tuned/unary": 0, "tuned/convcrf": 0.3}
AGAINST = {"net/fullcrf": "net/convcrf", "tuned/convcrf": "net/convcrf"}
WIDTHS = (1, 2, 4)


class ScoredRuns:
    """Files of a flow in one folder, laid out as the workflow does; its methods run stages and return exit statuses."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.results = self.folder / "results"
        self.pack = self.results / "pack/tiny.h5"
        self.runs, self.table = self.folder / "runs.tsv", self.folder / "table.tsv"
        self.page = self.folder / "page"

    def copy(self, folder):
        """Take everything to a place where it may be spoilt."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        return ScoredRuns(folder)

    def file(self, stage, run, ending):
        """Return the path of one run's output of a stage."""
        return self.results / f"{stage}/tiny/{run}.{ending}"

    def labels(self, run):
        """Return the path of one run's labels, a single shard."""
        return self.file("refine", f"{run}/0", "zarr")

    def write_runs(self, *runs):
        """Write the run table."""
        lines = [f"tiny\t{run.replace('/', chr(9))}\t{AGAINST.get(run, '-')}\n" for run in runs]
        self.runs.write_text("pack\tnet\tsystem\tagainst\n" + "".join(lines), encoding="utf-8")

    def label(self, run, sharpen=0, noise=1.5, **unaries):
        """Make up the labels of one run and what they rest on, unaries too where there are none."""
        net, system = run.split("/")
        cache = self.results / f"cache/tiny/{net}/0.zarr"
        if not cache.exists():
            builders.unaries(cache, self.pack, noise=noise, net=TRAINED if net == "net" else TUNED, **unaries)
        builders.labels(self.labels(run), self.pack, cache, sharpen=sharpen, system=system)
        learnt = {"state": {}, "curve": []} if system == "unary" else {}
        builders.fitted(self.file("fit", run, "npz"), system=system, **learnt)

    def score(self, run, widths=WIDTHS, output=None):
        """Run `score`."""
        paths = {"pack": self.pack, "labels": self.labels(run)}
        given = paths | {"output": output or self.file("score", run, "h5"), "split": "val"}
        return score.main([*_options(given), "--widths", *map(str, widths)])

    def aggregate(self, output=None):
        """Run `aggregate`."""
        given = {"runs": self.runs, "results": self.results, "output": output or self.table}
        return aggregate.main(_options(given | {"resamples": 200, "seed": 1}))

    def report(self, output=None):
        """Run `report`."""
        given = {"runs": self.runs, "table": self.table, "results": self.results, "output": output or self.page}
        return report.main(_options(given | {"images": 3, "shards": 1}))

    def rows(self):
        """Return the table's lines by "NET/SYSTEM"."""
        return {f"{row['net']}/{row['system']}": row for row in tables.read(self.table)[0]}

    def html(self):
        """Return the text of the page."""
        return (self.page / "index.html").read_text(encoding="utf-8")


def _options(given):
    return [str(word) for name, value in given.items() for word in (f"--{name}", value)]


def make(folder):
    """Make all inputs and run the three stages once."""
    made = ScoredRuns(folder)
    builders.pack(made.pack)
    made.write_runs(*SHARPEN)
    for run, sharpen in SHARPEN.items():
        made.label(run, sharpen)
        assert made.score(run) == 0
    builders.training(made.file("train", "net", "jsonl"), {})
    builders.training(made.file("finetune", "tuned/convcrf", "jsonl"), {"net": "net"}, epochs=3)
    made.file("refine", "net/convcrf/0", "time.tsv").write_text("s\tmax_rss\n1.0\t345.6\n", encoding="utf-8")
    assert made.aggregate() == 0
    assert made.report() == 0
    return made
