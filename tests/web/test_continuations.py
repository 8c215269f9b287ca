"""Variations of a recording over the page's own way: what is refused, what comes of it, how it ends."""

import asyncio
import base64
import json
import sys

import httpx
import numpy as np
import pytest
import soundfile
from starlette.requests import Request

from looper.runtime import paths
from looper.web import continuations
from looper.web.proxy import CogProxy
from looper.web.served import ServedModel
from looper.web.server import create_app
from testkit.page_server import BPM, FRAMES, wav

ASKED = {"prompt": "--dusty drums", "bpm": BPM, "variations": 2, "model_version": "medium", "seed": 5}
TINY = str(paths.WEIGHTS / "tiny")

# in place of `looper vary`: tells its arguments, and what the recording held
SCRIPT = """
import json, pathlib, sys
out = pathlib.Path(next(word for word in sys.argv if word.startswith("--out=")).removeprefix("--out="))
out.mkdir()
loops = []
for k in range(3):
    file = out / f"{k}.wav"
    file.write_bytes(pathlib.Path(sys.argv[-2]).read_bytes())
    loops.append({"file": str(file), "measured_bpm": 127.1, "confidence": 0.9})
print(json.dumps({"model": "tiny", "seed": 5, "seconds": {"load": 1, "loops": 0.5}, "loops": loops, "argv": sys.argv}))
"""


def served(folder=TINY):
    client = httpx.AsyncClient(base_url="http://127.0.0.1:9")
    proxy = CogProxy(client, "http://127.0.0.1:1")
    models = {"medium": ServedModel(here=True, model="tiny", folder=folder), "large": ServedModel(here=False)}
    return proxy, create_app(proxy, models=models)


def with_command(monkeypatch, *command):
    monkeypatch.setattr(continuations, "_COMMAND", (sys.executable, "-c", *command))


def follow(act, folder=TINY):
    """Run act(client, states), and return what it returns."""

    async def run():
        proxy, app = served(folder)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:1") as client:
            return await act(client, proxy.predictions.states)

    return asyncio.run(run())


async def ended(states, key="x"):
    for _ in range(6000):
        if states.get(key, {}).get("status") in ("succeeded", "failed", "canceled"):
            return states[key]
        await asyncio.sleep(0.01)
    raise TimeoutError(states)


async def made(client, states, content=b"sound", **asked):
    reply = await client.post("/continuations/x", params={**ASKED, **asked}, content=content)
    assert reply.status_code == 202, reply.text
    return await ended(states)


def test_what_was_made_is_told_as_a_prediction_with_the_source_first(monkeypatch):
    with_command(monkeypatch, SCRIPT)
    state = follow(made)
    assert state["status"] == "succeeded", state
    assert sorted(state["output"]) == ["variation_00", "variation_01", "variation_02"]
    assert state["output"]["variation_01"].startswith("data:audio/wav;base64,")
    assert state["metrics"] == {"model": "tiny", "seed": 5, "predict_time": 1.5}
    assert state["logs"].splitlines()[0] == "variation 01: played at 127.10 BPM, confidence 0.90"
    assert state["input"]["prompt"] == "--dusty drums"


def test_words_are_words_whatever_they_look_like(monkeypatch):
    with_command(monkeypatch, "import json, sys; sys.exit(json.dumps(sys.argv[1:]))")
    said = follow(made)["error"]
    *options, dashes, file, prompt = json.loads(said)
    assert (dashes, prompt) == ("--", "--dusty drums") and file == "the recording"
    assert {f"--model={TINY}", f"--bpm={BPM}", "--variations=2", "--seed=5"} <= set(options)


def test_few_recordings_are_read_at_once(monkeypatch):
    with_command(monkeypatch, SCRIPT)

    async def act(client, states):
        go_on, begun = asyncio.Event(), []

        async def slow():
            yield b"sound"
            begun.append(1)
            await go_on.wait()

        def send(name, content):
            return client.post(f"/continuations/{name}", params=ASKED, content=content)

        slow_ones = [asyncio.create_task(send(name, slow())) for name in "abc"]
        while len(begun) < 3:
            await asyncio.sleep(0.01)
        refused = (await send("d", b"sound")).status_code
        go_on.set()
        taken = sorted(reply.status_code for reply in await asyncio.gather(*slow_ones))
        for name in [*states]:
            await ended(states, name)
        return refused, taken

    assert follow(act) == (409, [202, 409, 409])


def test_a_failure_is_told_in_its_own_words(monkeypatch):
    with_command(monkeypatch, "import sys; sys.exit('a warning\\nlooper: the recording is silent')")
    state = follow(made)
    assert (state["status"], state["error"]) == ("failed", "the recording is silent")


def test_a_wrong_option_is_told_without_the_frame_around_it(monkeypatch):
    framed = "Usage: x\n╭─ Error ─────╮\n│ Invalid value for '--bpm': 'x' is no number. │\n╰───────╯"
    with_command(monkeypatch, f"import sys; print({framed!r}, file=sys.stderr); sys.exit(2)")
    assert follow(made)["error"] == "Invalid value for '--bpm': 'x' is no number."


def test_where_the_recording_lay_is_not_told(monkeypatch):
    with_command(
        monkeypatch, "import sys; sys.exit(f'looper: {sys.argv[-2]} is none: file:{sys.argv[-2]}: bad')"
    )
    assert follow(made)["error"] == "the recording is none: the recording: bad"


