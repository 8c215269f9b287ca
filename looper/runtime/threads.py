"""Threads for the work on the loops of a request: one a core, and no threads within threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController

from looper.runtime.cancellation import check_cancelled

MOST = 8
T = TypeVar("T")


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
    with _one_blas_thread:
        try:
            yield pool
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def map_in_threads(
    function: Callable[..., T], *columns: Iterable[Any], done: Callable[[int], None] = lambda count: None
) -> list[T]:
    """Results of `function` over rows, `done` counting in this thread; cancelled, no further one is begun.

    Raises
    ------
    ValueError
        If the columns are not equally long.

    Examples
    --------
    >>> map_in_threads(pow, [2, 3], [3, 2], done=print)
    1
    2
    [8, 9]
    """
    rows, results = list(zip(*columns, strict=True)), []
    with thread_pool() as pool:
        for result in pool.map(lambda row: function(*row), rows):
            results.append(result)
            check_cancelled()
            done(len(results))
    return results


class _BlasLimit:
    """One thread for BLAS in the whole process while anybody is inside: the last one out puts it back."""

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._limit: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._limit = _libraries().limit(limits=1, user_api="blas")
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._limit.restore_original_limits()


_one_blas_thread = _BlasLimit()
