"""The page server: what it hands through, what it refuses, and a real Cog runtime behind it."""

import asyncio
import io
import json
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import soundfile as sf
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from looper.relay import Relay
from looper.serve import LOOPBACK, ROOT, create_app, serve
from looper.shelf import Shelf

OWN = "http://127.0.0.1:1"


def wav(seconds=0.1):
    buffer = io.BytesIO()
    sf.write(buffer, [0.25] * round(32000 * seconds), 32000, format="WAV")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    loops = tmp_path / "loops"
    (loops / "deeper").mkdir(parents=True)
    for name in ("b_120bpm.wav", "a.WAV", "ünï & #%.wav", "deeper/inner.wav"):
        (loops / name).write_bytes(wav())
    (loops / "notes.txt").write_text("private")
    (loops / "pack.json").write_text('{"prompt": "pads"}')
    (tmp_path / "secret.wav").write_bytes(wav())
    (loops / "link.wav").symlink_to(tmp_path / "secret.wav")
    return loops


class Upstream:
    """A stand-in for Cog: records what arrives and answers as told."""

    def __init__(self):
        self.seen = []
        self.reply = (200, {"status": "succeeded"})
        self.cancelled = False
        self.hang = False

    async def answer(self, request):
        body = await request.body()
        self.seen.append((request.method, request.url.path, json.loads(body or b"null"), request.headers))
        if self.hang:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.cancelled = True
                raise
        status, content = self.reply
        return JSONResponse(content, status) if content is not None else Response(status_code=status)

    def app(self):
        methods = ["GET", "POST", "PUT"]
        return Starlette(routes=[Route("/{path:path}", self.answer, methods=methods)])


@pytest.fixture
def upstream():
    return Upstream()


@pytest.fixture
def relay(upstream):
    client = httpx.AsyncClient(transport=httpx.ASGITransport(upstream.app()), base_url="http://cog")
    return Relay(client, OWN)


def ask(app, method, path, host="127.0.0.1", **more):
    async def send():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
            return await client.request(method, path, **more)

    return asyncio.run(send())


@pytest.mark.parametrize("path", ["/", "/app.js", "/style.css", "/vendor/client-zip/index.js"])
def test_serves_the_page_and_all_it_needs(path):
    reply = ask(create_app(), "GET", path)
    assert reply.status_code == 200
    assert reply.headers["cache-control"] == "no-cache"


def test_page_refers_to_nothing_outside_its_own_folder():
    page = create_app()
    todo, done = ["/", "/app.js", "/style.css"], set()
    while todo:
        path = todo.pop()
        reply = ask(page, "GET", path)
        assert reply.status_code == 200, path
        done.add(path)
        text = re.sub(r"http://www\.w3\.org/\S+", "", reply.text)  # names of namespaces, not addresses
        assert path.startswith("/vendor/") or not re.search(r"https?://", text), path
        base = path.rpartition("/")[0]
        found = re.findall(r'(?:from|import) "\./([^"]+)"', reply.text)
        todo += [f"{base}/{name}" for name in found if f"{base}/{name}" not in done]
    assert "/vendor/client-zip/index.js" in done


@pytest.mark.parametrize("path", ["/openapi.json", "/health-check"])
def test_hands_cogs_pages_through(relay, upstream, path):
    upstream.reply = (200, {"status": "READY", "openapi": "3.0.2"})
    reply = ask(create_app(relay), "GET", path)
    assert (reply.status_code, reply.json()) == upstream.reply
    assert upstream.seen[0][:2] == ("GET", path)


@pytest.mark.parametrize("status", [200, 409, 422, 500, 503])
@pytest.mark.parametrize("method, path", [("POST", "/predictions"), ("PUT", "/predictions/a-1")])
def test_passes_cogs_answers_on_unchanged(relay, upstream, method, path, status):
    upstream.reply = (status, {"detail": [{"loc": ["body", "input", "bpm"], "msg": "too low"}]})
    reply = ask(create_app(relay), method, path, json={"input": {"prompt": "x", "bpm": 3}})
    assert (reply.status_code, reply.json()) == upstream.reply
    assert upstream.seen[0][2]["input"] == {"prompt": "x", "bpm": 3}


