"""Predictions that wait until the Cog server has a free place: first come, first served."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from starlette.responses import JSONResponse, Response

from looper.web import strict_json
from looper.web.predictions import PredictionLog

MOST = 100  # bodies of up to 4 MiB are held
RETRY_SECONDS = 0.25
MOST_CANCELS = 20
BUSY = 409  # what Cog says when all its places are taken

Send = Callable[[str, str, bytes, dict[str, str]], Awaitable[Response]]  # method, path, body, headers


@dataclass(frozen=True, eq=False)
class Call:
    """A call to the Cog server that is made later."""

    key: str
    path: str
    body: bytes
    headers: dict[str, str]


class WaitingLine:
    """Who waits, and the task that asks the Cog server again and again on behalf of the first.

    Each one's place, from 1 on, stands in its state as `place` until its turn has come.

    Parameters
    ----------
    send : callable
        Makes a call to the Cog server: (method, path, body, headers) to its answer.
    predictions : PredictionLog
        Where places, cancellations and refusals are told.
    """

    def __init__(
        self,
        send: Send,
        predictions: PredictionLog,
    ) -> None:
        self._send = send
        self._predictions = predictions
        self._calls: deque[Call] = deque()
        self._task: asyncio.Task[None] | None = None

    def __contains__(self, key: str) -> bool:
        return any(call.key == key for call in self._calls)

    def __len__(self) -> int:
        return len(self._calls)

    def join(self, call: Call) -> bool:
        """Wait at the end; False where too many wait already."""
        if len(self._calls) >= MOST:
            return False
        self._calls.append(call)
        self._tell_places()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._serve())
        return True

    def leave(self, key: str) -> bool:
        """Wait no longer; False where `key` did not."""
        left = [call for call in self._calls if call.key == key]
        for call in left:
            self._calls.remove(call)
            self._predictions.post(key, {"status": "canceled"})
        if left:
            self._tell_places()
        return bool(left)

    def stop(self) -> None:
        """Forget who waits."""
        self._calls.clear()
        if self._task is not None:
            self._task.cancel()

    async def _serve(self) -> None:
        while self._calls:
            call = self._calls[0]
            reply = await self._send("PUT", call.path, call.body, call.headers)
            if reply.status_code == BUSY:
                await asyncio.sleep(RETRY_SECONDS)
            elif call in self._calls:
                self._calls.remove(call)
                self._predictions.post(call.key, {"place": None, **_refusal(reply)})
                self._tell_places()
            elif reply.status_code < 400:  # it was cancelled while it was sent
                await cancel_until_gone(self._send, call.path)

    def _tell_places(self) -> None:
        for place, call in enumerate(self._calls, 1):
            self._predictions.post(call.key, {"place": place})


async def cancel_until_gone(send: Send, path: str) -> None:
    """Cancel a prediction until the Cog server knows it no longer.

    It answers 200 and lets the prediction run on where a cancel comes within milliseconds of the start.
    """
    for _ in range(MOST_CANCELS):
        reply = await send("POST", f"{path}/cancel", b"", {})
        if reply.status_code >= 400:
            return
        await asyncio.sleep(RETRY_SECONDS)


def _refusal(reply: Response) -> dict[str, str]:
    """What a refusal makes of the prediction's state; nothing where it was accepted."""
    if reply.status_code < 400:
        return {}
    return {"status": "failed", "error": complaint(bytes(reply.body), reply.status_code)}


def complaint(body: bytes, status: int) -> str:
    """The Cog server's complaint as words for the user.

    Examples
    --------
    >>> complaint(b'{"detail": [{"loc": ["body", "input", "bpm"], "msg": "39 is too low"}]}', 422)
    'bpm: 39 is too low'
    """
    with suppress(ValueError, KeyError, TypeError):
        answer: Any = strict_json.loads(body)
        return str(answer["error"]) if "error" in answer else "\n".join(map(_problem, answer["detail"]))
    return f"The model server answered {status}."


def _problem(entry: Any) -> str:
    place = ".".join(str(part) for part in entry["loc"] if part not in ("body", "input"))
    return f"{place}: {entry['msg']}"


def accepted(key: str) -> JSONResponse:
    """Cog's own answer to a prediction that it takes."""
    return JSONResponse({"id": key, "status": "starting"}, 202)
