"""Rows of many requests decoded together: each comes out as it does alone, and none harms another."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from looper.generation.batch import Row
from looper.generation.engine import Engine
from looper.generation.generator import Generator
from looper.generation.lane import ROUND, Lane
from looper.generation.tasks import DecodeError
from looper.model.beat_clock import clock_features
from looper.request import Sampling
from testkit.decoding import TEXT, described, prompt_codes
from testkit.properties import examples

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = (TEXT, "techno", "jazz swing piano " * 8, "jazz " * 60)
SAMPLINGS = (
    Sampling(top_k=20),
    Sampling(top_k=5, temperature=0.8),
    Sampling(temperature=0),
    Sampling(top_k=0, cfg_coef=2),
    Sampling(top_p=0.9),
    Sampling(top_k=20, cfg_coef=1),
)


class Cancelled(BaseException):
    """As Cog's: not an Exception."""


@st.composite
def requests(draw):
    """A call: rows of some texts, prompts and lengths, a sampling, when it comes and whether it is cancelled."""
    number = st.integers(0, 10_000)
    rows = [
        (
            draw(st.sampled_from(TEXTS)),
            draw(number),
            draw(st.sampled_from([0, 0, 1, 7, 20])),
            draw(st.integers(21, 50)),
        )
        for _ in range(draw(st.integers(1, 4)))
    ]
    delay = draw(st.sampled_from([0.0, 0.0, 0.01, 0.05]))
    return rows, draw(st.sampled_from(SAMPLINGS)), delay, draw(st.integers(0, 5)) == 0


