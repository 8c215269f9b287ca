"""Variations of a recording that the page hands over: `looper vary` in a process of its own.

The contract of the API takes no audio, so this is a way of the page's own: ``POST /continuations/<id>?prompt=...&bpm=...``
with the recording as its body starts one, and the prediction's events tell what comes of it, as of any other.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from looper.files.formats import MEDIA_TYPES
from looper.runtime.children import guarded
from looper.web.predictions import PredictionLog
from looper.web.proxy import ID, RefusedError, problem, read_body
from looper.web.waiting import accepted

LARGEST_RECORDING = 64 * 2**20  # bytes, as of a file of a library
MOST_READ = 3  # recordings at once, which are held until one has begun
_OPTIONS = {"bpm": "--bpm", "variations": "--variations", "seed": "--seed", "output_format": "--format"}
_COMMAND = (sys.executable, "-m", "looper", "vary", "--json", "--include-source")

_FRAME = " ╭─╮│╰╯"


class Continuations:
    """Makes variations of recordings, one recording at a time.

    Parameters
    ----------
    predictions : PredictionLog
        Where what comes of them is told.
    models : mapping
        The model that plays under each name of the API: what `looper vary --model` takes.
    """

    def __init__(self, predictions: PredictionLog, models: Mapping[str, str]) -> None:
        self._predictions = predictions
        self._models = models
        self._task: asyncio.Task[None] | None = None
        self._key = ""
        self._reading = 0

    def routes(self) -> list[Route]:
        """The ways to start one and to end it."""
        return [
            Route("/continuations/{id}", self.start, methods=["POST"]),
            Route("/continuations/{id}/cancel", self.cancel, methods=["POST"]),
        ]

    async def start(self, request: Request) -> Response:
        """Take the recording and begin; refuses a second one while one is under way."""
        key, asked = request.path_params["id"], request.query_params
        if refusal := self._refusal(key, asked):
            return refusal
        self._reading += 1
        try:
            recording = await read_body(request, LARGEST_RECORDING)
        except RefusedError as refused:
            return problem(refused.status, str(refused))
        finally:
            self._reading -= 1
        if refusal := self._refusal(key, asked):  # another may have begun while this one was read
            return refusal
        self._predictions.begin(key, dict(asked))
        self._predictions.post(key, {"continuing": True})
        self._key = key
        self._task = asyncio.create_task(self._make(key, recording, asked))
        return accepted(key)

    def _refusal(self, key: str, asked: Mapping[str, str]) -> Response | None:
        """Why one can't begin now; None where it can."""
        if not ID.fullmatch(key) or key in self._predictions.states:
            return problem(
                404, "A continuation's id is new, and has 1 to 64 letters, digits, hyphens or underscores."
            )
        if asked.get("model_version") not in self._models:
            return problem(422, f"model_version: must be one of {', '.join(self._models)}")
        if self._reading >= MOST_READ or (self._task is not None and not self._task.done()):
            return problem(409, "Another loop is being continued.")
        return None

    async def cancel(self, request: Request) -> Response:
        """End it, if it is under way."""
        key = request.path_params["id"]  # another may begin as soon as this one has ended
        if self._task is not None and key == self._key:
            await self.stop()
            self._predictions.post(key, {"status": "canceled"})  # the task may not even have begun
        return JSONResponse({})

    async def stop(self) -> None:
        """End what is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _command(self, asked: Mapping[str, str], file: Path, out: Path) -> list[str]:
        said = {name: value.replace("\0", " ") for name, value in asked.items()}  # no argument may hold it
        options = [f"{flag}={said[name]}" for name, flag in _OPTIONS.items() if name in said]
        model = f"--model={self._models[asked['model_version']]}"
        return [*_COMMAND, model, f"--out={out}", *options, "--", str(file), said.get("prompt", "")]

    async def _make(self, key: str, recording: bytes, asked: Mapping[str, str]) -> None:
        try:
            with tempfile.TemporaryDirectory(prefix="looper-continuation-") as folder:
                file, out = Path(folder) / "recording", Path(folder) / "out"
                file.write_bytes(recording)
                done = await _run(self._command(asked, file, out))
            if "error" in done:  # where it lay says nothing to who sent it
                done["error"] = done["error"].replace(str(file), "the recording").replace("file:the", "the")
            self._predictions.post(key, done)
        except Exception as error:
            self._predictions.post(key, {"status": "failed", "error": str(error)})


async def _run(command: list[str]) -> dict[str, Any]:
    """The state of a prediction that `command` brings about; its process ends with ours, or when this is cancelled."""
    child = await asyncio.create_subprocess_exec(
        *guarded(command),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "COLUMNS": "10000"},  # no line is broken
    )
    try:
        assert child.stdout and child.stderr  # not communicate(): it would close the guardian's pipe
        told, complained = await asyncio.gather(child.stdout.read(), child.stderr.read())
        code = await child.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        await child.wait()
    if code:
        lines = complained.decode(errors="replace").splitlines()
        bare = [line.strip(_FRAME) for line in lines]  # what is wrong with an option is said in a frame
        *_, last = ["", *filter(None, bare)]
        error = last.removeprefix("looper: ") or f"The continuation stopped (exit code {code})."
        return {"status": "failed", "error": error}
    return await asyncio.to_thread(succeeded, json.loads(told))


def succeeded(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What `looper vary --json` tells, as a prediction's last state with the files in it."""
    output = {}
    logs = []
    for number, loop in enumerate(facts["loops"]):
        file = Path(loop["file"])
        content = base64.b64encode(file.read_bytes()).decode()
        output[f"variation_{number:02d}"] = f"data:{MEDIA_TYPES[file.suffix]};base64,{content}"
        if number:
            logs.append(
                f"variation {number:02d}: played at {loop['measured_bpm']:.2f} BPM, confidence {loop['confidence']:.2f}\n"
            )
    metrics = {"model": facts["model"], "seed": facts["seed"], "predict_time": sum(facts["seconds"].values())}
    return {"status": "succeeded", "output": output, "logs": "".join(logs), "metrics": metrics}
