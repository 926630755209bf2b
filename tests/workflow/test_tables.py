"""Tables of the papers: each a target, planned whole; the first run with two systems; the same runs on other data."""

import pytest
from driver import ROOT, edit, planned, small_copy, snakemake

from pipeline.core import layout, settings
from pipeline.formats import tables

TABLES = sorted(path.stem for path in (ROOT / "config/runs").glob("table_*.tsv"))


def trained_with(run):
    """Return the network that a run's system and network were trained together from, or None."""
    net = settings.read(ROOT / f"config/nets/{run.net}.yaml", "nets")
    return net.net if net.source == "finetune" and net.system == run.system else None


@pytest.mark.parametrize("table", TABLES)
def test_a_table_is_a_target(tmp_path, table):
    folder = small_copy(tmp_path / "run")
    # Weights that the user brings; a plan only asks whether they are there.
    (folder / "data").mkdir()
    residual = ("18-f37072fd", "34-b627a593", "50-0676ba61", "101-63fe2227")
    for name in ("vgg16-397923af.pth", *(f"resnet{each}.pth" for each in residual)):
        (folder / "data" / name).touch()
    jobs = planned(folder, table)
    runs = layout.read_runs(folder / f"config/runs/{table}.tsv")
    for stage in ("refine", "score"):
        shard = ", shard=0" if stage == "refine" else ""
        wanted = [f"{stage} pack={run.pack}, net={run.net}, system={run.system}{shard}" for run in runs]
        assert [job for job in jobs if job.split()[0] == stage] == sorted(wanted)
    # What is trained together with its network is fitted to the network it starts from.
    fits = {(run.pack, trained_with(run) or run.net, run.system) for run in runs}
    wanted = sorted(f"fit pack={pack}, net={net}, system={system}" for pack, net, system in fits)
    assert [job for job in jobs if job.split()[0] == "fit"] == wanted
    pairs = sorted(f"finetune pack={run.pack}, pair={run.net}/{run.system}" for run in runs if trained_with(run))
    assert [job for job in jobs if job.split()[0] == "finetune"] == pairs
    assert {f"aggregate runs={table}", f"report runs={table}", table} <= set(jobs)


def test_a_table_is_planned_alike_when_it_is_the_run(tmp_path):
    folder, table = small_copy(tmp_path / "run"), "table_deeplab_1"
    assert planned(folder, table) == planned(folder, "--config", f"runs={table}", "--", table)


def test_a_table_of_noisy_truth_trains_nothing(tmp_path):
    jobs = planned(small_copy(tmp_path / "run"), "table_convcrf_1")
    assert not [job for job in jobs if job.split()[0] in ("train", "finetune")]


@pytest.mark.parametrize("number", [1, 2])
def test_deeplab_s_tables_on_voc_have_the_runs_of_the_embedded_ones(number):
    names = f"table_deeplab_{number}", f"table_deeplab_{number}_voc2012"
    embedded, voc = (layout.read_runs(ROOT / f"config/runs/{name}.tsv") for name in names)
    assert [run.paper for run in embedded] == [run.paper for run in voc]
    for one, other in zip(embedded, voc, strict=True):
        assert other.net == one.net.replace("deeplab", "deeplab_paper")
        assert other.system == one.system.replace("deeplab", "deeplab_paper")
        small, whole = (settings.read(ROOT / f"config/nets/{run.net}.yaml", "nets") for run in (one, other))
        assert small.network.plain() | {"width": 1.0} == whole.network.plain()
        assert small.train.learns == whole.train.learns


def test_deeplab_as_published():
    """Section 5 of arXiv:1412.7062, and what its solver's file adds."""
    train = settings.read(ROOT / "config/nets/deeplab_paper.yaml", "nets").train
    assert (train.iterations, train.batch, train.learning_rate, train.classifier_rate) == (6000, 20, 1e-3, 10)
    assert train.schedule.plain() == {"name": "step", "every": 2000, "factor": 0.1}
    assert (train.optimiser.plain(), train.weight_decay) == ({"name": "sgd", "momentum": 0.9}, 5e-4)


def test_the_table_on_voc_has_the_runs_of_the_embedded_one():
    names = "table_convcrf_1", "table_convcrf_1_voc2012"
    embedded, voc = (layout.read_runs(ROOT / f"config/runs/{name}.tsv") for name in names)
    assert {run.pack for run in voc} == {"voc2012"}
    # All pairs of pixels of a photograph take minutes on a CPU.
    pairs = zip([run for run in embedded if run.system != "fullcrf_exact"], voc, strict=True)
    assert all((one.net, one.system, one.paper) == (other.net, other.system, other.paper) for one, other in pairs)


def test_a_table_runs_to_its_report(tmp_path):
    folder = small_copy(tmp_path / "run")
    edit(folder / "config/packs/embedded.yaml", train="2", heldout="1", val="4")
    path = folder / "config/runs/table_convcrf_1.tsv"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith("embedded") or "truth\tunary" in line or "paper_5" in line]
    path.write_text("".join(kept), encoding="utf-8")
    status, text = snakemake(folder, "table_convcrf_1")
    assert status == 0, text
    unary, convcrf = tables.read(folder / "results/aggregate/table_convcrf_1.tsv")[0]
    assert (unary["paper_miou"], convcrf["paper_miou"], convcrf["preset"]) == ("51.87", "90.90", "paper")
    page = (folder / "results/report/table_convcrf_1/index.html").read_text(encoding="utf-8")
    assert "in the<br>paper" in page and "convcrf_paper_5" in page
    status, text = snakemake(folder, "table_convcrf_1")
    assert status == 0 and "Nothing to be done" in text, text
