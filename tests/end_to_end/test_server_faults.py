"""Faults and odd requests done to a real Cog server: a clear error or the right answer, and it lives on."""

import pathlib

import pytest

from bench.reliability import faults, fuzz
from looper.service.scratch import Scratch

pytestmark = pytest.mark.server


@pytest.mark.parametrize("name", ["client disconnects", "one request too many", "disk full"])
def test_a_server_survives(server, name):
    right = server.output(faults.REQUEST)
    faults.IN_PLACE[name](server)
    assert server.output(faults.REQUEST) == right


EDGES = {
    "bpm": ([40, 300, 140.5], [39.999, 300.001, 0, -120]),
    "variations": ([1, 20, 2.0], [0, 21, -1, 1.5]),
    "max_duration": ([2, 20], [1, 21, 2.5]),
    "seed": ([-1, 0, 2**31, 2**40, 1e3], [1.5, "1"]),
    "top_k": ([0, 1], [1.5]),
    "top_p": ([0, 1, 0.5], ["a"]),
    "temperature": ([0, 100], [True]),
    "classifier_free_guidance": ([0, -3, 30], [3.5]),
    "output_format": (["wav", "mp3"], ["WAV", "", 1]),
    "model_version": (["medium", "large"], ["Medium", "tiny"]),
    "unknown": ([None, {"a": []}], []),
}


@pytest.mark.parametrize("name", EDGES)
def test_each_bound_at_its_edge_is_served_and_just_past_it_is_refused(server, name):
    inside, outside = EDGES[name]
    for value in inside:
        answer = server.post({**faults.REQUEST, name: value}).json()
        assert answer["status"] == "succeeded", (name, value, answer)
        assert all(text is None or text.startswith("data:audio/") for text in answer["output"].values())
        asked = int(value) if name == "variations" else 1
        assert sum(text is not None for text in answer["output"].values()) == asked
    for value in outside:
        reply = server.post({**faults.REQUEST, name: value})
        assert reply.status_code == 422 and name in reply.text, (name, value, reply.text)


def test_a_fuzz_from_our_own_schema_finds_nothing(server):
    sent, failures = fuzz.run(server.client, server.when_free, 60, seed=1)
    assert sent > 60 and not failures, "\n".join(failures)
    assert server.health()["status"] in ("READY", "BUSY")


def test_an_answer_in_the_making_is_given_before_a_terminated_server_goes_and_a_new_start_sweeps(server):
    folder = pathlib.Path(server.folder)
    faults.terminated(server)
    Scratch(folder).sweep()
    assert not [file for file in folder.rglob("*") if file.suffix in (".wav", ".part")]
