"""Kills at random moments of the whole workflow; benchmarks/chaos.py makes twenty such runs."""

import numpy as np
from chaos import run_with_kills, same_results
from driver import small_copy


def test_two_kills_change_nothing(done, tmp_path):
    folder = small_copy(tmp_path / "killed")
    moments = [8.0, 6.0]
    told = run_with_kills(folder, moments, np.random.default_rng(0))
    assert len(told) == len(moments), told
    same_results(done / "results", folder / "results")