def test_asks_cog_to_report_to_us_and_to_nobody_else(relay, upstream):
    body = {"input": {"prompt": "x"}, "webhook": "http://192.0.2.1/steal"}
    ask(create_app(relay), "PUT", "/predictions/a", json=body, headers={"Prefer": "respond-async"})
    _, _, sent, headers = upstream.seen[0]
    assert sent["webhook"].startswith(f"{OWN}/webhook/")
    assert "completed" in sent["webhook_events_filter"] and "logs" in sent["webhook_events_filter"]
    assert headers["prefer"] == "respond-async"


def test_cancels_by_the_same_path(relay, upstream):
    assert ask(create_app(relay), "POST", "/predictions/a_1/cancel").status_code == 200
    assert upstream.seen[0][:2] == ("POST", "/predictions/a_1/cancel")


@pytest.mark.parametrize("key", ["..", "a.b", "a%20b", "%2e%2e%2fshutdown", "x" * 65, "ä"])
@pytest.mark.parametrize("method, tail", [("PUT", ""), ("POST", "/cancel")])
def test_refuses_ids_that_could_name_another_path(relay, upstream, key, method, tail):
    reply = ask(create_app(relay), method, f"/predictions/{key}{tail}", json={"input": {}})
    assert reply.status_code in (404, 405)
    assert upstream.seen == []


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'"x"', b"\xff\xfe"])
def test_a_body_that_is_no_object_is_refused_in_words(relay, upstream, body):
    reply = ask(create_app(relay), "PUT", "/predictions/a", content=body)
    assert reply.status_code == 400
    assert "JSON object" in reply.json()["error"]
    assert upstream.seen == []


@pytest.mark.parametrize(
    "method, path",
    [("GET", "/openapi.json"), ("GET", "/health-check"), ("POST", "/predictions"), ("PUT", "/predictions/a")],
)
def test_a_cog_server_that_is_down_gives_a_502_that_says_so(method, path):
    client = httpx.AsyncClient(base_url="http://127.0.0.1:9")  # the discard port: nobody listens
    reply = ask(create_app(Relay(client, OWN)), method, path, json={"input": {}})
    assert reply.status_code == 502
    assert "model server does not answer" in reply.json()["error"]


def test_a_refused_prediction_leaves_nothing_to_follow(relay, upstream):
    upstream.reply = (422, {"detail": []})
    page = create_app(relay)
    ask(page, "PUT", "/predictions/a", json={"input": {}})
    assert ask(page, "GET", "/predictions/a/events").status_code == 404
    assert ask(page, "GET", "/session.json").json()["running"] is None


def test_a_caller_that_hangs_up_ends_the_call_to_cog(relay, upstream):
    upstream.hang = True
    page = create_app(relay)

    async def call():
        first = iter([{"type": "http.request", "body": b"{}"}])

        async def receive():
            message = next(first, None)
            if message is None:
                while not upstream.seen:
                    await asyncio.sleep(0.01)
                return {"type": "http.disconnect"}
            return message

        async def send(message):
            pass

        headers = [(b"host", b"x"), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/predictions", "headers": headers}
        await page({**scope, "query_string": b"", "scheme": "http", "server": ("x", 1)}, receive, send)
        for _ in range(100):
            if upstream.cancelled:
                return True
            await asyncio.sleep(0.01)
        return False

    assert asyncio.run(call())


def events(text):
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]


def test_the_page_hears_what_cog_reports_until_the_end(relay, upstream):
    page = create_app(relay)

    async def story():
        transport = httpx.ASGITransport(page)
        async with httpx.AsyncClient(transport=transport, base_url=OWN) as client:
            upstream.reply = (202, {"id": "a", "status": "starting"})
            await client.put("/predictions/a", json={"input": {"prompt": "x"}})
            running = (await client.get("/session.json")).json()["running"]
            listening = asyncio.create_task(client.get("/predictions/a/events"))
            for state in (
                {"id": "a", "status": "processing", "logs": "generating: 42 %"},
                {"id": "a", "status": "succeeded", "logs": "done", "output": {"variation_01": "data:,"}},
            ):
                await asyncio.sleep(0.05)
                assert (await client.post(relay.hook, json=state)).status_code == 204
            return running, await listening, (await client.get("/session.json")).json()["running"]

    running, reply, after = asyncio.run(story())
    assert running == {"id": "a", "input": {"prompt": "x"}}
    assert after is None
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert [state["status"] for state in events(reply.text)] == ["starting", "processing", "succeeded"]
    assert events(reply.text)[-1]["output"] == {"variation_01": "data:,"}