def test_a_null_byte_in_a_word_is_a_space(monkeypatch):
    with_command(monkeypatch, "import json, sys; sys.exit(json.dumps(sys.argv[1:]))")

    async def act(client, states):
        return await made(client, states, prompt="a\0b", bpm="12\0")

    said = json.loads(follow(act)["error"])
    assert said[-1] == "a b" and "--bpm=12 " in said


@pytest.mark.parametrize(
    ("key", "asked", "status", "said"),
    [
        ("x", {"model_version": "large"}, 422, "model_version: must be one of medium"),
        ("a b", {}, 404, "id"),
        ("x" * 65, {}, 404, "id"),
    ],
)
def test_what_makes_no_sense_is_refused(key, asked, status, said):
    async def act(client, states):
        return await client.post(f"/continuations/{key}", params={**ASKED, **asked}, content=b"x"), states

    reply, states = follow(act)
    assert reply.status_code == status and said in reply.json()["error"] and not states


def test_a_recording_too_large_is_refused(monkeypatch):
    monkeypatch.setattr(continuations, "LARGEST_RECORDING", 2**20)

    async def act(client, states):
        return await client.post("/continuations/x", params=ASKED, content=bytes(2**20 + 1)), states

    reply, states = follow(act)
    assert reply.status_code == 413 and "at most 1 MiB" in reply.json()["error"] and not states


def test_one_at_a_time_and_a_cancel_ends_its_process(monkeypatch, tmp_path):
    with_command(
        monkeypatch,
        f"import pathlib, time; pathlib.Path({str(tmp_path / 'begun')!r}).touch(); time.sleep(60)",
    )

    async def act(client, states):
        first = await client.post("/continuations/x", params=ASKED, content=b"x")
        second = await client.post("/continuations/y", params=ASKED, content=b"x")
        await begun(tmp_path / "begun")
        await client.post("/continuations/x/cancel")
        state = await ended(states)
        third = await client.post("/continuations/z", params=ASKED, content=b"x")
        await client.post("/continuations/z/cancel")
        await ended(states, "z")
        return [reply.status_code for reply in (first, second, third)], state

    statuses, state = follow(act)
    assert statuses == [202, 409, 202] and state["status"] == "canceled"


async def begun(file):
    while not file.exists():
        await asyncio.sleep(0.01)


def test_one_goes_on_when_the_cog_server_dies(monkeypatch, tmp_path):
    wait = "import pathlib, time; pathlib.Path({!r}).touch()\nwhile not pathlib.Path({!r}).exists(): time.sleep(0.01)\n"
    files = tmp_path / "begun", tmp_path / "go on"
    with_command(monkeypatch, wait.format(*map(str, files)) + SCRIPT)

    async def act():
        proxy, app = served()
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:1"
        ) as client:
            await client.post("/continuations/x", params=ASKED, content=b"x")
            await begun(files[0])
            proxy.predictions.fail_running("The model server stopped")
            files[1].touch()
            return await ended(proxy.predictions.states)

    assert asyncio.run(act())["status"] == "succeeded"


def test_a_cancel_ends_its_own_and_not_what_begins_as_it_is_gone(monkeypatch):
    """The second one's recording arrives in the moment in which the first one ends."""
    with_command(monkeypatch, "import time; time.sleep(60)")

    async def act():
        proxy, _ = served()
        ways = continuations.Continuations(proxy.predictions, {"medium": TINY})
        stop = ways.stop

        async def stop_and_begin():
            await stop()
            await ways.start(asked_for("y"))

        def asked_for(key):
            scope = {"type": "http", "method": "POST", "path_params": {"id": key}, "headers": []}
            scope["query_string"] = b"prompt=x&bpm=120&model_version=medium"

            async def receive():
                return {"type": "http.request", "body": b"sound", "more_body": False}

            return Request(scope, receive)

        assert (await ways.start(asked_for("x"))).status_code == 202
        monkeypatch.setattr(ways, "stop", stop_and_begin)
        await ways.cancel(asked_for("x"))
        found = {key: state["status"] for key, state in proxy.predictions.states.items()}
        await stop()
        return found

    assert asyncio.run(act()) == {"x": "canceled", "y": "starting"}


def test_without_a_model_there_is_no_such_way():
    async def act():
        proxy = CogProxy(httpx.AsyncClient(base_url="http://127.0.0.1:9"), "http://127.0.0.1:1")
        transport = httpx.ASGITransport(create_app(proxy))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:1") as client:
            told = (await client.get("/session.json")).json()
            return told, await client.post("/continuations/x", content=b"x")

    told, reply = asyncio.run(act())
    assert told["continues"] is False and reply.status_code in (404, 405)


def test_the_page_is_not_told_where_the_weights_lie():
    async def act(client, _):
        return (await client.get("/session.json")).text

    text = follow(act)
    assert json.loads(text)["continues"] is True and TINY not in text


@pytest.mark.slow
def test_with_the_small_model_a_loop_goes_on_as_long_as_it_was(tmp_path):
    beat = np.arange(FRAMES) % (FRAMES // 8)
    hits = (np.random.default_rng(1).standard_normal(FRAMES) * np.exp(-beat / 1500) * 0.3).clip(-0.9, 0.9)
    state = follow(lambda client, states: made(client, states, wav(samples=hits), variations=1))
    assert state["status"] == "succeeded", state
    assert state["metrics"]["model"] == "tiny" and len(state["output"]) == 2
    for number, url in enumerate(state["output"].values()):
        file = tmp_path / f"{number}.wav"
        file.write_bytes(base64.b64decode(url.split(",")[1]))
        assert soundfile.info(file).frames == FRAMES
