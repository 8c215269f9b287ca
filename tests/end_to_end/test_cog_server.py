"""The real Cog runtime in front of weights/tiny, on loopback."""

import base64
import io
import json
import pathlib
import time

import pytest
import soundfile

from testkit.cog_server import Server
from training.tiny.evaluate import measure_bpm, near

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = pytest.mark.server


def predict(server, **wish):
    return server.post({"prompt": "techno", "max_duration": 2, **wish})


def audio(uri):
    head, _, body = uri.partition(",")
    content = base64.b64decode(body)
    samples, rate = soundfile.read(io.BytesIO(content))
    return head, content, samples, rate


def test_the_served_schema_is_the_committed_one(server):
    assert server.client.get("/openapi.json").json() == json.loads((ROOT / "openapi.json").read_text())


def test_three_variations_as_wav_are_exact_in_tempo_and_null_for_the_rest(server):
    reply = predict(server, bpm=93.7, variations=3, max_duration=3, seed=4).json()
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
        assert len(samples) == round(4 * 60 / 93.7 * 32000)
        assert near(measure_bpm(samples, rate), 93.7, 0.01)
    metrics = reply["metrics"]
    assert metrics["model"] == "tiny" and metrics["seed"] == 4 and metrics["bars"] == 1
    assert metrics["bpm_measured"] == pytest.approx(93.7, rel=0.03)
    (line,) = [json.loads(line) for line in reply["logs"].splitlines() if line.startswith("{")]
    assert line["event"] == "prediction" and line["seed"] == 4 and line["seam"] == metrics["seam"]
    assert 0 <= metrics["seam"] < 1.5 and -20 < metrics["seam_log_likelihood"] < 20
    assert all(metrics["steps_per_second"][stage] > 0 for stage in ("candidates", "variations"))
    assert "100%" in reply["logs"] and reply["logs"].endswith("\n")


def test_mp3_decodes_to_the_same_length(server):
    reply = predict(server, bpm=127.003, variations=1, output_format="mp3", seed=3).json()
    head, _, samples, rate = audio(reply["output"]["variation_01"])
    assert "mpeg" in head
    assert (len(samples), rate) == (round(4 * 60 / 127.003 * 32000), 32000)


ALONE = {"bpm": 240, "variations": 1, "seed": 0}


@pytest.fixture(scope="module")
def one(keeper):
    """The output of `ALONE`."""
    return predict(keeper.get(), **ALONE).json()["output"]


def test_the_same_seed_gives_the_same_bytes_and_variation_one_stands_alone(server, one):
    two = predict(server, **{**ALONE, "variations": 2}).json()["output"]
    assert predict(server, **ALONE).json()["output"] == one
    assert one["variation_01"] == two["variation_01"]
    assert one["variation_02"] is None and two["variation_01"] != two["variation_02"]


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
    assert server.health()["status"] in ("READY", "BUSY")


def test_a_cancelled_prediction_frees_the_server_within_a_second_and_leaves_no_files(server, one):
    before = set(server.files())
    started = server.begin("slow", {"prompt": "techno", "variations": 8, "max_duration": 20, "seed": 1})
    assert started.status_code == 202
    time.sleep(1)
    assert server.client.post("/predictions/slow/cancel").status_code == 200
    server.wait("READY")
    assert set(server.files()) <= before
    assert predict(server, **ALONE).json()["output"] == one


def test_without_weights_setup_fails_with_the_command_that_brings_them(tmp_path):
    server = Server(tmp_path, LOOPER_WEIGHTS=str(tmp_path), LOOPER_MODELS="")
    try:
        server.wait("SETUP_FAILED")
        assert "looper weights get medium" in server.health()["setup"]["logs"]
        assert server.client.post("/predictions", json={"input": {"prompt": "x"}}).status_code == 503
    finally:
        server.stop()


def test_with_one_model_alone_the_container_starts_and_says_what_brings_the_other(server):
    logs = server.health()["setup"]["logs"]
    assert "only medium is served" in logs and "looper weights get large" in logs
    refused = predict(server, variations=1, model_version="large").json()
    assert refused["status"] == "failed" and "looper weights get large" in refused["error"]
    assert predict(server, bpm=240, variations=1).json()["status"] == "succeeded"
