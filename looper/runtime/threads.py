"""Threads for the work on the loops of a request: one a core, and no threads within threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache

from threadpoolctl import ThreadpoolController

MOST = 8


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@lru_cache(maxsize=1)
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


@contextmanager
def thread_pool() -> Iterator[ThreadPoolExecutor]:
    """Lend a pool of threads; what has not begun when the block ends is cancelled.

    Inside the block a matrix product of NumPy keeps to its own thread: BLAS would split each of them over
    all cores again, and its threads wait for each other at full speed.
    """
    pool = ThreadPoolExecutor(max_workers=min(MOST, cores()))
    with _libraries().limit(limits=1, user_api="blas"):
        try:
            yield pool
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