def test_a_report_with_a_wrong_token_is_not_believed(relay):
    page = create_app(relay)
    reply = ask(page, "POST", "/webhook/guess", json={"id": "a", "status": "succeeded"})
    assert reply.status_code == 404
    assert relay.board.states == {}


def test_a_server_that_dies_fails_what_it_was_doing(relay):
    relay.board.post("a", {"id": "a", "status": "processing", "logs": "half way"})
    relay.board.fail_running("The model server stopped")
    reply = ask(create_app(relay), "GET", "/predictions/a/events")
    assert events(reply.text) == [
        {"id": "a", "status": "failed", "logs": "half way", "error": "The model server stopped"}
    ]


def test_finished_predictions_are_forgotten_but_never_a_running_one(relay):
    relay.board.post("running", {"status": "processing"})
    for k in range(20):
        relay.board.post(str(k), {"status": "succeeded"})
    assert len(relay.board.states) == relay.board.keep
    assert relay.board.running() == "running"
    assert "19" in relay.board.states


@pytest.mark.parametrize("host, status", [("127.0.0.1", 200), ("localhost:80", 200), ("evil.example", 400)])
def test_a_loopback_server_answers_to_loopback_names_only(host, status):
    assert ask(create_app(hosts=LOOPBACK), "GET", "/session.json", host=host).status_code == status


def test_lists_the_loops_of_a_folder_by_name(folder):
    session = ask(create_app(shelf=Shelf(folder)), "GET", "/session.json").json()
    assert session["model"] is False
    assert session["shelf"]["name"] == "loops"
    assert [loop["name"] for loop in session["shelf"]["loops"]] == ["a.WAV", "b_120bpm.wav", "ünï & #%.wav"]
    assert session["shelf"]["pack"] == {"prompt": "pads"}


def test_every_listed_loop_comes_back_byte_for_byte(folder):
    page = create_app(shelf=Shelf(folder))
    for loop in ask(page, "GET", "/session.json").json()["shelf"]["loops"]:
        reply = ask(page, "GET", loop["url"])
        assert reply.headers["content-type"] == "audio/wav"
        assert reply.content == (folder / loop["name"]).read_bytes()


@pytest.mark.parametrize(
    "path",
    [
        "/loops/../secret.wav",
        "/loops/..%2fsecret.wav",
        "/loops/%2e%2e/secret.wav",
        "/loops//etc/passwd",
        "/loops/link.wav",
        "/loops/deeper/inner.wav",
        "/loops/notes.txt",
        "/loops/pack.json",
        "/loops/",
        "/..%2fserve.py",
        "/%2e%2e/serve.py",
        "/vendor/..%2f..%2fserve.py",
    ],
)
def test_nothing_but_listed_loops_is_served(folder, path):
    raw = httpx.URL("http://127.0.0.1").copy_with(raw_path=path.encode())
    assert ask(create_app(shelf=Shelf(folder)), "GET", raw).status_code == 404


def test_a_folder_alone_has_no_way_to_a_model(folder):
    page = create_app(shelf=Shelf(folder))
    assert ask(page, "GET", "/openapi.json").status_code == 404
    assert ask(page, "PUT", "/predictions/a", json={}).status_code in (404, 405)


@pytest.mark.parametrize("inside", ["", "my pack/"])
def test_a_packs_zip_opens_like_a_folder(tmp_path, inside):
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        archive.writestr(f"{inside}one.wav", wav())
        archive.writestr(f"{inside}two.wav", wav(0.2))
        archive.writestr(f"{inside}pack.json", "not json")
        archive.writestr("../escape.wav" if not inside else f"{inside}../escape.wav", b"x")
    shelf = Shelf(tmp_path / "p.zip")
    assert [loop["name"] for loop in shelf.listing()["loops"]] == ["one.wav", "two.wav"]
    assert shelf.listing()["pack"] is None
    assert shelf.read("two.wav") == (wav(0.2), "audio/wav")
    assert shelf.read("../escape.wav") is None


