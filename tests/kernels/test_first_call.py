"""Fresh processes: compiled code comes from the disk cache, and two may fill that cache at once."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

FILL = """
import torch
from pipeline.kernels.mean_field_update import mean_field_update
from pipeline.kernels.spatial_gaussian import spatial_gaussian

torch.set_num_threads(1)
unary = torch.linspace(-1, 1, 3 * 9 * 17).view(1, 3, 9, 17)
message = spatial_gaussian(unary, torch.tensor(1.5))
print(mean_field_update(unary, [message], torch.ones(1, 3)).numpy().tobytes().hex())
"""
FIRST = """
import time
import torch
from pipeline.algorithms import gaussian_filters
from pipeline.kernels.mean_field_update import mean_field_update

torch.set_num_threads(1)
features, q = torch.rand(1, 5, 40, 60), torch.rand(1, 3, 40, 60)
start = time.perf_counter()
near = gaussian_filters.lattice(features, "symmetric")(q)
around = gaussian_filters.window(features, 3, "symmetric", False)(q)
mean_field_update(q, [near, around], torch.ones(2, 3))
print(time.perf_counter() - start)
"""


ROOT = Path(__file__).resolve().parents[2]


def started(script, root=ROOT, **environment):
    environment = os.environ | {"PYTHONPATH": str(root)} | environment
    command = [sys.executable, "-c", script]
    return subprocess.Popen(command, cwd=root, env=environment, stdout=-1, stderr=-1, text=True)


def output_of(process):
    out, error = process.communicate(timeout=300)
    assert (process.returncode, error) == (0, "")
    return out


def test_two_processes_fill_one_cache_at_once(tmp_path):
    both = [started(FILL, NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(2)]
    found = [output_of(process) for process in both]
    assert any(tmp_path.rglob("*.nbc"))
    assert found[0] == found[1] == output_of(started(FILL, NUMBA_CACHE_DIR=str(tmp_path)))


def test_an_edit_of_another_file_is_compiled_in(tmp_path):
    shutil.copytree(ROOT / "pipeline", tmp_path / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    before = output_of(started(FILL, tmp_path))
    exponential = tmp_path / "pipeline/kernels/softmax.py"
    source = exponential.read_text(encoding="utf-8")
    assert source.count("r + float32(0.5)") == 1  # of the exponential's polynomial
    exponential.write_text(source.replace("r + float32(0.5)", "r + float32(0.7)"), encoding="utf-8")
    assert output_of(started(FILL, tmp_path)) != before


def test_the_first_call_reads_compiled_code(record_property):
    output_of(started(FIRST))  # so that the cache is there
    seconds = float(output_of(started(FIRST)))
    record_property("seconds", seconds)
    print(f"first lattice, window and update from the cache: {seconds:.2f} s")
    assert seconds < 10
