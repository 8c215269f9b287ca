"""Between the page and the Cog server: calls handed through, predictions followed by webhook.

Cog answers no cross-origin requests and cannot be asked how a prediction fares, so the page talks to this
relay. ``PUT /predictions/<id>`` starts a prediction whose reports come to a webhook on our own address, and
``GET /predictions/<id>/events`` hands them on as Server-Sent Events. The rest passes unchanged, so a client
of the plain Cog API can use this address too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from looper.web import strict_json

DONE = ("succeeded", "failed", "canceled")
TINY_MODELS = "medium=weights/tiny,large=weights/tiny"
STOP_SECONDS = 10
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Board:
    """The latest state of each prediction, as Cog's webhook told it, and who waits for news of it."""

    def __init__(self, keep: int = 4) -> None:
        self.states: dict[str, dict] = {}
        self.keep = keep
        self._news = asyncio.Event()

    def post(self, key: str, state: dict) -> None:
        """Update the state of `key`, wake its followers and forget the oldest finished predictions."""
        self.states[key] = self.states.get(key, {}) | state
        old = [k for k, s in self.states.items() if s.get("status") in DONE and k != key]
        for stale in old[: max(0, len(self.states) - self.keep)]:
            del self.states[stale]
        self._news.set()
        self._news = asyncio.Event()

    def running(self) -> str | None:
        """Return the id of the prediction under way, if there is one."""
        return next((k for k, s in self.states.items() if s.get("status") not in DONE), None)

    def fail_running(self, error: str) -> None:
        """End what is under way with `error`: its server is gone and will not report."""
        while key := self.running():
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


class CogServer:
    """The Cog server as a child process; use it as an async context manager.

    Parameters
    ----------
    root : Path
        Folder of predict.py, the child's working directory.
    port : int
        Loopback port for the child.
    tiny : bool
        Map every model name to the demo model in weights/tiny.
    """

    def __init__(self, root: Path, port: int, tiny: bool = False) -> None:
        self.root = root
        self.env = {
            **os.environ,
            # Cog starts its worker as plain `python`: without this it may find another one and hang
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
            "PORT": str(port),
            "COG_PREDICT_TYPE_STUB": "predict.py:Predictor",
            **({"LOOPER_MODELS": TINY_MODELS} if tiny else {}),
        }
        self.env.setdefault("LOG_FORMAT", "console")
        self.process: asyncio.subprocess.Process | None = None

    @property
    def running(self) -> bool:
        """Whether the child is alive."""
        return self.process is not None and self.process.returncode is None

    async def wait(self) -> int:
        """Exit code of the child, once it has ended."""
        assert self.process is not None
        return await self.process.wait()

    async def __aenter__(self) -> CogServer:
        schema = self.root / "openapi.json"
        if schema.is_file():  # the runtime looks for it here only, and without it accepts any input
            (self.root / ".cog").mkdir(exist_ok=True)
            shutil.copyfile(schema, self.root / ".cog" / "openapi_schema.json")
        command = [sys.executable, "-m", "cog.server.http", "--host", "127.0.0.1"]
        # a session of its own: Ctrl-C reaches us alone, and we end the child in order
        self.process = await asyncio.create_subprocess_exec(
            *command, cwd=self.root, env=self.env, start_new_session=True
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.process.wait(), STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # a worker that outlived its server
        await self.process.wait()


def problem(status: int, message: str) -> JSONResponse:
    """Say what went wrong in words, in the shape of Cog's own."""
    return JSONResponse({"error": message, "status": "failed"}, status)


class Relay:
    """Hands the page's calls to the Cog server and gathers what its webhook reports.

    Parameters
    ----------
    client : httpx.AsyncClient
        Client whose base URL is the Cog server.
    own_url : str
        This server as the Cog server reaches it, for the webhook.
    child : CogServer, optional
        The process behind `client`, to tell "still starting" from "stopped".
    """

    def __init__(self, client: httpx.AsyncClient, own_url: str, child: CogServer | None = None) -> None:
        self.client = client
        self.child = child
        self.board = Board()
        self.token = secrets.token_urlsafe(16)  # only our own Cog server may report
        self.hook = f"{own_url}/webhook/{self.token}"
        self.stopping: Callable[[], bool] = lambda: False

    def routes(self) -> list[Route]:
        """Routes of the Cog API, the webhook and the event stream."""
        return [
            Route("/openapi.json", self.pass_on),
            Route("/health-check", self.health),
            Route("/predictions", self.pass_on, methods=["POST"]),
            Route("/predictions/{id}", self.start, methods=["PUT"]),
            Route("/predictions/{id}/cancel", self.pass_on, methods=["POST"]),
            Route("/predictions/{id}/events", self.events),
            Route("/webhook/{token}", self.report, methods=["POST"]),
        ]

    async def _send(self, request: Request, body: bytes) -> Response:
        keep = {k: v for k, v in request.headers.items() if k in ("content-type", "prefer")}
        try:
            reply = await self.client.request(request.method, request.url.path, content=body, headers=keep)
        except httpx.TransportError:
            return problem(
                502, "The model server does not answer: it is starting, or it stopped (see its log)."
            )
        return Response(reply.content, reply.status_code, media_type=reply.headers.get("content-type"))

    async def pass_on(self, request: Request) -> Response:
        """Hand the request through; a caller that hangs up cancels it, as with Cog itself."""
        if not _ID.fullmatch(request.path_params.get("id", "x")):
            return problem(404, "No such prediction.")
        call = asyncio.create_task(self._send(request, await request.body()))
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
        if not _ID.fullmatch(key):
            return problem(404, "A prediction's id has 1 to 64 letters, digits, hyphens or underscores.")
        try:
            body, why = strict_json.loads(await request.body()), ""
        except ValueError as error:
            body, why = None, f" ({error})"
        if not isinstance(body, dict):
            return problem(400, f'The body must be a JSON object: {{"input": {{"prompt": ...}}}}{why}.')
        body |= {"webhook": self.hook, "webhook_events_filter": ["start", "logs", "completed"]}
        if key not in self.board.states:  # a repeated PUT must not hide what is known
            self.board.post(key, {"id": key, "status": "starting", "logs": "", "input": body.get("input")})
        reply = await self._send(request, json.dumps(body).encode())
        if reply.status_code >= 400 and self.board.states.get(key, {}).get("status") == "starting":
            del self.board.states[key]
        return reply

    async def report(self, request: Request) -> Response:
        """Take Cog's webhook."""
        if not secrets.compare_digest(request.path_params["token"].encode(), self.token.encode()):
            return problem(404, "No such page.")
        state = await request.json()
        self.board.post(str(state["id"]), state)
        return Response(status_code=204)

    async def events(self, request: Request) -> Response:
        """Follow a prediction."""
        key = request.path_params["id"]
        if key not in self.board.states:
            return problem(404, "No such prediction.")
        stream = self.board.follow(key, lambda: self.stopping())
        return StreamingResponse(
            stream, media_type="text/event-stream", headers={"cache-control": "no-store"}
        )

    async def watch(self) -> None:
        """End predictions under way when the child stops by itself."""
        if self.child:
            code = await self.child.wait()
            self.board.fail_running(
                f"The model server stopped (exit code {code}): see its log, then start it again."
            )
