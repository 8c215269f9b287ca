"""The driver loop by itself, with a stand-in for Ray whose workers do what a test says, in no time."""

import types
from pathlib import Path

import pytest

from looper.batch.ray_driver import MOST_FALSE_STARTS, RayPlan, _Crew
from looper.batch.record import Record
from looper.batch.requests import read_requests
from looper.batch.worker import DeviceLostError


class RayError(Exception):
    pass


class RayTaskError(RayError):
    def __init__(self, cause):
        super().__init__(str(cause))
        self.cause = cause


class Actor:
    """Its calls stay open until they are waited for, in their order."""

    def __init__(self, ray):
        self.ray, self.alive = ray, True
        self.calls = []
        self.__ray_ready__ = types.SimpleNamespace(remote=lambda: self._call(None))
        self.make = types.SimpleNamespace(remote=lambda line, tries: self._call((line, tries)))

    def _call(self, what):
        ref = (id(self), len(self.calls), what)
        self.calls.append(ref)
        self.ray.open[ref] = self
        self.ray.most = max(self.ray.most, sum(1 for actor in self.ray.open.values() if actor is self))
        return ref


class FakeRay:
    """`act(prompt)` says what a line does: "ok", "die", "lost" (its GPU), or an exception of the worker."""

    def __init__(self, act, starts=True, resources=({"CPU": 2},)):
        self.act, self.starts, self.resources = act, starts, list(resources)
        self.open, self.killed, self.hired, self.most, self.mixed = {}, [], [], 0, []
        self.exceptions = types.SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def cluster_resources(self):
        return self.resources.pop(0) if len(self.resources) > 1 else self.resources[0]

    def remote(self, **options):
        self.options = options

        def start(*args, **kwargs):
            self.hired.append(Actor(self))
            return self.hired[-1]

        return lambda worker: types.SimpleNamespace(remote=start)

    def kill(self, actor):
        self.killed.append(actor)
        actor.alive = False

    def wait(self, refs, timeout):
        for actor in set(self.open.values()):
            models = {ref[2][0].model for ref in refs if ref[2] and self.open[ref] is actor}
            self.mixed.append(len(models) > 1)
        return [next(ref for ref in self.open if ref in refs)], []

    def get(self, ref):
        actor = self.open.pop(ref)
        if not actor.alive or not self.starts:
            raise RayError("the actor died")
        if ref[2] is None:
            return True
        line, tries = ref[2]
        outcome = self.act(line.request.prompt)
        if outcome == "die":
            actor.alive = False
            raise RayError("the actor died")
        if isinstance(outcome, Exception):
            raise RayTaskError(outcome)
        return Record.of(line, "ok", tries=tries)


def lines(*prompts, model=lambda k: "tiny"):
    return read_requests([{"prompt": p, "seed": k, "model": model(k)} for k, p in enumerate(prompts)])


def crew(ray, todo, **plan):
    return _Crew(ray, Path("packs"), RayPlan(workers=2, **plan), todo)


@pytest.mark.parametrize("in_flight", [1, 4])
def test_only_the_line_that_kills_is_lost_whoever_was_with_it(in_flight):
    ray = FakeRay(lambda prompt: "die" if prompt == "deadly" else "ok")
    todo = lines(*"abcd", "deadly", *"efgh", "deadly", *"ij")
    records = list(crew(ray, todo, in_flight=in_flight).records())
    assert sorted(record.line for record in records) == [line.number for line in todo]
    lost = [record for record in records if record.status == "lost"]
    assert [record.request["prompt"] for record in lost] == ["deadly", "deadly"]
    assert all(record.tries == 3 for record in lost)
    assert max(record.tries for record in records if record.status == "ok") <= 3
    assert len(ray.killed) == 6 and ray.most == in_flight + 1


def test_a_worker_whose_gpu_is_lost_is_replaced_and_its_line_made_by_another():
    seen = []

    def act(prompt):
        seen.append(prompt)
        return DeviceLostError("gone") if prompt == "c" and seen.count("c") == 1 else "ok"

    ray = FakeRay(act)
    records = list(crew(ray, lines(*"abcde")).records())
    assert {record.status for record in records} == {"ok"} and len(records) == 5
    assert len(ray.killed) == 1 and len(ray.hired) == 3


def test_what_is_no_lines_fault_ends_the_batch():
    ray = FakeRay(lambda prompt: OSError(28, "cannot write to packs") if prompt == "c" else "ok")
    with pytest.raises(OSError, match="cannot write to packs"):
        list(crew(ray, lines(*"abcde")).records())


def test_workers_that_never_start_are_not_hired_for_ever():
    ray = FakeRay(lambda prompt: "ok", starts=False)
    with pytest.raises(RuntimeError, match="workers cannot start on Ray: the actor died"):
        list(crew(ray, lines(*"abc")).records())
    assert len(ray.killed) == MOST_FALSE_STARTS


def test_a_worker_is_never_given_lines_of_two_models_at_once():
    ray = FakeRay(lambda prompt: "ok")
    todo = lines(*"abcdefgh", model=lambda k: "tiny" if k < 5 else "large")
    assert len(list(crew(ray, todo, in_flight=3).records())) == 8
    assert not any(ray.mixed)


def test_workers_have_a_gpu_each_where_the_first_node_to_come_has_one(monkeypatch):
    monkeypatch.setattr("looper.batch.ray_driver.POLL_SECONDS", 0)
    ray = FakeRay(lambda prompt: "ok", resources=({}, {}, {"CPU": 8, "GPU": 3}))
    todo = lines(*"abcdef")
    records = list(_Crew(ray, Path("packs"), RayPlan("auto"), todo).records())
    assert len(records) == 6 and ray.options["num_gpus"] == 1 and len(ray.hired) == 3
    assert (ray.options["max_restarts"], ray.options["max_task_retries"]) == (0, 0)
