"""Work shared among processes: each opens what it needs by itself, and ends when this one does."""

import multiprocessing
import os
from collections import deque
from concurrent.futures import ProcessPoolExecutor

import torch

from pipeline.core import stage

AHEAD = 3  # tasks handed out per process before the first result is waited for

_opened = None  # what this process, a worker, works with


def results(work, tasks, opens, *, workers, threads):
    """Yield ``work(opened, task)`` of every task, in order.

    Parameters
    ----------
    work : callable
        Can be pickled if there are workers, as can tasks and results.
    tasks : iterable
    opens : callable
        Returns what is worked with; called once in every process that works.
    workers : int
        Processes; at 0 this one works.
    threads : int
        Of all of them together.

    Notes
    -----
    Results do not depend on the number of processes if `work` depends on its arguments alone.
    """
    if workers == 0:
        opened = opens()
        yield from (work(opened, task) for task in tasks)
        return
    share = max(1, threads // workers)
    # Forked processes would inherit threads' locks and open files.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _begin, (opens, share, os.getpid())) as pool:
        waiting = deque()
        try:
            for task in tasks:
                waiting.append(pool.submit(_work, work, task))
                if len(waiting) > AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _begin(opens, threads, parent):
    global _opened
    stage.end_when(lambda: os.getppid() != parent)
    torch.set_num_threads(threads)
    _opened = opens()


def _work(work, task):
    return work(_opened, task)