@pytest.mark.parametrize("name", ["missing", "file.txt"])
def test_a_folder_that_is_none_is_named(tmp_path, name):
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(FileNotFoundError, match=name):
        serve(folder=tmp_path / name)


def test_a_root_without_a_predictor_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(f"no predict.py in {tmp_path}")):
        serve(root=tmp_path)


def test_a_port_in_use_is_named(folder):
    with running("folder", str(folder)) as (url, _), pytest.raises(OSError, match="choose another port"):
        serve(folder=folder, port=httpx.URL(url).port)


START = """
import sys
from looper.serve import serve
serve(port=0, tiny=True, **{sys.argv[1]: sys.argv[2]})
"""

PREDICTOR = """
import os, time
from cog import BaseModel, BasePredictor, Path

class Outputs(BaseModel):
    variation_01: Path = None
    variation_02: Path = None

class Predictor(BasePredictor):
    def predict(self, prompt: str) -> Outputs:
        print("models: " + os.environ["LOOPER_MODELS"])
        for k in range(0, 101, 20 if prompt != "slow" else 1):
            print(f"generating: {k} %")
            time.sleep(0.1)
        return Outputs(variation_01=Path(os.path.abspath("loop.wav")))
"""


@contextmanager
def running(option, value):
    """`serve(option=value)` in a process of its own: (address, process)."""
    process = subprocess.Popen(
        [sys.executable, "-c", START, option, value], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        line = next(line for line in process.stdout if b"Player:" in line).decode()
        yield re.search(r"http://\S+", line)[0], process
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


def wait_until_ready(url):
    for _ in range(600):
        state = httpx.get(f"{url}/health-check").json()
        if state["status"] == "READY":
            return
        assert state["status"] == "STARTING", state
        time.sleep(0.2)
    pytest.fail("the Cog server did not become ready")


def cog_processes(root):
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").readlink() == root:
                found.append(int(entry.name))
        except OSError:  # gone meanwhile
            continue
    return found


@pytest.fixture
def root(tmp_path):
    (tmp_path / "predict.py").write_text(PREDICTOR)
    (tmp_path / "loop.wav").write_bytes(wav())
    shutil.copy(ROOT / "openapi.json", tmp_path)
    return tmp_path


def test_with_a_real_cog_server_from_start_to_stop(root):
    with running("root", str(root)) as (url, process):
        wait_until_ready(url)
        assert (
            "bpm" in httpx.get(f"{url}/openapi.json").json()["components"]["schemas"]["Input"]["properties"]
        )
        low = httpx.put(f"{url}/predictions/low", json={"input": {"prompt": "x", "bpm": 39}})
        assert low.status_code == 422 and "minimum" in low.json()["detail"][0]["msg"]

        headers = {"Prefer": "respond-async"}
        httpx.put(f"{url}/predictions/a", json={"input": {"prompt": "x"}}, headers=headers).raise_for_status()
        states = events(httpx.get(f"{url}/predictions/a/events", timeout=60).text)
        assert states[-1]["status"] == "succeeded"
        assert "models: medium=weights/tiny,large=weights/tiny" in states[-1]["logs"]
        assert states[-1]["output"]["variation_01"].startswith("data:audio/")
        assert any("generating" in state["logs"] for state in states[:-1])

        for _ in range(50):  # the slot is free a moment after the answer
            slow = httpx.put(f"{url}/predictions/b", json={"input": {"prompt": "slow"}}, headers=headers)
            if slow.status_code != 409:
                break
            time.sleep(0.1)
        assert slow.status_code == 202
        assert httpx.post(f"{url}/predictions/b/cancel").status_code == 200
        assert events(httpx.get(f"{url}/predictions/b/events", timeout=60).text)[-1]["status"] == "canceled"

        assert cog_processes(root)
        process.send_signal(signal.SIGINT)
        process.wait(30)
        assert cog_processes(root) == []