def until(condition) -> None:
    """Wait for what other threads bring about."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


class Calls:
    """Makes calls to an engine, and remembers what their rows are alone."""

    def __init__(self, generator: Generator, clocked: bool) -> None:
        self.generator, self.alone = generator, {}
        self.texts = {text: generator.encode_text(text) for text in TEXTS}
        self.clock = torch.from_numpy(clock_features(99, 25)) if clocked else None

    def row(self, text, number, given, frames) -> Row:
        prompt = prompt_codes(self.generator, given) if given else None
        return Row(self.texts[text], (3, number, 0), prompt, self.clock if number % 2 else None, frames)

    def expected(self, what, sampling):
        key = what, sampling
        if key not in self.alone:
            self.alone[key] = self.generator.engine.decode([self.row(*what)], what[-1], sampling)[0]
        return self.alone[key]

    def make(self, engine: Engine, call) -> None:
        rows, sampling, delay, cancelled = call
        time.sleep(delay)
        longest = max(frames for *_, frames in rows)

        def progress(done, total):
            if cancelled and done:
                raise Cancelled

        try:
            codes = engine.decode([self.row(*row) for row in rows], longest, sampling, progress)
        except Cancelled:
            return
        for what, made in zip(rows, codes, strict=True):
            assert torch.equal(made[:, : what[-1]], self.expected(what, sampling))
            assert (made[:, what[-1] :] == -1).all()


@pytest.fixture(scope="module", params=["t5", "custom", "wide", "shipped"])
def calls(request, models) -> Calls:
    if request.param == "shipped":
        return Calls(request.getfixturevalue("shipped"), clocked=True)
    return Calls(models(request.param), clocked=False)


@settings(
    examples(4),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(requests(), min_size=2, max_size=5), st.integers(1, 6), st.integers(1, 3), st.booleans())
def test_rows_of_requests_that_come_and_go_are_bit_for_bit_those_they_are_alone(
    calls, some, slots, workers, few
):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("looper.generation.lane_pool.MOST_ROWS", slots)
        patch.setattr("looper.generation.lane.few_shapes", lambda device: few)
        patch.setattr("looper.generation.lane_pool.FEWEST_PER_LANE", 1)
        engine = Engine(calls.generator.model, workers=workers)
        with ThreadPoolExecutor(len(some)) as pool:
            list(pool.map(lambda call: calls.make(engine, call), some))
        until(lambda: engine.status().rows_running + engine.status().rows_waiting == 0)
        assert all(lane.most <= slots for lanes in engine.lanes.by_kind.values() for lane in lanes)


def test_greedy_rows_among_others_are_audiocrafts(models):
    generator = models("t5")
    theirs = generator.model.lm.generate(
        prompt=prompt_codes(generator, 9)[None],
        conditions=described(TEXT),
        max_gen_len=70,
        use_sampling=False,
        cfg_coef=3.0,
    )
    engine, text = Engine(generator.model), generator.encode_text(TEXT)

    def other(k):
        engine.decode([Row(text, (1, k, i), None, None) for i in range(4)], 30 + 20 * k, SAMPLINGS[k])

    with ThreadPoolExecutor(4) as pool:
        others = [pool.submit(other, k) for k in (0, 4, 3)]
        greedy = Row(text, (0, 0, 0), prompt_codes(generator, 9))
        assert torch.equal(engine.decode([greedy], 70, Sampling(temperature=0)), theirs)
        for made in others:
            made.result()


def test_a_long_row_leaves_the_short_slots_alone_and_is_the_same(models, monkeypatch):
    generator = models("t5")
    assert Engine(generator.model).lanes.columns == [704, 1504]
    monkeypatch.setattr("looper.generation.lane_pool.SHORT_COLUMNS", 96)
    engine = Engine(generator.model)
    text = generator.encode_text(TEXT)
    short, long = Row(text, (0, 0, 0), None, None, 60), Row(text, (0, 1, 0), None, None, 120)
    together = engine.decode([short, long], 120, Sampling(top_k=20))
    assert sorted(kind.columns for kind in engine.lanes.by_kind) == [96, 1504]
    assert torch.equal(engine.decode([long], 120, Sampling(top_k=20))[0], together[1])
    assert torch.equal(engine.decode([short], 60, Sampling(top_k=20))[0], together[0, :, :60])


def held(engine: Engine, monkeypatch) -> tuple[threading.Event, list[list[int]]]:
    """Let no round begin before the event is set; return it, and the requests of the rows in each round."""
    begin, rounds = threading.Event(), []
    advance = Lane.advance

    def waiting(lane):
        assert begin.wait(20)
        rounds.append([task.request.number for task in lane.tasks])
        advance(lane)

    monkeypatch.setattr(Lane, "advance", waiting)
    return begin, rounds


def test_a_free_slot_goes_to_the_request_with_the_fewest_rows_running(models, monkeypatch):
    monkeypatch.setattr("looper.generation.lane_pool.MOST_ROWS", 4)
    engine, text = Engine(models("t5").model), models("t5").encode_text(TEXT)
    begin, rounds = held(engine, monkeypatch)

    def ask(rows, number):
        return engine.decode([Row(text, (number, k, 0)) for k in range(rows)], 40, Sampling(top_k=20))

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(ask, 10, 1)
        until(lambda: engine.status().rows_running == 4)
        others = [pool.submit(ask, 1, 2), pool.submit(ask, 2, 3)]
        until(lambda: engine.status().rows_waiting == 9)
        begin.set()
        for made in (first, *others):
            made.result(timeout=60)
    assert rounds[0] == [1, 1, 1, 1]
    second = next(numbers for numbers in rounds if numbers != rounds[0])
    assert sorted(second) == [1, 2, 3, 3] or sorted(second) == [1, 1, 2, 3]
    assert set(rounds[-1]) == {1}, "the large request ends last"


def test_a_request_larger_than_all_slots_is_served_in_parts(models, monkeypatch):
    text = models("t5").encode_text(TEXT)
    rows = [Row(text, (0, k, 0)) for k in range(20)]
    whole = models("t5").engine.decode(rows, 30, Sampling(top_k=20))
    monkeypatch.setattr("looper.generation.lane_pool.MOST_ROWS", 3)
    engine = Engine(models("t5").model)
    assert torch.equal(engine.decode(rows, 30, Sampling(top_k=20)), whole)


def test_a_row_that_is_not_finite_fails_its_request_alone_and_leaves_nothing_behind(models, monkeypatch):
    engine, text = Engine(models("t5").model), models("t5").encode_text(TEXT)
    rows = [Row(text, (0, k, 0)) for k in range(6)]
    whole = engine.decode(rows, 60, Sampling(top_k=20))
    prefill = Lane._prefill

    def spoil(lane, slots, tasks):
        prefill(lane, slots, tasks)
        for task in tasks:
            if task.row.key[0] == 9:
                slots.cache[1][2 * task.slot] = float("nan")

    monkeypatch.setattr(Lane, "_prefill", spoil)
    begin, _ = held(engine, monkeypatch)
    with ThreadPoolExecutor(3) as pool:
        good = pool.submit(engine.decode, rows[:3], 60, Sampling(top_k=20))
        bad = pool.submit(engine.decode, [rows[3], Row(text, (9, 0, 0))], 60, Sampling(top_k=20))
        other = pool.submit(engine.decode, rows[4:], 60, Sampling(top_k=20))
        until(lambda: engine.status().rows_running + engine.status().rows_waiting == 7)
        begin.set()
        with pytest.raises(DecodeError, match="stopped being finite"):
            bad.result(timeout=60)
        assert torch.equal(good.result(timeout=60), whole[:3])
        assert torch.equal(other.result(timeout=60), whole[4:])
    for _ in range(2):  # the slots that it had among them
        assert torch.equal(engine.decode(rows, 60, Sampling(top_k=20)), whole)


def test_rows_of_a_cancelled_request_leave_within_a_round(models, monkeypatch):
    engine, text = Engine(models("t5").model), models("t5").encode_text(TEXT)
    rounds, advance = [], Lane.advance

    def watched(lane):
        rounds.append(sum(task.row.key[0] == 9 for task in lane.tasks))
        advance(lane)

    monkeypatch.setattr(Lane, "advance", watched)
    cancelled_after = []

    def cancel(done, total):
        if done >= 2 * ROUND:
            cancelled_after.append(len(rounds))
            raise Cancelled

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(engine.decode, [Row(text, (0, 0, 0))], 600, Sampling(top_k=20))
        with pytest.raises(Cancelled):
            engine.decode([Row(text, (9, k, 0)) for k in range(3)], 1000, Sampling(top_k=20), cancel)
        other.result(timeout=60)
    last = max(index for index, rows in enumerate(rounds) if rows)
    assert last <= cancelled_after[0] + 1, "one round may have begun meanwhile"


def test_other_work_runs_between_rounds_and_its_errors_are_the_callers(models):
    engine, text = Engine(models("t5").model), models("t5").encode_text(TEXT)
    with ThreadPoolExecutor(1) as pool:
        decoding = pool.submit(engine.decode, [Row(text, (0, 0, 0))], 900, Sampling(top_k=20))
        until(lambda: engine.status().rows_running)
        assert engine.call(lambda: 7) == 7
        assert engine.map(lambda x: x * x, range(5)) == [0, 1, 4, 9, 16]
        with pytest.raises(ZeroDivisionError):
            engine.call(lambda: 1 // 0)
        assert not decoding.done(), "none of it waited for the decoding"
        assert decoding.result(timeout=60).shape == (1, 4, 900)


def test_an_engine_is_gone_when_nobody_holds_it(models):
    import gc
    import weakref

    engine = Engine(models("t5").model, workers=2)
    engine.decode([Row(models("t5").encode_text(TEXT), (0, 0, 0))], 20, Sampling(top_k=20))
    gone = weakref.ref(engine)
    del engine
    for _ in range(100):
        gc.collect()
        if gone() is None:
            break
        time.sleep(0.02)
    assert gone() is None
