"""Several predictions at once on the real Cog runtime: each as it is alone, and what befalls one is its own affair."""

import base64
import json
import os
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from testkit.cog_server import DEADLINE
from testkit.planted import BROKEN, EXIT, LARGE, NOT_FINITE

pytestmark = pytest.mark.server

SHORT = {"prompt": "techno", "bpm": 240, "variations": 1, "max_duration": 2}
LONG = {"prompt": "techno", "bpm": 120, "variations": 8, "max_duration": 20, "seed": 9}
GOOD = [
    {**SHORT, "seed": 11},
    {**SHORT, "seed": 12, "prompt": "house", "bpm": 93.7, "max_duration": 3},
    {**SHORT, "seed": 13, "output_format": "mp3", "variations": 2, "top_k": 20},
    {**SHORT, "seed": 14, "model_version": "large", "temperature": 0.7},
]
LINES = re.compile(
    r"seed \d+, [\d.]+ BPM, prompt '.*'|(candidates|variations|loops): +\d+%\|.*\]|\{.*\}|"
    r"variation \d\d: played at [\d.]+ BPM, confidence [\d.]+|\d+ loops of .* BPM|"
    # of random weights, whose music has no beat
    r"no candidate will do \(best confidence [\d.]+\)|"
    r"no clear beat was found at the asked tempo: the first loop is cut as well as it can be|"
    r"variations \[[\d, ]+\] have no clear beat at the asked tempo: cut as well as they can be"
)


def post(server, **wish):
    """The reply to `wish`; asked again where it is refused: Cog frees a slot a moment after its reply is out."""
    end = time.monotonic() + DEADLINE
    while (response := server.client.post("/predictions", json={"input": wish})).status_code == 409:
        assert time.monotonic() < end, response.text
        time.sleep(0.02)
    return response.json()


def until(condition):
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def samples(server):
    text = server.probe("/metrics").text
    found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, *sample.labels.values()): sample.value for sample in found}


def in_flight(server):
    return samples(server)["looper_predictions_in_flight",]


def rows(server):
    now = samples(server)
    return sum(value for (name, *_), value in now.items() if name.startswith("looper_engine_rows_"))


@pytest.fixture(scope="module")
def alone(crowd_keeper):
    """The output of each good request, made with nothing else under way."""
    return [post(crowd_keeper.get(), **wish)["output"] for wish in GOOD]


def check_own(reply, wish):
    """The reply's logs and metrics are the request's own, and its lines are whole."""
    lines = reply["logs"].splitlines()
    assert all(LINES.fullmatch(line) for line in lines), reply["logs"]
    assert [line for line in lines if line.startswith("seed ")] == [lines[0]]
    assert lines[0].startswith(f"seed {wish['seed']}, {wish['bpm']:g} BPM")
    (facts,) = [json.loads(line) for line in lines if line.startswith("{")]
    assert facts["seed"] == reply["metrics"]["seed"] == wish["seed"]
    assert facts["variations"] == wish["variations"] and facts["bpm"] == wish["bpm"]


def test_eight_at_once_answer_as_alone_whatever_befalls_three_of_them(crowd, alone):
    others = [{**SHORT, "prompt": "  "}, {**SHORT, "seed": NOT_FINITE}, {**SHORT, "prompt": EXIT}]
    with ThreadPoolExecutor(8) as pool:
        assert crowd.begin("doomed", LONG).status_code == 202
        replies = [pool.submit(post, crowd, **wish) for wish in (*GOOD, *others)]
        until(lambda: rows(crowd) > 0)
        assert crowd.health()["status"] in ("READY", "BUSY")
        assert crowd.cancel("doomed")
        replies = [reply.result(DEADLINE) for reply in replies]
    for reply, wish, right in zip(replies, GOOD, alone, strict=False):
        assert reply["status"] == "succeeded" and reply["output"] == right
        check_own(reply, wish)
    words = ("prompt must not be empty", "stopped being finite at step", "tried to end the server")
    for reply, expected in zip(replies[len(GOOD) :], words, strict=True):
        assert reply["status"] == "failed" and expected in reply["error"] and not reply.get("output")
    until(lambda: in_flight(crowd) == 0)
    assert rows(crowd) == 0
    assert post(crowd, **GOOD[0])["output"] == alone[0]


