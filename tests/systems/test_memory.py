"""What refining one image takes beyond its scores: bounds of docs/kernels.md, in a process of its own."""

import subprocess
import sys

import pytest

HEIGHT, WIDTH, CLASSES = 360, 480, 12
PIXELS = HEIGHT * WIDTH
VOLUME = 4 * PIXELS * CLASSES  # bytes of one score volume
PROGRAM = """
import importlib
import sys
from pathlib import Path

import torch

from pipeline.core import settings

torch.set_num_threads(2)
name, changed = sys.argv[1], dict(pair.split("=") for pair in sys.argv[2:])
preset = settings.read(settings.ROOT / "config" / "systems" / f"{name}.yaml", "systems").plain()
preset |= {key: int(value) if value.isdigit() else value for key, value in changed.items()}
system = importlib.import_module(f"pipeline.systems.{preset['system']}").System.model
model = system(settings.check(preset, "systems", where="a test"), 12, {})


def memory(field):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return 1024 * int(line.split()[1])


def refine(height, width):
    generator = torch.Generator().manual_seed(0)
    # As smooth as a photograph, or more vertices would be touched: every 40 px another colour.
    coarse = torch.rand(1, 3, height // 40, width // 40, generator=generator) * 255
    image = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    scores = torch.randn(1, 12, height, width, generator=generator).log_softmax(dim=1)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is held now
    before = memory("VmRSS")
    with torch.inference_mode():
        model(image, scores)
    return memory("VmHWM") - before


refine(40, 48)  # compiled code is loaded, threads are started
print(refine(360, 480))
"""

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's /proc")


def extra(*arguments):
    """Return the bytes a system takes beyond what it is given, its result among them."""
    command = [sys.executable, "-W", "error", "-c", PROGRAM, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.parametrize(("smoothness", "volumes"), [("lattice", 2), ("separable", 5)])
def test_a_lattice_takes_some_volumes_and_96_bytes_a_pixel(smoothness, volumes):
    # The system may round up to pages of 2 MB, or 12 bytes a pixel: the least of three.
    assert min(extra("fullcrf", f"smoothness={smoothness}") for _ in range(3)) < volumes * VOLUME + 96 * PIXELS


@pytest.mark.parametrize("filter_size", [7, 11])
def test_a_window_takes_its_weights_and_no_weights_times_classes(filter_size):
    weights = 4 * PIXELS * filter_size**2
    assert extra("convcrf", "blur=1", f"filter_size={filter_size}") < weights + 7 * VOLUME < 200e6


WALKS = """
import sys
from pathlib import Path

import torch

from pipeline.kernels.random_walk import random_walk

torch.set_num_threads(2)


def memory(field):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return 1024 * int(line.split()[1])


def walk(side):
    given = [torch.randn(1, channels, side, side).requires_grad_(sys.argv[1] == "gradients") for channels in (64, 21)]
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    out = random_walk(*given, affinity=sys.argv[2])
    if out.requires_grad:
        out.sum().backward()
    return memory("VmHWM") - before


walk(8)
print(walk(64), walk(128))
"""


@pytest.mark.parametrize("affinity", ["product", "distance"])
@pytest.mark.parametrize("step", ["forward", "gradients"])
def test_a_walk_over_16384_positions_stores_no_matrix(step, affinity):
    """P alone would be 1 GiB; four times the positions take four times the memory, not sixteen."""
    command = [sys.executable, "-W", "error", "-c", WALKS, step, affinity]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    small, large = map(int, done.stdout.split())
    assert large < 256 * 2**20
    # Pages of 2 MB and the threads' own blocks do not grow.
    assert large < 6 * small + 8 * 2**20
