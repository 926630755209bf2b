"""What must hold before anything runs: style, lint, dry run, environments, configuration errors."""

import re
import subprocess
import sys
import tomllib

import pytest
import yaml
from driver import ROOT, edit, environment, planned, small_copy, snakemake

from pipeline.core import layout


@pytest.mark.parametrize(
    "tool",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["snakefmt", "--check", "Snakefile", "workflow"],
        ["codespell", "README.md", "docs", "pipeline", "workflow", "config", "tests", "benchmarks"],
        ["snakemake", "--lint"],
    ],
    ids=lambda tool: " ".join(tool[:2]),
)
def test_clean(tool):
    done = subprocess.run(tool, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_dry_run_plans_every_stage_from_both_snakefiles(tmp_path):
    folder = small_copy(tmp_path / "run")
    jobs = planned(folder)
    stages = {job.split()[0] for job in jobs}
    assert stages >= {"pack", "train", "cache", "fit", "refine", "finetune", "score", "aggregate", "report"}
    status, text = snakemake(folder, "-n", "--snakefile", str(ROOT / "workflow/Snakefile"))
    assert status == 0 and "train" in text


def test_the_rules_write_where_layout_says(tmp_path):
    folder = small_copy(tmp_path / "run")
    _, text = snakemake(folder, "-n")
    outputs = {path for line in re.findall("output: (.*)", text) for path in line.split(", ")}
    for run in layout.read_runs(ROOT / "config/runs/embedded.tsv"):
        paths = [run.pack_file("results"), run.fitted("results"), run.score("results")]
        paths += [*run.unaries("results", 1), *run.labels("results", 1)]
        assert {str(path) for path in paths} <= outputs


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (
            "config.yaml",
            ("seed:", "sead:"),
            "key 'sead': found an unknown key, expected a known one; did you mean 'seed'",
        ),
        ("systems/convcrf.yaml", ("blur:", "blurr:"), "did you mean 'blur'"),
        ("nets/resnet18.yaml", ("epochs: 2", "epochs: many"), "train.epochs"),
        ("nets/resnet18_convcrf.yaml", ("net: resnet18", "net: noisy_truth"), "expected a network that has weights"),
        ("runs/embedded.tsv", ("\tunary\t-", "\tunray\t-"), "unary"),
        ("packs/embedded.yaml", ("reader: embedded", "reader: embeded"), "did you mean 'embedded'"),
    ],
)
def test_a_wrong_setting_is_told_in_one_line(tmp_path, file, change, message):
    folder = small_copy(tmp_path / "run")
    path = folder / "config" / file
    text = path.read_text(encoding="utf-8")
    assert change[0] in text
    path.write_text(text.replace(change[0], change[1], 1), encoding="utf-8")
    status, printed = snakemake(folder, "-n")
    assert status != 0 and message in printed, printed
    assert "Traceback" not in printed


def test_environments_and_pyproject_ask_for_the_same_versions():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    other_names = {"torch": "pytorch-{}", "snakemake": "snakemake-minimal", "matplotlib": "matplotlib-base"}
    for env, kind in (("cpu", "cpu"), ("gpu", "gpu")):
        listed = yaml.safe_load((ROOT / f"envs/{env}.yaml").read_text(encoding="utf-8"))["dependencies"]
        pins = dict(line.split(" ", 1) for line in listed)
        for wanted in project["dependencies"]:
            name, pin = re.fullmatch(r"([a-z0-9]+)(.*)", wanted).groups()
            assert pins[other_names.get(name, name).format(kind)] == pin


def test_ci_runs_the_test_command_of_the_readme():
    found = re.findall(r"^    (pip install .*pytest)$", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.M)
    assert len(found) == 1
    assert "README.md" in (ROOT / ".ci/run").read_text(encoding="utf-8")


def test_python_m_pipeline_lists_the_stages_in_order():
    done = subprocess.run([sys.executable, "-m", "pipeline"], capture_output=True, text=True, check=True)
    stages = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")]
    assert stages == ["pack", "train", "cache", "fit", "refine", "finetune", "score", "aggregate", "report"]


def test_edit_refuses_keys_that_are_not_there(tmp_path):
    folder = small_copy(tmp_path / "run")
    with pytest.raises(AssertionError, match="no key"):
        edit(folder / "config/config.yaml", nosuchkey="1")
