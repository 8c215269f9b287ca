"""Other work for the thread that owns a device: texts, audio prompts, waveforms, likelihoods."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as StillRunning
from typing import Any

from looper.runtime.cancellation import check_cancelled

POLL_SECONDS = 0.05  # between a waiting caller's looks at its progress


class DeviceJobs:
    """A queue of functions, each with the future of what it returns; jobs join from any thread."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, function: Callable[[], Any]) -> Future[Any]:
        """Queue a function; its future may be cancelled until its turn comes."""
        future: Future[Any] = Future()
        self._waiting.append((future, function))
        return future

    def fail(self, error: BaseException) -> None:
        """Let all that waits end with an error."""
        while self._waiting:
            future, _ = self._waiting.popleft()
            if future.set_running_or_notify_cancel():
                future.set_exception(error)

    def work_off(self, seconds: float | None, run: Callable[[Callable[[], Any]], Any]) -> None:
        """Run what waits, first come, first served: all of it, or, where a time is named, until that has passed."""
        started = time.perf_counter()
        while self._waiting:
            future, function = self._waiting.popleft()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(run(function))
                except BaseException as error:
                    future.set_exception(error)
            if seconds is not None and time.perf_counter() - started > seconds:
                return


def result_of(future: Future[Any]) -> Any:
    """A future's result, waited for so that a signal or a cancellation can reach this thread."""
    while True:
        try:
            return future.result(POLL_SECONDS)
        except StillRunning:
            if future.done():  # a moment ago; or the timeout was the work's own
                return future.result()
            check_cancelled()
