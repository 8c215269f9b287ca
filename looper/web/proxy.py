"""Between the page and the Cog server: calls handed through, predictions followed by webhook.

Cog answers no cross-origin requests and cannot be asked how a prediction fares, so the page talks to this
proxy. ``PUT /predictions/<id>`` starts a prediction whose reports come to a webhook on our own address, and
``GET /predictions/<id>/events`` hands them on as Server-Sent Events. With ``Prefer: respond-async`` it waits in line
where Cog says 409, and the events say at which place. The rest passes unchanged, so a client of the plain Cog API
can use this address too.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import Callable
from typing import Any

import httpx
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from looper.web import strict_json
from looper.web.cog_process import CogServer
from looper.web.predictions import DONE, PredictionLog
from looper.web.waiting import BUSY, MOST, Call, WaitingLine, accepted, cancel_until_gone

ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_WEBHOOK = ("webhook", "webhook_events_filter")
LARGEST_BODY = 4 * 2**20  # bytes: a prompt of 100,000 characters, each of them escaped, and room


def problem(status: int, message: str) -> JSONResponse:
    """Say what went wrong in words, in the shape of Cog's own."""
    return JSONResponse({"error": message, "status": "failed"}, status)


class RefusedError(ValueError):
    """A body that is not passed on, and the status that says so."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


async def read_body(request: Request, largest: int = LARGEST_BODY) -> bytes:
    """The request's body of at most `largest` bytes, no more of it read.

    Raises
    ------
    RefusedError
        If there is more.
    """
    parts, size = [], 0
    async for part in request.stream():
        parts.append(part)
        size += len(part)
        if size > largest:
            raise RefusedError(413, f"The body must have at most {largest // 2**20} MiB.")
    return b"".join(parts)


async def _json_object(request: Request) -> dict[str, Any]:
    """The body as a JSON object, which says the same to whoever reads it after us."""
    body = await read_body(request)
    try:
        value, why = strict_json.loads(body), ""
    except ValueError as error:
        value, why = None, f" ({error})"
    if not isinstance(value, dict):
        raise RefusedError(400, f'The body must be a JSON object: {{"input": {{"prompt": ...}}}}{why}.')
    return value


class CogProxy:
    """Hands the page's calls to the Cog server and gathers what its webhook reports.

    Parameters
    ----------
    client : httpx.AsyncClient
        Client whose base URL is the Cog server.
    own_url : str
        This server as the Cog server reaches it, for the webhook.
    child : CogServer, optional
        The process behind `client`, to tell "still starting" from "stopped".
    stopping : callable
        Tells whether this server is about to end, so that followers are let go.
    at_once : int
        Predictions that the Cog server makes at once; the files of so many and a few more are remembered.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        own_url: str,
        child: CogServer | None = None,
        stopping: Callable[[], bool] = lambda: False,
        at_once: int = 1,
    ) -> None:
        self.client = client
        self.child = child
        self.predictions = PredictionLog(keep=at_once + 3)
        self.line = WaitingLine(self._call, self.predictions)
        self.token = secrets.token_urlsafe(16)  # only our own Cog server may report
        self.hook = f"{own_url}/webhook/{self.token}"
        self.stopping = stopping

    def routes(self) -> list[Route]:
        """Routes of the Cog API, the webhook and the event stream."""
        return [
            Route("/openapi.json", self.pass_on),
            Route("/health-check", self.health),
            Route("/predictions", self.predict, methods=["POST"]),
            Route("/predictions/{id}", self.start, methods=["PUT"]),
            Route("/predictions/{id}/cancel", self.cancel, methods=["POST"]),
            Route("/predictions/{id}/events", self.events),
            Route("/webhook/{token}", self.report, methods=["POST"]),
        ]

    async def _send(self, request: Request, body: bytes) -> Response:
        return await self._call(request.method, request.url.path, body, _kept(request))

    async def _call(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Response:
        """What the Cog server says."""
        try:
            reply = await self.client.request(method, path, content=body, headers=headers)
        except httpx.TransportError:
            return problem(
                502, "The model server does not answer: it is starting, or it stopped (see its log)."
            )
        return Response(reply.content, reply.status_code, media_type=reply.headers.get("content-type"))

    async def pass_on(self, request: Request) -> Response:
        """Hand the request through; a caller that hangs up cancels it, as with Cog itself."""
        if not ID.fullmatch(request.path_params.get("id", "x")):
            return problem(404, "No such prediction.")
        try:
            return await self._hand_on(request, await read_body(request))
        except RefusedError as refused:
            return problem(refused.status, str(refused))

    async def predict(self, request: Request) -> Response:
        """Make a prediction and answer with it; no webhook, or a caller could have us call any address."""
        try:
            body = await _json_object(request)
        except RefusedError as refused:
            return problem(refused.status, str(refused))
        plain = {name: value for name, value in body.items() if name not in _WEBHOOK}
        return await self._hand_on(request, json.dumps(plain).encode())

    async def _hand_on(self, request: Request, body: bytes) -> Response:
        call = asyncio.create_task(self._send(request, body))
        gone = asyncio.ensure_future(request.receive())  # after the body, only a disconnect can come
        await asyncio.wait({call, gone}, return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        if not call.done():
            call.cancel()
            return Response(status_code=499)
        return call.result()

    async def health(self, request: Request) -> Response:
        """Cog's health check; STARTING while the child has not opened its port."""
        reply = await self._send(request, b"")
        if reply.status_code == 502 and self.child and self.child.running:
            return JSONResponse({"status": "STARTING"})
        return reply

    async def start(self, request: Request) -> Response:
        """Start a prediction that reports to our webhook, whatever webhook the caller names."""
        key = request.path_params["id"]
        if not ID.fullmatch(key):
            return problem(404, "A prediction's id has 1 to 64 letters, digits, hyphens or underscores.")
        try:
            body = await _json_object(request)
        except RefusedError as refused:
            return problem(refused.status, str(refused))
        if key in self.line:  # the request was sent twice
            return accepted(key)
        body |= {"webhook": self.hook, "webhook_events_filter": ["start", "logs", "completed"]}
        before = self.predictions.begin(key, body.get("input"))
        known = before is not None and before.get("status") not in DONE
        call = Call(key, request.url.path, json.dumps(body).encode(), _kept(request))
        reply = await self._begin(call, may_wait=not known)
        if reply.status_code >= 400:
            self.predictions.take_back(key, before)
        return reply

    async def _begin(self, call: Call, may_wait: bool) -> Response:
        """Have the prediction made, or let it wait in line behind those who do."""
        may_wait = may_wait and "respond-async" in call.headers.get("prefer", "")
        if not (may_wait and len(self.line)):
            reply = await self._call("PUT", call.path, call.body, call.headers)
            if reply.status_code != BUSY or not may_wait:
                return reply
        if self.line.join(call):
            return accepted(call.key)
        return problem(429, f"{MOST} requests are waiting already. Try again in a while.")

    async def cancel(self, request: Request) -> Response:
        """Cancel a prediction; one that waits in line just leaves it."""
        if self.line.leave(request.path_params["id"]):
            return JSONResponse({})
        reply = await self.pass_on(request)
        if reply.status_code < 400:  # it may have come too early to be heeded
            path = request.url.path.removesuffix("/cancel")
            reply.background = BackgroundTask(cancel_until_gone, self._call, path)
        return reply

    async def report(self, request: Request) -> Response:
        """Take Cog's webhook."""
        if not secrets.compare_digest(request.path_params["token"].encode(), self.token.encode()):
            return problem(404, "No such page.")
        try:
            state = await _json_object(request)
        except RefusedError as refused:
            return problem(refused.status, str(refused))
        self.predictions.report(str(state.get("id")), state)
        return Response(status_code=204)

    async def events(self, request: Request) -> Response:
        """Follow a prediction."""
        key = request.path_params["id"]
        if key not in self.predictions.states:
            return problem(404, "No such prediction.")
        stream = self.predictions.follow(key, self.stopping)
        return StreamingResponse(
            stream, media_type="text/event-stream", headers={"cache-control": "no-store"}
        )

    async def watch(self) -> None:
        """End predictions under way when the child stops by itself."""
        if self.child:
            code = await self.child.wait()
            self.line.stop()
            self.predictions.fail_running(
                f"The model server stopped (exit code {code}): see its log, then start it again."
            )


def _kept(request: Request) -> dict[str, str]:
    """The headers that the Cog server shall see."""
    return {k: v for k, v in request.headers.items() if k in ("content-type", "prefer")}
