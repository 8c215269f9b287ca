"""A real Chromium on the real page server, with a stand-in for Cog behind it.

Playwright drives the browser that the machine has; where either is missing the files here are not collected, and
the summary says so.
"""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import io
import json
import shutil
import socket
import threading
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from looper.files import wav_chunks
from looper.web.library import LoopLibrary
from looper.web.proxy import CogProxy
from looper.web.server import create_app

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
READY = CHROMIUM is not None and importlib.util.find_spec("playwright") is not None
ROOT = Path(__file__).parents[3]
RATE = 32_000
BEATS, BPM = 8, 127.003  # two bars whose beats are no whole samples
FRAMES = round(BEATS * 60 / BPM * RATE)

collect_ignore_glob = [] if READY else ["test_*.py"]


def pytest_terminal_summary(terminalreporter):
    if not READY:
        terminalreporter.write_line("tests/browser: not run, it needs Chromium and pip install playwright")


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
        return JSONResponse(json.loads((ROOT / "openapi.json").read_text()))

    async def health(self, _: Request) -> JSONResponse:
        return JSONResponse({"status": "READY"})

    async def start(self, request: Request) -> JSONResponse:
        body = await request.json()
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
        done = {
            "status": "succeeded",
            "output": {f"variation_{k:02d}": url(k) if k <= n else None for k in range(1, 21)},
            "metrics": {"predict_time": 1.5, "model": "stand-in", "seed": 77},
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

    def __init__(self, cog: StandIn | None = None, library: LoopLibrary | None = None) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        proxy = None
        if cog is not None:
            client = httpx.AsyncClient(transport=httpx.ASGITransport(cog.app), base_url="http://cog")
            proxy = CogProxy(client, self.url, stopping=lambda: self.server.should_exit)
        app = create_app(proxy, library)
        self.server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        self.thread = threading.Thread(target=self.server.run, args=([self.socket],))

    def __enter__(self) -> Site:
        self.thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.server.should_exit = True
        self.thread.join(30)


@pytest.fixture(scope="package")  # while it is there an event loop runs, and other tests' asyncio.run cannot
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        flags = ["--autoplay-policy=no-user-gesture-required", "--no-sandbox"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium):
    """Open a page; at the end nothing may stand in its console."""
    said: list[str] = []
    contexts = []

    def open_page(site: Site, path: str = "/", quiet: bool = True, **how):
        context = chromium.new_context(accept_downloads=True, **how)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        if quiet:
            page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(site.url + path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


@pytest.fixture
def loops(tmp_path):
    """A folder of four loops and its description."""
    folder = tmp_path / "night pack"
    folder.mkdir()
    rows = []
    for k in range(1, 5):
        (folder / f"loop_{k:02d}.wav").write_bytes(wav(k))
        rows.append({"file": f"loop_{k:02d}.wav", "bpm": BPM, "beats": BEATS, "key": "Amin"})
    (folder / "pack.json").write_text(json.dumps({"prompt": "night drive", "loops": rows}))
    return folder


@pytest.fixture
def site(loops):
    with Site(library=LoopLibrary(loops)) as here:
        yield here


@pytest.fixture
def cog():
    return StandIn()


@pytest.fixture
def studio(cog):
    with Site(cog) as here:
        yield here
