"""Fit one system to one network's unaries, on the held-out images.

reads   a pack (held-out split), unaries, a system's settings; perhaps weights that a network inside it starts from
writes  the fitted system: settings, fitted numbers, the curve of the fit; on the way, a journal of what was counted

A system that learns nothing passes its settings through. A search that was killed goes on from its journal. Several
processes, on several machines too, may do a part of its counting each (`--part`) before one fits.
"""

import json
import sys
from functools import partial

import numpy as np

from pipeline import systems
from pipeline.core import device, files, settings, stage, stamp, workers
from pipeline.core.errors import DataError, SettingsError
from pipeline.formats import fitted, packs, unaries, weights
from pipeline.formats.journal import Journal


class Labelled:
    """Labelled images with their unaries, read from disk at each access.

    Parameters
    ----------
    pack : str or Path
    shards : sequence of (str or Path)
        All of the network's unaries.
    names : sequence of str, optional
        Without it all of the held-out split.
    workers, threads : int
        Processes for `each`, and their threads in all.
    keep : callable, optional
        Returns a Journal of what rests on a mapping; without it nothing is remembered.
    """

    def __init__(self, pack, shards, names=None, *, workers=0, threads=1, keep=None):
        self.paths, self.workers, self.threads, self.keep = (pack, shards), workers, threads, keep
        self.drawn, self._known = None, {}
        self.pack, self.cache = packs.Pack(pack), unaries.Cache(shards)
        self.names = self.pack.names("heldout") if names is None else tuple(names)
        if not self.names:
            raise DataError(pack, "no held-out images", "at least one", "pack again with some held out")

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        return self.of(self.names[index])

    def of(self, name):
        """Return (Sample, Unaries) of one image."""
        sample = self.pack.sample(name)
        return sample, self.cache.unaries(name, sample.image)

    def some(self, split, count, seed):
        """Return the same of some images of a split, at random; of all if it has fewer."""
        names = self.pack.names(split)
        drawn = np.random.default_rng(seed).permutation(len(names))[:count]
        names = [names[place] for place in sorted(drawn)]
        return Labelled(*self.paths, names, workers=self.workers, threads=self.threads, keep=self.keep)

    def draw(self, split, count, seed):
        """Return `some` to fit on instead of these; `drawn` tells their names."""
        some = self.some(split, count, seed)
        self.drawn = some.names
        return some

    def each(self, work, rests_on, tasks):
        """Yield (task, result) of every task (name, keys), in order; what was worked out before is only looked up.

        Parameters
        ----------
        work : callable
            Takes Sample, Unaries and keys; returns an array of whole numbers, an entry for every key.
        rests_on : dict
            What the result depends on besides image and keys; JSON.
        tasks : sequence of (str, tuple)
            Image, and keys that are JSON.
        """
        known = self._remembered(rests_on)
        missing = [(name, keys) for name, keys in tasks if any(known.get((name, key)) is None for key in keys)]
        if len(missing) < len(tasks):
            stage.log.info("%d of %d tasks are in the journal", len(tasks) - len(missing), len(tasks))
        opens = partial(Labelled, *self.paths, self.names)
        done = workers.results(partial(_one, work), missing, opens, workers=self.workers, threads=self.threads)
        done = iter(stage.progress(done, len(missing), "tasks"))
        for name, keys in tasks:
            found = [known.get((name, key)) for key in keys]
            if any(values is None for values in found):
                found = next(done)
                if self.keep:
                    known.put([((name, key), values) for key, values in zip(keys, found, strict=True)])
            yield (name, keys), found
        next(done, None)  # lets the processes end

    def _remembered(self, rests_on):
        """Return what was worked out of these, by (name, key): a Journal, or nothing."""
        text = json.dumps(rests_on, sort_keys=True)
        if text not in self._known:
            self._known[text] = self.keep(rests_on) if self.keep else {}
        return self._known[text]


def _one(work, labelled, task):
    name, keys = task
    return work(*labelled.of(name), keys)


def add_arguments(parser):
    """Declare the options."""
    parser.add_argument("--pack", required=True, metavar="H5")
    parser.add_argument("--unaries", required=True, nargs="+", metavar="ZARR", help="all shards")
    parser.add_argument("--settings", required=True, metavar="YAML", help="a file of config/systems")
    parser.add_argument("--backend", required=True, choices=device.BACKENDS)
    parser.add_argument("--threads", required=True, type=stage.positive)
    parser.add_argument(
        "--workers", required=True, type=stage.natural, help="processes that count for a search; 0: this one does"
    )
    parser.add_argument("--seed", required=True, type=stage.seed)
    parser.add_argument("--journal", metavar="FOLDER", help="where a search keeps what it counted, for the next")
    parser.add_argument("--part", type=stage.shard, metavar="K-of-N", help="do this part of a search's counting only")
    parser.add_argument("--output", metavar="NPZ", help="needed unless a part is done")


def run(args):
    """Fit, telling each step, and write the result."""
    if not (args.output or args.part):
        raise SettingsError("--output", "nothing", "a file to write", "give --output FILE, or --part K-of-N")
    wanted = settings.read(args.settings, "systems")
    pack, cache = packs.Pack(args.pack), unaries.Cache(args.unaries)
    cache.belongs_to(pack)
    where = device.setup(args.backend, args.threads)
    start = wanted.get("branch_weights", "none")
    described = stamp.make(
        "fit",
        inputs={"pack": pack.digest, "unaries": cache.digest}
        | ({"weights": files.digest(start)} if start != "none" else {}),
        settings=wanted,
        modules=[systems.module_name(wanted.system)],
        seed=args.seed,
        threads=args.threads,
        device=device.describe(where),
    )
    system = systems.build(wanted, pack.classes, where)
    if start != "none":
        tensors = weights.read_start(start, wanted.scaling)
        stage.log.info("%s: %s", start, weights.load_into(system.branch, tensors, start).report())
    keep = partial(journal, args, described) if args.journal else None
    samples = Labelled(args.pack, args.unaries, workers=args.workers, threads=args.threads, keep=keep)
    if args.part:
        return share(system, wanted, samples, args)
    curve = []
    for step in system.fit(samples, args.seed):
        curve.append(step)
        stage.log.info("%s", " ".join(f"{name} {value:.5g}" for name, value in step.items()))
    if curve:
        described["inputs"]["images"] = list(samples.drawn or samples.names)
    result = fitted.Fitted(wanted, system.state(), curve, described)
    with files.whole_file(args.output) as beside:
        fitted.write(beside, result)
    return None


def journal(args, described, rests_on):
    """Open the journal of what rests on these inputs, this code and `rests_on`."""
    basis = {key: described[key] for key in ("inputs", "source", "versions", "device", "threads")}
    part, parts = args.part or (1, 1)
    return Journal(args.journal, basis | {"rests_on": rests_on}, f"{part}-of-{parts}")


def share(system, wanted, samples, args):
    """Do a part of what a fit begins with; nothing but the journal is written."""
    if "search" not in wanted:
        raise SettingsError("--part", f"system '{wanted.system}'", "one that searches", "leave --part out")
    if not args.journal:
        raise SettingsError("--part", "no --journal", "one that all parts share", "give --journal FOLDER")
    for _ in system.share(samples, args.seed, *args.part):
        pass


def main(argv=None):
    """Run the stage; return its exit status."""
    return stage.main("pipeline.fit", __doc__, add_arguments, run, argv)


if __name__ == "__main__":
    sys.exit(main())
