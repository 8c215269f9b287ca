"""What is known of each prediction, and who waits for news of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

DONE = ("succeeded", "failed", "canceled")


class PredictionLog:
    """The latest state of each prediction, as Cog's webhook told it, and who waits for news of it.

    Parameters
    ----------
    keep : int
        Finished predictions that are remembered, with their files in them.
    """

    def __init__(self, keep: int = 4) -> None:
        self.states: dict[str, dict[str, Any]] = {}
        self.keep = keep
        self._news = asyncio.Event()

    def post(self, key: str, state: dict[str, Any]) -> None:
        """Update the state of `key`, wake its followers and forget the oldest finished predictions.

        What is done stays as it is: webhooks may arrive in another order than they were sent.
        """
        if self.states.get(key, {}).get("status") in DONE:
            return
        self.states[key] = self.states.get(key, {}) | state
        done = [k for k, s in self.states.items() if s.get("status") in DONE and k != key]
        for stale in done[: max(0, len(done) + 1 - self.keep)]:
            del self.states[stale]
        self._news.set()
        self._news = asyncio.Event()

    def report(self, key: str, state: dict[str, Any]) -> None:
        """Take a webhook's word for `key`; of what was forgotten, or never begun, it comes too late."""
        if key in self.states:
            self.post(key, state)

    def begin(self, key: str, given: object) -> dict[str, Any] | None:
        """Note that `key` was asked for with the input `given`; returns what was known of it before.

        A finished prediction starts afresh, one under way goes on: the request may have been sent twice.
        """
        before = self.states.get(key)
        if before is None or before.get("status") in DONE:
            self.states.pop(key, None)
            self.post(key, {"id": key, "status": "starting", "logs": "", "input": given})
        return before

    def take_back(self, key: str, before: dict[str, Any] | None) -> None:
        """Undo `begin`, whose request was refused; nothing is undone that has gone on since."""
        if (
            self.states.get(key, {}).get("status") == "starting"
            and (before or {}).get("status") != "starting"
        ):
            del self.states[key]
            if before is not None:
                self.states[key] = before

    def running(self, key: str) -> dict[str, Any] | None:
        """Return the state of the prediction `key`, if it is under way."""
        state = self.states.get(key, {})
        return None if state.get("status", DONE[0]) in DONE else state

    def fail_running(self, error: str) -> None:
        """End what is under way with `error`: its server is gone and will not report.

        What goes on from a recording has a process of its own, and goes on.
        """
        for key in [key for key in self.states if self.running(key)]:
            if not self.states[key].get("continuing"):
                self.post(key, {"status": "failed", "error": error})

    async def follow(self, key: str, stopping: Callable[[], bool] = lambda: False) -> AsyncIterator[str]:
        """Server-Sent Events: every new state of `key` until it is done."""
        seen = None
        while (state := self.states.get(key)) is not None and not stopping():
            if state is not seen:
                seen = state
                yield f"data: {json.dumps(state)}\n\n"
                continue
            if state.get("status") in DONE:
                return
            try:
                await asyncio.wait_for(self._news.wait(), timeout=1)
            except TimeoutError:
                yield ": still here\n\n"
