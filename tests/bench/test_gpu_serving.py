"""The simulation of a card against arithmetic by hand."""

import math

import pytest

from bench.speed import gpu_serving as simulated
from bench.speed.serving import arrivals
from looper.pipeline.plan import plan
from looper.request import LoopRequest

PLAIN = simulated.Card("plain", 80e9, 1.0, 0.0)  # a millisecond a step, however many rows


def job(number=0, at=0.0, variations=1, seconds=8):
    request = LoopRequest("x", bpm=120, variations=variations, max_duration=seconds, seed=1)
    return simulated.Job(number, at, plan(request, simulated.SPEC), variations)


def by_hand(variations, first_frames, next_steps):
    """Seconds of a request alone: rounds of 16 steps of a millisecond, and the rest."""
    rounds = lambda steps: 16 * math.ceil(steps / 16) / 1000
    texts, prompt, codec, post = 0.004, 0.003, 0.0015, 0.065
    taken = texts + prompt + rounds(first_frames + 3) + 4 * codec + post  # four candidates on four CPUs
    if variations > 1:
        taken += prompt + rounds(next_steps + 3) + (variations - 1) * codec + post
    return taken + math.ceil(variations / 4) * post


@pytest.mark.parametrize("variations", [1, 4])
def test_a_request_alone_takes_what_its_rounds_and_the_rest_of_it_take(monkeypatch, variations):
    monkeypatch.setattr(simulated, "REDRAWN_FIRST", 0)
    monkeypatch.setattr(simulated, "REDRAWN_NEXT", 0)
    one = job(variations=variations, at=5.0)
    # 4 bars of 2 s and 6 % more, and a bar: 424 + 100 frames; a variation goes on from a bar
    assert (one.plan.first_frames, one.plan.next_frames - one.plan.prompt_frames) == (524, 524)
    (taken,) = simulated.Simulation(PLAIN, 1, [one]).run()
    assert taken == pytest.approx(by_hand(variations, 524, 524))


def test_every_request_is_answered_and_no_lane_holds_more_rows_than_it_has_slots():
    card, most = simulated.CARDS[0], {}
    jobs = [
        simulated.Job(k, call.at, plan(call.request, simulated.SPEC), call.request.variations)
        for k, call in enumerate(arrivals(0.5, 120, 20.0))
    ]

    class Watched(simulated.Simulation):
        def _advance(self, columns, rows):
            most[columns] = max(most.get(columns, 0), len(rows))
            assert self.in_flight <= 8
            super()._advance(columns, rows)

    taken = Watched(card, 8, jobs).run()
    assert len(taken) == len(jobs) and min(taken) > 0
    assert all(0 < rows <= card.rows(columns) for columns, rows in most.items()) and len(most) == 2


def test_more_at_once_never_make_less_of_a_backlog():
    def seconds(at_once):
        simulation = simulated.Simulation(
            simulated.CARDS[0], at_once, [job(k, variations=4) for k in range(40)]
        )
        simulation.run()
        return simulation.now

    one, four, eight = map(seconds, (1, 4, 8))
    assert one > 2 * four and four > 1.3 * eight
