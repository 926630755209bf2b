"""Work shared among processes, each of which opens what it needs and ends when this one does; or among threads."""

import multiprocessing
import os
from collections import deque
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import torch
from threadpoolctl import threadpool_limits

from pipeline.core import stage

AHEAD = 3  # tasks handed out per process or thread before the first result is waited for

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
        yield from _in_order(pool, lambda task: pool.submit(_work, work, task), tasks, AHEAD * workers)


def in_threads(work, tasks, threads):
    """Yield ``work(task)`` of every task, in order; for work that mostly waits or leaves Python's lock to others."""
    # Small products of matrices, each spread over all cores, would stand in each other's way.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(threads) as pool:
        yield from _in_order(pool, lambda task: pool.submit(work, task), tasks, AHEAD * threads)


def _in_order(pool, submit, tasks, ahead):
    """Yield the results of submitted tasks, some of which are always under way."""
    waiting = deque()
    try:
        for task in tasks:
            waiting.append(submit(task))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(opens, threads, parent):
    global _opened
    stage.end_when(lambda: os.getppid() != parent)
    torch.set_num_threads(threads)
    threadpool_limits(threads, "blas")
    _opened = opens()


def _work(work, task):
    return work(_opened, task)
