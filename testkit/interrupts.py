"""Exceptions that arrive from outside, at any moment, as a cancel or Ctrl-C does."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interrupted_after(seconds: float, error: type[BaseException]) -> Iterator[None]:
    """Raise `error` in the main thread after `seconds`, unless the block is over by then."""

    def interrupt(*_: object) -> None:
        raise error

    before = signal.signal(signal.SIGUSR2, interrupt)
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGUSR2))
    # an exception within a collection's callbacks, as Hypothesis has one, is nobody's to catch
    callbacks, gc.callbacks[:] = list(gc.callbacks), []
    timer.start()
    try:
        yield
    finally:
        gc.callbacks[:] = callbacks
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        timer.cancel()
        timer.join()
        signal.signal(signal.SIGUSR2, before)
