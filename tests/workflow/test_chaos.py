"""Kills at random moments of the whole workflow; benchmarks/chaos.py makes twenty such runs."""

import os
import shutil
import subprocess
import time

import numpy as np
from driver import command, environment, planned, small_copy, snakemake
from survival import run_with_kills, same_results, stages_in, wait_until


def test_a_second_snakemake_in_the_folder_is_refused(tmp_path):
    folder, target = small_copy(tmp_path / "twice"), "results/cache/embedded/resnet18/0.zarr"
    first = subprocess.Popen(
        command(folder, target), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_until(lambda: stages_in(folder), 60)
    # Without the option it is refused too, by the unfinished file that it finds.
    status, text = snakemake(folder, target, "--rerun-incomplete")
    assert status == 1 and "cannot be locked" in text, text
    assert first.wait() == 0 and (folder / target).is_dir()


def test_a_clock_that_went_back(done, tmp_path):
    """A pack of tomorrow is refused by what would be made of it; the two documented commands mend that."""
    folder = tmp_path / "tomorrow"
    shutil.copytree(done, folder, copy_function=shutil.copy2)
    tomorrow = time.time() + 86400
    os.utime(folder / "results/pack/embedded.h5", (tomorrow, tomorrow))
    # Of files this small Snakemake looks at the content too; of a data set's pack it does not.
    as_large = ("--max-checksum-file-size", "0")
    status, text = snakemake(folder, *as_large)
    assert status == 1 and "pipeline.train: results/pack/embedded.h5: found last changed on" in text, text
    shutil.copytree(done / "results", folder / "results", dirs_exist_ok=True, copy_function=shutil.copy2)
    os.utime(folder / "results/pack/embedded.h5", (tomorrow, tomorrow))
    subprocess.run(["sh", "-c", "find config results -newermt now -exec touch {} +"], cwd=folder, check=True)
    status, text = snakemake(folder, "--touch", *as_large)
    assert status == 0, text
    assert planned(folder, *as_large) == []
    same_results(done / "results", folder / "results")


def test_two_kills_change_nothing(done, tmp_path):
    folder = small_copy(tmp_path / "killed")
    moments = [8.0, 6.0]
    told = run_with_kills(folder, moments, np.random.default_rng(0))
    assert len(told) == len(moments), told
    same_results(done / "results", folder / "results")
