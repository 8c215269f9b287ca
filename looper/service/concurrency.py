"""Predictions in threads of their own, awaited by Cog's one event loop.

Cog hands out as many predictions at once as COG_MAX_CONCURRENCY says, one where it is not set. Whatever blocked the
loop would stop them all, and a SystemExit in it would end it while the health check still said READY.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import copy_context
from typing import TypeVar

from looper.runtime.cancellation import cancelled_by

SLOTS_VARIABLE = "COG_MAX_CONCURRENCY"
T = TypeVar("T")


def slots() -> int:
    """Predictions that Cog hands out at once.

    Raises
    ------
    ValueError
        If the environment's number is none: Cog itself would go on with 1.
    """
    text = os.environ.get(SLOTS_VARIABLE, "").strip() or "1"
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ValueError(f"{SLOTS_VARIABLE} must be a whole number from 1 on, got {text!r:.40}")
    return int(text)


class PredictionThreads:
    """A thread for each of `count` predictions at once."""

    def __init__(self, count: int) -> None:
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="prediction")

    async def run(self, function: Callable[[], T], discard: Callable[[T], object]) -> T:
        """Run `function` in a thread with this context, to which Cog ties log lines and metrics.

        Cancelled, it tells the thread by `looper.runtime.cancellation` and returns when that has ended: until
        then the prediction's place is taken. What came too late to be wanted is handed to `discard`.
        """
        cancelled, context = threading.Event(), copy_context()

        def work() -> T:
            with cancelled_by(cancelled):
                return function()

        future = asyncio.get_running_loop().run_in_executor(self._threads, context.run, work)
        try:
            await asyncio.wait({future})
        except asyncio.CancelledError:
            cancelled.set()
            await _ended(future)
            if future.exception() is None:
                discard(future.result())
            raise
        return future.result()


async def _ended(future: asyncio.Future[T]) -> None:
    """Wait for the end of what may not be left, however often this is cancelled."""
    while not future.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait({future})


@contextmanager
def exits_are_errors() -> Iterator[None]:
    """Raise a RuntimeError in place of what would end the process, or Cog's event loop in it."""
    try:
        yield
    except (SystemExit, KeyboardInterrupt, GeneratorExit) as error:
        raise RuntimeError(f"the prediction tried to end the server: {error!r}") from error
