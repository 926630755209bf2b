"""What a run table asks for, as calls of stages: what the rules do, for machines that have no Snakemake.

Paths are relative to the working folder, and options are those of workflow/rules.
"""

import shlex
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pipeline.core import layout, settings

RESULTS, SHARDS, SHARD = Path("results"), 1, "1-of-1"
_read = cache(settings.read)


@dataclass(frozen=True)
class Step:
    """One call of a stage.

    Attributes
    ----------
    name : str
        Stage, pack, network and more, as in the path of its log.
    options : tuple of str
    needs, makes : tuple of Path
        What other steps make and it reads; what it makes itself.
    """

    name: str
    options: tuple
    needs: tuple
    makes: tuple

    @property
    def stage(self):
        """The stage's name."""
        return self.name.partition("/")[0]

    @property
    def command(self):
        """The words to start it with."""
        return [sys.executable, "-m", f"pipeline.{self.stage}", *self.options]

    def is_done(self, work):
        """Whether all is there that it makes: outputs appear whole."""
        return all((work / path).exists() for path in self.makes)

    def can_begin(self, work):
        """Whether all is there that it needs."""
        return all((work / path).exists() for path in self.needs)

    def __str__(self):
        return shlex.join(["python", *self.command[1:]])


class Plan:
    """The steps behind one run table, each after those it rests on.

    Parameters
    ----------
    work : Path
        The working folder; its `config` is read.
    runs : str
        The run table, without .tsv.
    backend : {"cpu", "cuda"}
    workers : int
        Processes that prepare a training's images.
    """

    def __init__(self, work, runs, backend, workers):
        self.home, self.backend, self.workers = work / "config", backend, workers
        self.chosen = settings.read(self.home / "config.yaml", "config")
        self.rows = layout.read_runs(self.home / f"runs/{runs}.tsv")
        self._steps = {}
        for row in self.rows:
            self._score(row)
        self._report(runs, self._aggregate(runs))

    @property
    def steps(self):
        """All of them, tuple of Step."""
        return tuple(self._steps.values())

    def histories(self):
        """Return the histories of all trainings by the names of their steps."""
        made = {step.name: path for step in self.steps for path in step.makes if path.suffix == ".jsonl"}
        return dict(sorted(made.items()))

    def _net(self, name):
        return _read(self.home / f"nets/{name}.yaml", "nets")

    def _step(self, stage, of, needs, makes, **options):
        """Keep a step, unless it is known, and return what it makes; an option's value may be several words."""
        name = f"{stage}/{of}"
        words = []
        for option, value in {**options, "log": f"logs/{name}.log"}.items():
            values = value if isinstance(value, (list, tuple)) else [value]
            words += [f"--{option.replace('_', '-')}", *map(str, values)]
        self._steps.setdefault(name, Step(name, tuple(words), tuple(needs), tuple(makes)))
        return makes

    def _where(self, threads):
        return {"backend": self.backend, "threads": self.chosen[threads]}

    def _pack(self, row):
        path = row.pack_file(RESULTS)
        options = {"settings": f"config/packs/{row.pack}.yaml", "seed": self.chosen.seed}
        self._step("pack", row.pack, [], [path], **options, threads=self.chosen.threads, output=path)
        return path

    def _weights(self, row):
        """Train or fine-tune a row's network; return its weights."""
        tuned = self._net(row.net).source == "finetune"
        return (self._finetune if tuned else self._train)(row)

    def _train(self, row):
        net, pack = self._net(row.net), self._pack(row)
        start = [self._weights(_run(row, net.init_from))] if "init_from" in net else []
        weights, history = _outputs(RESULTS / "train" / row.pack / row.net)
        self._step(
            "train",
            f"{row.pack}/{row.net}",
            [pack, *start],
            [weights, history],
            pack=pack,
            net=f"config/nets/{row.net}.yaml",
            **({"start": start} if start else {}),
            **self._where("threads"),
            workers=self.workers,
            seed=self.chosen.seed,
            output=weights,
            history=history,
        )
        return weights

    def _finetune(self, row):
        net, pack = self._net(row.net), self._pack(row)
        first = _run(row, net.net, net.system)
        start, system = self._weights(first), self._fitted(first)
        weights, history = _outputs(RESULTS / "finetune" / row.pack / row.net / net.system)
        fitted = _run(row, row.net, net.system).fitted(RESULTS)
        self._step(
            "finetune",
            f"{row.pack}/{row.net}/{net.system}",
            [pack, start, system],
            [weights, history, fitted],
            pack=pack,
            net=f"config/nets/{row.net}.yaml",
            weights=start,
            system=system,
            **self._where("threads"),
            workers=self.workers,
            seed=self.chosen.seed,
            output=weights,
            output_system=fitted,
            history=history,
        )
        return weights

    def _cache(self, row):
        pack, weights, unaries = self._pack(row), self._weights(row), row.unaries(RESULTS, SHARDS)
        options = {"pack": pack, "net": f"config/nets/{row.net}.yaml", "weights": weights, "shard": SHARD}
        of = f"{row.pack}/{row.net}/0"
        self._step("cache", of, [pack, weights], unaries, **options, **self._where("threads"), output=unaries)
        return unaries

    def _fitted(self, row):
        """Fit a row's system, or fine-tune it with its network; return it."""
        pack, unaries, fitted = self._pack(row), self._cache(row), row.fitted(RESULTS)
        if self._net(row.net).get("system") == row.system:
            return fitted
        self._step(
            "fit",
            f"{row.pack}/{row.net}/{row.system}",
            [pack, *unaries],
            [fitted],
            pack=pack,
            unaries=unaries,
            settings=f"config/systems/{row.system}.yaml",
            **self._where("system_threads"),
            workers=0,  # several would take turns on the one GPU
            seed=self.chosen.seed,
            journal=fitted.with_suffix(".search"),
            output=fitted,
        )
        return fitted

    def _refine(self, row):
        pack, fitted, unaries = self._pack(row), self._fitted(row), row.unaries(RESULTS, SHARDS)
        labels = row.labels(RESULTS, SHARDS)
        options = {"pack": pack, "unaries": unaries, "system": fitted, "split": "val", "shard": SHARD}
        tiles = {"tile": self.chosen.tile, "halo": self.chosen.halo if self.chosen.tile else 0}
        of, needs = f"{row.pack}/{row.net}/{row.system}/0", [pack, *unaries, fitted]
        self._step("refine", of, needs, labels, **options, **self._where("system_threads"), **tiles, output=labels)
        return labels

    def _score(self, row):
        pack, labels, score = self._pack(row), self._refine(row), row.score(RESULTS)
        options = {"pack": pack, "labels": labels, "split": "val", "widths": sorted(self.chosen.widths)}
        of = f"{row.pack}/{row.net}/{row.system}"
        self._step("score", of, [pack, *labels], [score], **options, output=score)

    def _aggregate(self, runs):
        table = RESULTS / f"aggregate/{runs}.tsv"
        made = [path for row in self.rows for path in (row.score(RESULTS), row.fitted(RESULTS))]
        options = {"runs": f"config/runs/{runs}.tsv", "results": RESULTS, "resamples": self.chosen.resamples}
        self._step("aggregate", runs, made, [table], **options, seed=self.chosen.seed, output=table)
        return table

    def _report(self, runs, table):
        folder = RESULTS / "report" / runs
        options = {"runs": f"config/runs/{runs}.tsv", "table": table, "results": RESULTS, "shards": SHARDS}
        made = [folder / "index.html", folder / "figures"]
        self._step("report", runs, [table], made, **options, images=self.chosen.gallery, output=folder)


def _run(row, net, system=layout.NONE):
    """Return the run of another network or system on a row's pack."""
    return layout.Run(row.pack, net, system, layout.NONE)


def _outputs(stem):
    """Return weights and history of a training."""
    return stem.parent / f"{stem.name}.safetensors", stem.parent / f"{stem.name}.jsonl"
