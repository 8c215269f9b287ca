"""The real page server in a thread, with a stand-in for Cog behind it, and loops for it to play."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import socket
import threading

import httpx
import numpy as np
import soundfile
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from looper.files import wav_chunks
from looper.runtime import paths
from looper.web.proxy import CogProxy
from looper.web.served import ServedModel
from looper.web.server import create_app
from looper.web.shelf import PackShelf

RATE = 32_000
MODELS = {
    "medium": ServedModel(here=True, model="tiny", licence="Apache-2.0", demo=True, folder="tiny"),
    "large": ServedModel(here=False, remedy="no weights for 'large': run `looper weights get large`"),
}
BEATS, BPM = 8, 127.003  # two bars whose beats are no whole samples
FRAMES = round(BEATS * 60 / BPM * RATE)


def sound(number: int) -> np.ndarray:
    """Two bars of noise that no shift of it resembles, another for each number: float32 [FRAMES]."""
    return np.random.default_rng(number).uniform(-0.6, 0.6, FRAMES).astype(np.float32)


def wav(number: int = 0, samples: np.ndarray | None = None, rate: int = RATE) -> bytes:
    """A loop's file with tempo and metre."""
    samples = sound(number) if samples is None else samples
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", subtype="FLOAT")  # browsers keep every bit of it
    written = bytearray(buffer.getvalue())
    peak = written.index(b"PEAK") + 12  # the second in which it was written: the same loop is the same file
    written[peak : peak + 4] = bytes(4)
    return wav_chunks.append(
        bytes(written), [wav_chunks.smpl(len(samples), rate), wav_chunks.acid(BEATS, BPM, 4, None)]
    )


class StandIn:
    """What Cog does over HTTP: takes a prediction, reports to the webhook, cancels."""

    def __init__(self) -> None:
        self.inputs: list[dict] = []
        self.fail: str | None = None
        self.hold = False
        self.busy = False
        self.cancelled = asyncio.Event()
        self.tasks: set[asyncio.Task] = set()
        self.app = Starlette(
            routes=[
                Route("/openapi.json", self.schema),
                Route("/health-check", self.health),
                Route("/predictions/{id}", self.start, methods=["PUT"]),
                Route("/predictions/{id}/cancel", self.cancel, methods=["POST"]),
            ]
        )

    async def schema(self, _: Request) -> JSONResponse:
        return JSONResponse(json.loads((paths.PROJECT / "openapi.json").read_text()))

    async def health(self, _: Request) -> JSONResponse:
        return JSONResponse({"status": "READY"})

    async def start(self, request: Request) -> JSONResponse:
        body = await request.json()
        if self.busy:
            return JSONResponse({"detail": "all places are taken"}, 409)
        if body["input"]["bpm"] == 41:
            return JSONResponse({"detail": [{"loc": ["body", "input", "bpm"], "msg": "no such tempo"}]}, 422)
        self.inputs.append(body["input"])
        task = asyncio.create_task(self.work(request.path_params["id"], body))
        self.tasks.add(task)
        return JSONResponse({"id": request.path_params["id"], "status": "starting"}, 202)

    async def cancel(self, _: Request) -> JSONResponse:
        self.cancelled.set()
        return JSONResponse({})

    async def work(self, key: str, body: dict) -> None:
        logs = "candidates:  40%|####      | 203/507 [00:02<00:03, 98.1it/s]\n"
        states = [{"status": "processing", "logs": logs}]
        n = body["input"]["variations"]
        url = lambda k: "data:audio/wav;base64," + base64.b64encode(wav(k)).decode()
        told = "".join(
            f"variation {k:02d}: played at 127.10 BPM, confidence 0.9{k % 10}\n" for k in range(1, n + 1)
        )
        done = {
            "status": "succeeded",
            "logs": logs + told,
            "output": {f"variation_{k:02d}": url(k) if k <= n else None for k in range(1, 21)},
            "metrics": {"predict_time": 1.5, "model": "stand-in", "seed": max(body["input"]["seed"], 77)},
        }
        async with httpx.AsyncClient() as client:
            for state in states:
                await client.post(body["webhook"], json={"id": key, **state})
            if self.hold:
                await self.cancelled.wait()
                done = {"status": "canceled"}
            if self.fail:
                done = {"status": "failed", "error": self.fail}
            await client.post(body["webhook"], json={"id": key, **done})


class Site:
    """The page server in a thread."""

    def __init__(self, cog: StandIn | None = None, library: PackShelf | None = None, port: int = 0) -> None:
        self.socket = socket.create_server(("127.0.0.1", port))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        proxy = None
        if cog is not None:
            client = httpx.AsyncClient(transport=httpx.ASGITransport(cog.app), base_url="http://cog")
            proxy = CogProxy(client, self.url, stopping=lambda: self.server.should_exit)
        app = create_app(proxy, library, models=MODELS if cog else None)
        self.server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        self.thread = threading.Thread(target=self.server.run, args=([self.socket],))

    def __enter__(self) -> Site:
        self.thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.server.should_exit = True
        self.thread.join(30)
