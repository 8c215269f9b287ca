"""The real Cog runtime in front of weights/tiny, on loopback."""

import base64
import io
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest
import soundfile

from scripts import openapi_schema as schema
from training.tiny.evaluate import measure_bpm, near

ROOT = pathlib.Path(__file__).parents[2]
DEADLINE = 240


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(tmp_path, **environment):
    port = free_port()
    schema.install()
    log = (tmp_path / "server.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "cog.server.http", "--host", "127.0.0.1"],
        cwd=ROOT,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env={
            **os.environ,
            "PATH": os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ["PATH"]]),
            "PORT": str(port),
            "COG_PREDICT_TYPE_STUB": "predict.py:Predictor",
            "LOG_FORMAT": "console",
            "TMPDIR": str(tmp_path),
            **environment,
        },
    )
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE)
    return process, client


def health(client, *wanted):
    """Poll until the server is in one of the states wanted."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        try:
            answer = client.get("/health-check").json()
        except httpx.TransportError:
            answer = {"status": "no answer"}
        if answer["status"] in wanted:
            return answer
        time.sleep(0.1)
    raise AssertionError(f"the server is {answer} after {DEADLINE} s, not {wanted}")


def stop(process):
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    process, client = start(folder, LOOPER_MODELS="medium=weights/tiny,large=weights/tiny")
    try:
        health(client, "READY")
        client.folder = folder
        yield client
    finally:
        stop(process)


def predict(client, **wish):
    """Post a prediction; just after another one the runtime may still say 409."""
    for _ in range(100):
        reply = client.post("/predictions", json={"input": {"prompt": "techno", "max_duration": 2, **wish}})
        if reply.status_code != 409:
            return reply
        time.sleep(0.1)
    raise AssertionError("the server stays busy")


def audio(uri):
    head, _, body = uri.partition(",")
    content = base64.b64decode(body)
    samples, rate = soundfile.read(io.BytesIO(content))
    return head, content, samples, rate


def test_the_served_schema_is_the_committed_one(server):
    assert server.get("/openapi.json").json() == json.loads((ROOT / "openapi.json").read_text())


def test_three_variations_as_wav_are_exact_in_tempo_and_null_for_the_rest(server):
    reply = predict(server, bpm=93.7, variations=3, max_duration=6, seed=3).json()
    assert reply["status"] == "succeeded", reply
    output = reply["output"]
    assert [name for name, value in output.items() if value] == [
        "variation_01",
        "variation_02",
        "variation_03",
    ]
    assert len(output) == 20
    for name in ("variation_01", "variation_02", "variation_03"):
        head, _, samples, rate = audio(output[name])
        assert "wav" in head and rate == 32000
        assert len(samples) == round(8 * 60 / 93.7 * 32000)
        assert near(measure_bpm(samples, rate), 93.7, 0.01)
    metrics = reply["metrics"]
    assert metrics["model"] == "tiny" and metrics["seed"] == 3 and metrics["bars"] == 2
    assert metrics["bpm_measured"] == pytest.approx(93.7, rel=0.03)
    (line,) = [json.loads(line) for line in reply["logs"].splitlines() if line.startswith("{")]
    assert line["event"] == "prediction" and line["seed"] == 3 and line["seam"] == metrics["seam"]
    assert 0 <= metrics["seam"] < 1.5 and -20 < metrics["seam_log_likelihood"] < 20
    assert all(metrics["steps_per_second"][stage] > 0 for stage in ("candidates", "variations"))
    assert "100%" in reply["logs"] and reply["logs"].endswith("\n")


def test_mp3_decodes_to_the_same_length(server):
    reply = predict(
        server, bpm=127.003, variations=1, output_format="mp3", model_version="large", seed=3
    ).json()
    head, _, samples, rate = audio(reply["output"]["variation_01"])
    assert "mpeg" in head
    assert (len(samples), rate) == (round(4 * 60 / 127.003 * 32000), 32000)


def test_the_same_seed_gives_the_same_bytes_and_variation_one_stands_alone(server):
    three = predict(server, bpm=120, variations=3, seed=0).json()["output"]
    again = predict(server, bpm=120, variations=3, seed=0).json()["output"]
    one = predict(server, bpm=120, variations=1, seed=0).json()["output"]
    assert three == again
    assert one["variation_01"] == three["variation_01"]
    assert three["variation_01"] != three["variation_02"] != three["variation_03"]


@pytest.mark.parametrize(
    ("wish", "status", "words"),
    [
        ({"bpm": 39.9}, 422, "bpm"),
        ({"variations": 21}, 422, "variations"),
        ({"model_version": "small"}, 422, "model_version"),
        ({"prompt": None}, 422, "prompt"),
        ({"seed": "x"}, 422, "seed"),
        ({"prompt": "   "}, 200, "prompt must not be empty"),
        ({"top_p": 2}, 200, "top_p must be between 0 and 1"),
        ({"top_k": 5000}, 200, "top_k must be"),
        ({"prompt": "x" * 100_001}, 200, "at most 100000 characters"),
    ],
)
def test_bad_input_is_answered_in_words_and_the_server_lives_on(server, wish, status, words):
    reply = predict(server, **{"variations": 1, **wish})
    assert reply.status_code == status
    assert words in reply.text
    if status == 200:
        assert reply.json()["status"] == "failed" and not reply.json().get("output")
    assert server.get("/health-check").json()["status"] in ("READY", "BUSY")


def test_a_cancelled_prediction_frees_the_server_within_a_second_and_leaves_no_files(server):
    expected = predict(server, bpm=120, variations=1, seed=0).json()["output"]
    body = {"input": {"prompt": "techno", "variations": 8, "max_duration": 20, "seed": 1}}
    for _ in range(100):
        started = server.put("/predictions/slow", json=body, headers={"Prefer": "respond-async"})
        if started.status_code != 409:
            break
        time.sleep(0.1)
    assert started.status_code == 202
    time.sleep(2)
    assert server.post("/predictions/slow/cancel").status_code == 200
    health(server, "READY")
    assert not list(server.folder.glob("musicgen-looper-[0-9]*/*"))
    assert predict(server, bpm=120, variations=1, seed=0).json()["output"] == expected


def test_without_weights_setup_fails_with_the_command_that_brings_them(tmp_path):
    process, client = start(tmp_path, LOOPER_WEIGHTS=str(tmp_path), LOOPER_MODELS="")
    try:
        answer = health(client, "SETUP_FAILED")
        assert "looper weights get medium" in answer["setup"]["logs"]
        assert client.post("/predictions", json={"input": {"prompt": "x"}}).status_code == 503
    finally:
        stop(process)


def test_with_one_model_alone_the_container_starts_and_says_what_brings_the_other(tmp_path):
    process, client = start(
        tmp_path, LOOPER_WEIGHTS=str(tmp_path), LOOPER_MODELS=f"medium={ROOT}/weights/tiny"
    )
    try:
        answer = health(client, "READY", "SETUP_FAILED")
        assert answer["status"] == "READY", answer
        assert "only medium is served" in answer["setup"]["logs"]
        assert "looper weights get large" in answer["setup"]["logs"]
        assert predict(client, variations=1).json()["status"] == "succeeded"
        refused = predict(client, variations=1, model_version="large").json()
        assert refused["status"] == "failed" and "looper weights get large" in refused["error"]
    finally:
        stop(process)
