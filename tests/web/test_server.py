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
from looper.web.server import LOOPBACK, create_app, serve
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


@pytest.mark.parametrize("host, status", [("127.0.0.1", 200), ("localhost:80", 200), ("evil.example", 400)])
def test_a_loopback_server_answers_to_loopback_names_only(host, status):
    assert ask(create_app(hosts=LOOPBACK), "GET", "/session.json", host=host).status_code == status


def test_a_root_without_a_predictor_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(f"no predict.py in {tmp_path}")):
        serve(root=tmp_path)


def test_a_port_in_use_is_named(tmp_path):
    with running("folder", str(tmp_path)) as (url, _), pytest.raises(OSError, match="choose another port"):
        serve(folder=tmp_path, port=httpx.URL(url).port)


def test_a_folder_without_loops_is_told_at_the_start(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with running("folder", str(tmp_path)) as (_, process):
        pass
    assert f"No loops in {tmp_path.name}: looking for .wav" in process.said


START = """
import sys
from looper.web.server import serve
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