def test_each_log_line_and_metric_is_of_the_prediction_that_it_tells_of(crowd):
    wishes = [{**SHORT, "seed": seed, "bpm": 240 + seed} for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda wish: post(crowd, **wish), wishes))
    for reply, wish in zip(replies, wishes, strict=True):
        check_own(reply, wish)


def test_the_ninth_is_refused_at_once_and_all_are_ready_and_live_meanwhile(crowd):
    names = [f"many-{k}" for k in range(8)]
    for name in names:
        assert crowd.begin(name, LONG).status_code == 202
    until(lambda: in_flight(crowd) == 8)
    assert crowd.client.post("/predictions", json={"input": SHORT}).status_code == 409
    assert [crowd.probe(path).status_code for path in ("/ready", "/live", "/idle")] == [200, 200, 503]
    for name in names:
        assert crowd.cancel(name)
    until(lambda: in_flight(crowd) == 0)
    assert rows(crowd) == 0 and crowd.probe("/idle").status_code == 200


def test_a_client_that_goes_away_ends_its_own_prediction_alone(crowd, alone):
    with ThreadPoolExecutor(2) as pool:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{crowd.client.base_url}/predictions", json={"input": LONG}, timeout=1)
        reply = pool.submit(post, crowd, **GOOD[1])
        assert reply.result(DEADLINE)["output"] == alone[1]
    until(lambda: in_flight(crowd) == 0)
    assert samples(crowd)["looper_predictions_total", "cancelled"] >= 1


@pytest.mark.parametrize(
    ("prompt", "words"), [(EXIT, "tried to end the server"), (BROKEN, "LookupError: planted")]
)
def test_what_would_end_cogs_loop_or_is_foreseen_by_nobody_is_an_error_of_one(crowd, alone, prompt, words):
    for _ in range(3):
        reply = post(crowd, **{**SHORT, "prompt": prompt})
        assert reply["status"] == "failed" and words in reply["error"]
    assert crowd.health()["status"] == "READY"
    assert post(crowd, **GOOD[0])["output"] == alone[0]


def test_large_replies_are_whole_although_others_begin_and_end_while_they_are_made(crowd):
    def large(seed):
        return post(crowd, **{**SHORT, "prompt": LARGE, "seed": seed})

    with ThreadPoolExecutor(8) as pool:
        replies = [pool.submit(large, seed) for seed in range(2)]
        small = [pool.submit(post, crowd, **{**SHORT, "seed": seed}) for seed in range(4)]
        assert all(reply.result(DEADLINE)["status"] == "succeeded" for reply in small)
        for seed, reply in enumerate(replies):
            output = reply.result(DEADLINE)["output"]
            for k, uri in enumerate(output.values()):
                assert base64.b64decode(uri.partition(",")[2]) == bytes([seed, k]) * 750_000


def test_a_cancelled_predictions_place_is_taken_by_the_next_at_once(crowd, alone):
    cancelled = ("looper_predictions_total", "cancelled")
    before = samples(crowd).get(cancelled, 0)
    for k in range(8):
        assert crowd.begin(f"full-{k}", LONG).status_code == 202
    assert crowd.cancel("full-3")
    with ThreadPoolExecutor(1) as pool:
        reply = pool.submit(post, crowd, **GOOD[0])
        until(lambda: samples(crowd).get(cancelled, 0) > before and in_flight(crowd) == 8)
        for k in set(range(8)) - {3}:  # seven long ones beside it would take minutes
            crowd.cancel(f"full-{k}")  # some may be done by now
        assert reply.result(DEADLINE)["output"] == alone[0]
    until(lambda: in_flight(crowd) == 0)


def test_all_that_are_waited_for_are_answered_before_a_terminated_server_goes(crowd, alone):
    replies = {}

    def ask(k):
        replies[k] = post(crowd, **GOOD[k])["output"]

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(len(GOOD))]
    for thread in threads:
        thread.start()
    until(lambda: in_flight(crowd) == len(GOOD))
    os.kill(crowd.process.pid, signal.SIGTERM)
    for thread in threads:
        thread.join(DEADLINE)
    assert [replies[k] for k in range(len(GOOD))] == alone
    crowd.process.wait(60)
