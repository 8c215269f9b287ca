"""The page server: its own files, its guard, and a real Cog runtime behind it from start to stop."""

import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from looper.runtime import paths
from looper.web.guard import is_loopback
from looper.web.server import create_app, serve
from testkit.asgi import ask, events, wav


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


OURS = ("127.0.0.1", "localhost:80", "LocalHost", "[::1]:8393", "[::1]", "127.0.0.2:1", "[0:0:0:0:0:0:0:1]")
FOREIGN = (
    *(
        "evil.example",
        "127.0.0.1.nip.io",
        "localhost.evil.example",
        "localhost.",
        "10.0.0.1",
        "[::2]",
        "0.0.0.0",
    ),
    *(
        "0x7f.1",
        "127.1",
        "2130706433",
        "x@127.0.0.1",
        "127.0.0.1@x",
        "127.0.0.1/x",
        "127.0.0.1 x",
        "",
        ":80",
        "[]",
    ),
)


@pytest.mark.parametrize(
    ("host", "status"), [*((name, 200) for name in OURS), *((name, 400) for name in FOREIGN)]
)
def test_a_loopback_server_answers_to_loopback_names_only(host, status):
    page = create_app(answers_to=is_loopback)
    assert ask(page, "GET", "/session.json", headers={"host": host}).status_code == status


@pytest.mark.slow
@pytest.mark.parametrize("host", ["127.0.0.2", "LOCALHOST", "::1"])
def test_a_loopback_address_is_one_however_it_is_spelled(tmp_path, host):
    with running("host", host, folder=str(tmp_path)) as (url, _):
        assert httpx.get(f"{url}/session.json").status_code == 200
        assert httpx.get(f"{url}/session.json", headers={"host": "evil.example"}).status_code == 400


@pytest.mark.parametrize(
    "origin", ["null", "http://evil.example", "http://[::1", "http://x@127.0.0.1", "", "//"]
)
def test_an_origin_that_is_not_ours_or_none_at_all_is_refused(origin):
    assert ask(create_app(), "POST", "/predictions", headers={"origin": origin}).status_code == 403


@pytest.mark.parametrize("path", ["/", "/app.js", "/session.json", "/loops/nothing.wav", "/nowhere"])
@pytest.mark.parametrize("host", ["127.0.0.1", "evil.example"])
def test_every_answer_says_that_no_other_site_may_frame_or_read_it(path, host):
    headers = ask(create_app(answers_to=is_loopback), "GET", path, host=host).headers
    assert headers["x-frame-options"] == "DENY" and headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.slow
def test_a_second_ctrl_c_is_as_quiet_as_the_first(root):
    process = subprocess.Popen(
        [sys.executable, "-c", START, "root", str(root)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while not (found := re.search(r"Player: (http://\S+)", process.stdout.readline().decode())):
        pass
    wait_until_ready(found[1])
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    _, said = process.communicate(timeout=60)
    assert b"Traceback" not in said and b"CancelledError" not in said
    assert cog_processes(root) == []


def test_a_root_without_a_predictor_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(f"no predict.py in {tmp_path}")):
        serve(root=tmp_path)


def test_a_port_in_use_is_named(tmp_path):
    with running("folder", str(tmp_path)) as (url, _), pytest.raises(OSError, match="choose another port"):
        serve(folder=tmp_path, port=httpx.URL(url).port)


@pytest.mark.slow
def test_a_folder_without_loops_is_told_at_the_start(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with running("folder", str(tmp_path)) as (_, process):
        pass
    assert f"No loops in {tmp_path.name}: looking for .wav" in process.said


START = """
import sys
from looper.web.server import serve
wishes = dict(zip(sys.argv[1::2], sys.argv[2::2]))
serve(port=0, tiny=True, at_once=int(wishes.pop("at_once", 1)), **wishes)
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
def running(option, value, **more):
    """`serve(option=value, **more)` in a process of its own: (address, process)."""
    words = [option, value, *(word for pair in more.items() for word in pair)]
    process = subprocess.Popen(
        [sys.executable, "-c", START, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        process.said = ""
        while "Player:" not in process.said:
            line = process.stdout.readline().decode()
            assert line, process.said
            process.said += line
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
    shutil.copy(paths.PROJECT / "openapi.json", tmp_path)
    return tmp_path


@pytest.mark.server
@pytest.mark.parametrize("end", [signal.SIGHUP, signal.SIGKILL])
def test_the_cog_server_ends_with_us_whatever_ends_us(root, end):
    with running("root", str(root)) as (url, process):
        wait_until_ready(url)
        assert len(cog_processes(root)) >= 2
        process.send_signal(end)
        process.wait(30)
        deadline = time.monotonic() + 60
        while cog_processes(root) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert cog_processes(root) == []


@pytest.mark.server
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
        assert "models: medium=tiny,large=tiny" in states[-1]["logs"]
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


ASYNC_PREDICTOR = """
import asyncio, os
from cog import BaseModel, BasePredictor, Path

class Outputs(BaseModel):
    variation_01: Path = None

class Predictor(BasePredictor):
    async def predict(self, prompt: str) -> Outputs:
        print(prompt)
        while not os.path.exists(prompt):
            await asyncio.sleep(0.02)
        return Outputs(variation_01=Path(os.path.abspath("loop.wav")))
"""


@pytest.mark.server
def test_two_at_once_are_made_and_the_third_waits_in_line(root):
    (root / "predict.py").write_text(ASYNC_PREDICTOR)
    with running("root", str(root), at_once="2") as (url, _):
        wait_until_ready(url)
        headers = {"Prefer": "respond-async"}
        for key in ("one", "two", "three"):
            reply = httpx.put(
                f"{url}/predictions/{key}", json={"input": {"prompt": f"{key}.go"}}, headers=headers
            )
            assert reply.status_code == 202
        with httpx.stream("GET", f"{url}/predictions/three/events", timeout=60) as stream:
            said = stream.iter_lines()
            assert '"place": 1' in next(line for line in said if line.startswith("data:"))
            (root / "two.go").touch()
            (root / "three.go").touch()
            states = events("\n".join(said))
        assert states[-1]["status"] == "succeeded" and "three.go" in states[-1]["logs"]
        (root / "one.go").touch()
        assert (
            events(httpx.get(f"{url}/predictions/one/events", timeout=60).text)[-1]["status"] == "succeeded"
        )
