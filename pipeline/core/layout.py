"""Where each result lies under the results folder, for the stages that read a whole run table.

The rules of the workflow write the same paths out; ``tests/workflow/test_layout.py`` ties the two.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.errors import SettingsError
from pipeline.core.settings import nearest

COLUMNS = ("pack", "net", "system", "against")
OPTIONAL = ("paper",)
NONE = "-"


@dataclass(frozen=True)
class Run:
    """One line of a run table.

    Attributes
    ----------
    pack, net, system : str
        File names under ``config/packs``, ``config/nets`` and ``config/systems``, without ``.yaml``.
    against : str
        Another run of the same pack, "NET/SYSTEM", to measure the gain over besides the unary; "-" for none.
    paper : str
        Mean IoU in percent that a paper states for this line, to be shown beside it; "-" for none.
    """

    pack: str
    net: str
    system: str
    against: str
    paper: str = NONE

    def pack_file(self, results):
        """Path of the pack."""
        return Path(results, "pack", f"{self.pack}.h5")

    def unaries(self, results, shards):
        """Paths of the unaries, in so many shards."""
        return _shards(Path(results, "cache", self.pack, self.net), shards)

    def fitted(self, results):
        """Path of the fitted system."""
        return Path(results, "fit", self.pack, self.net, f"{self.system}.npz")

    def labels(self, results, shards):
        """Paths of the refined labels, in so many shards."""
        return _shards(Path(results, "refine", self.pack, self.net, self.system), shards)

    def score(self, results):
        """Path of the confusion counts."""
        return Path(results, "score", self.pack, self.net, f"{self.system}.h5")

    def histories(self, results):
        """Paths of the network's training histories that are there: of its training or of its fine-tuning."""
        trained = Path(results, "train", self.pack, f"{self.net}.jsonl")
        tuned = sorted(Path(results, "finetune", self.pack, self.net).glob("*.jsonl"))
        return [path for path in (trained, *tuned) if path.is_file()]


def _shards(folder, count):
    return [folder / f"{shard}.zarr" for shard in range(count)]


def read_runs(path):
    """Read a run table: tab-separated, the columns of `Run`, one run a line; lines that begin with # are comments.

    The column `paper` may be left out.

    Returns
    -------
    tuple of Run

    Raises
    ------
    SettingsError
        If a column is missing or unknown, a run stands twice, `against` or a unary is not in the table, or `paper`
        is no percentage.
    """
    path = Path(path)
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
    except FileNotFoundError:
        raise SettingsError(path, "no such file", "a run table", "check `runs` in config/config.yaml") from None
    table = csv.DictReader(lines, delimiter="\t")
    known = COLUMNS + OPTIONAL
    columns = table.fieldnames or ()
    unknown = [column for column in columns if column not in known]
    if unknown:
        raise SettingsError(
            f"{path}, column '{unknown[0]}'", "an unknown column", "a known one", nearest(unknown[0], known)
        )
    wanted = [column for column in known if column in COLUMNS or column in columns]
    rows = list(table)
    for number, row in enumerate(rows, start=1):
        if set(row) != set(wanted) or not all(row.values()):
            raise SettingsError(
                f"{path}, run {number}",
                f"{row}",
                f"the columns {', '.join(wanted)}, none empty",
                "use tabs; '-' means none",
            )
    runs = tuple(Run(**row) for row in rows)
    _check(runs, path)
    return runs


def _check(runs, path):
    if not runs:
        raise SettingsError(path, "no run", "at least one", "add a line")
    known = {(run.pack, f"{run.net}/{run.system}") for run in runs}
    if len(known) < len(runs):
        raise SettingsError(path, "a run that stands twice", "each run once", "delete one")
    for run in runs:
        if (run.pack, f"{run.net}/unary") not in known:
            raise SettingsError(
                path,
                f"{run.net}/{run.system} on {run.pack} without {run.net}/unary",
                "the unary of every network",
                f"add the run {run.pack}, {run.net}, unary, {NONE}",
            )
        if run.against != NONE and (run.pack, run.against) not in known:
            raise SettingsError(
                path,
                f"against '{run.against}'",
                f"a run of {run.pack} as NET/SYSTEM",
                nearest(run.against, [name for pack, name in known if pack == run.pack]),
            )
        if run.paper != NONE and not _is_percentage(run.paper):
            raise SettingsError(
                f"{path}, {run.net}/{run.system} on {run.pack}",
                f"paper '{run.paper}'",
                "a mean IoU in percent",
                f"mend it; '{NONE}' means none",
            )


def _is_percentage(word):
    try:
        return 0 <= float(word) <= 100
    except ValueError:
        return False
