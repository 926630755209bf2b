"""Devices handed out among processes: each its own, given back when a process ends, however it ends."""

import subprocess
import sys

import pytest

SCRIPT = """
import sys, time
from pathlib import Path
from pipeline.core import device
print(device.take(["a", "b", "c"], Path(sys.argv[1])), flush=True)
time.sleep(600)
"""


@pytest.fixture
def start(tmp_path):
    begun = []

    def one():
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        begun.append(process)
        return process, int(process.stdout.readline())

    yield one
    for process in begun:
        process.kill()
        process.communicate()


def test_each_process_takes_one_of_its_own(start):
    processes, places = zip(*(start() for _ in range(3)), strict=True)
    assert places == (0, 1, 2)
    assert start()[1] in (0, 1, 2), "all are held: one is shared"
    processes[1].kill()
    processes[1].wait()
    assert start()[1] == 1
