"""Work in several processes: the same results in the same order, faults passed on, no process left behind."""

import os
import subprocess
import sys
import time
from functools import partial

import psutil
import pytest
import threadpoolctl
import torch

from pipeline.core import workers
from pipeline.core.errors import DataError


def opens(value):
    return {"value": value, "process": os.getpid()}


def work(opened, task):
    if task == "fault":
        raise DataError("here", "a fault", "none", "do something")
    return opened["value"] * task, os.getpid(), torch.get_num_threads()


@pytest.mark.parametrize("processes", [0, 2])
def test_results_come_in_order(processes):
    found = list(workers.results(work, range(20), partial(opens, 3), workers=processes, threads=2))
    assert [value for value, _, _ in found] == [3 * task for task in range(20)]
    others = {process for _, process, _ in found} - {os.getpid()}
    assert len(others) <= processes
    assert bool(others) == bool(processes)
    if processes:
        assert {threads for _, _, threads in found} == {1}
        assert not any(psutil.pid_exists(process) for process in others)


@pytest.mark.parametrize("processes", [0, 1])
def test_a_fault_of_a_worker_is_one_of_the_stage(processes):
    with pytest.raises(DataError, match="here: found a fault, expected none; do something"):
        list(workers.results(work, [1, "fault", 2], partial(opens, 3), workers=processes, threads=1))


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_give_results_in_order_with_one_thread_for_products(threads):
    def find(task):
        time.sleep(0.01 * (task % 3))
        return task, [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]

    with threadpoolctl.threadpool_limits(2, "blas"):
        found = list(workers.in_threads(find, range(20), threads))
        assert set(find(0)[1]) == {2}, "as many as before, when they are done"
    assert [task for task, _ in found] == list(range(20))
    assert {count for _, counts in found for count in counts} == {1}


def test_a_fault_in_a_thread_ends_the_others_work():
    begun = []

    def work(task):
        begun.append(task)
        if task == 2:
            raise DataError("here", "a fault", "none", "do something")

    with pytest.raises(DataError, match="here: found a fault"):
        list(workers.in_threads(work, range(1000), 2))
    assert len(begun) < 20


SCRIPT = """
import os, sys, time
sys.path.insert(0, {tests!r})
from functools import partial
import test_workers
from pipeline.core import workers

def slow(opened, task):
    print(os.getpid(), flush=True)
    time.sleep(600)

if __name__ == "__main__":
    list(workers.results(slow, range(8), partial(test_workers.opens, 1), workers=2, threads=2))
"""


def test_workers_end_with_a_killed_parent(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(SCRIPT.format(tests=os.path.dirname(__file__)))  # noqa: PTH120
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        children = [int(parent.stdout.readline()) for _ in range(2)]
        parent.kill()
    deadline = time.monotonic() + 20
    while any(psutil.pid_exists(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not any(psutil.pid_exists(child) for child in children)
