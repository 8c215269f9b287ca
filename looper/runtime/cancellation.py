"""Cancelling what runs in a thread: whoever waits there looks now and then whether the answer is still wanted.

An exception that is thrown into a thread from outside can strike between taking a lock and the block that gives it
back; where many share an engine, that would stop them all.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_event: ContextVar[threading.Event | None] = ContextVar("cancelled", default=None)


class Cancelled(BaseException):
    """Nobody wants the answer any more."""


@contextmanager
def cancelled_by(event: threading.Event) -> Iterator[None]:
    """Have `check_cancelled` raise in this block once `event` is set.

    Examples
    --------
    >>> event = threading.Event()
    >>> with cancelled_by(event):
    ...     check_cancelled()
    """
    token = _event.set(event)
    try:
        yield
    finally:
        _event.reset(token)


def check_cancelled() -> None:
    """Raise Cancelled where the work of this context is no longer wanted."""
    event = _event.get()
    if event is not None and event.is_set():
        raise Cancelled
