"""Faults and odd requests done to a real Cog server: a clear error or the right answer, and it lives on."""

import pathlib

import pytest

from bench.reliability import faults, fuzz
from looper.service.scratch import Scratch

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def right(keeper):
    """The output of the request that the faults are done to."""
    return keeper.get().output(faults.REQUEST)


@pytest.mark.parametrize("name", ["client disconnects", "one request too many", "disk full"])
def test_a_server_survives(server, right, name):
    faults.IN_PLACE[name](server)
    assert server.output(faults.REQUEST) == right


SHORT = {"prompt": "house", "bpm": 240, "variations": 1, "max_duration": 2, "seed": 5}
# edges of several inputs at a time: an answer that fails says which of them is to blame
INSIDE = [
    {"bpm": 40, "seed": -1, "top_k": 0, "top_p": 0.5, "temperature": 0, "unknown": None},
    {"bpm": 300, "seed": 0, "top_k": 1, "top_p": 0, "classifier_free_guidance": 0, "unknown": {"a": []}},
    {"bpm": 240.5, "seed": 2**31, "top_p": 1, "classifier_free_guidance": -3, "variations": 2.0},
    {"bpm": 299, "seed": 2**40, "temperature": 100, "classifier_free_guidance": 30, "output_format": "mp3"},
    {"bpm": 300, "seed": 1e3, "variations": 20, "output_format": "wav", "model_version": "medium"},
    {"max_duration": 20},
]
OUTSIDE = {
    "bpm": [39.999, 300.001, 0, -120],
    "variations": [0, 21, -1, 1.5],
    "max_duration": [1, 21, 2.5],
    "seed": [1.5, "1"],
    "top_k": [1.5],
    "top_p": ["a"],
    "temperature": [True],
    "classifier_free_guidance": [3.5],
    "output_format": ["WAV", "", 1],
    "model_version": ["Medium", "tiny"],
}


@pytest.mark.parametrize("edges", INSIDE, ids=lambda edges: " ".join(edges))
def test_each_bound_at_its_edge_is_served(server, edges):
    wish = {**SHORT, **edges}
    answer = server.post(wish).json()
    assert answer["status"] == "succeeded", answer
    told = [text for text in answer["output"].values() if text is not None]
    kind = {"wav": "data:audio/x-wav", "mp3": "data:audio/mpeg"}[wish.get("output_format", "wav")]
    assert len(told) == wish["variations"] and all(text.startswith(kind) for text in told)


@pytest.mark.parametrize("name", OUTSIDE)
def test_what_is_just_past_a_bound_is_refused(server, name):
    for value in OUTSIDE[name]:
        reply = server.post({**SHORT, name: value})
        assert reply.status_code == 422 and name in reply.text, (name, value, reply.text)


def test_a_fuzz_from_our_own_schema_finds_nothing(server):
    sent, failures = fuzz.run(server.client, server.when_free, 60, seed=1)
    assert sent > 60 and not failures, "\n".join(failures)
    assert server.health()["status"] in ("READY", "BUSY")


@pytest.mark.ends_the_server
def test_an_answer_in_the_making_is_given_before_a_terminated_server_goes_and_a_new_start_sweeps(server):
    folder = pathlib.Path(server.folder)
    faults.terminated(server)
    Scratch(folder).sweep()
    assert not [file for file in folder.rglob("*") if file.suffix in (".wav", ".part")]
