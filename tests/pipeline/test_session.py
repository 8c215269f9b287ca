"""What a session asks of its generator, and what it makes of the answers; nothing is played, and takes are made up."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from looper.beats.grid import BeatGrid
from looper.beats.spans import Span
from looper.generation.messages import GenerationOutput, ModelSpec
from looper.loops.key import HeardKey
from looper.loops.loop import Loop
from looper.loops.seam import SeamReport
from looper.melody import Melody
from looper.model.beat_clock import clock_features
from looper.musical_key import Key
from looper.pipeline import session as module
from looper.pipeline.session import LoopSession
from looper.pipeline.takes import Take
from looper.request import LoopRequest, Sampling
from testkit.fakes import FakeGenerator

RATE, HOP = 32_000, 640
SECONDS = 30  # of the window


class Player(FakeGenerator):
    """Plays nothing, at once: the first sample of a row says which variation and attempt it is."""

    def __init__(self, clocked=False, melody_samples=None, codes=False):
        super().__init__(clocked)
        self.melody_samples, self.codes = melody_samples, codes

    @property
    def spec(self):
        return ModelSpec(50.0, HOP, SECONDS, self.clocked, 1, self.melody_samples)

    def generate(self, request, progress=None):
        self.calls.append(request)
        samples = np.zeros((len(request.keys), request.frames * HOP), np.float32)
        samples[:, 0] = [100 * key.variation + key.attempt for key in request.keys]
        codes = None
        if self.codes:
            attempts = np.array([key.attempt for key in request.keys])
            codes = np.broadcast_to(attempts[:, None, None], (len(attempts), 4, request.frames)).copy()
        progress(request.frames, request.frames)
        return GenerationOutput(samples, codes, 12.5)


def grid(bpm=120.0, start=0.5, end=8.5, confidence=0.8, more=()):
    spans = (Span(start, end, 16, 0.6), *more)
    return BeatGrid(bpm, 4, np.zeros(0), np.zeros(0), start, end, 4.0, confidence, spans)


def first_loop(bpm=120.0, start=0.5, end=8.5, seconds=12):
    """A take whose samples count from 1 on."""
    samples = np.arange(1, seconds * RATE + 1, dtype=np.float32)
    return Take(samples, grid(bpm, start, end), 0, 0.8, False)


def begun(generator=None, told=None, melody=None, **wish):
    request = LoopRequest(**{"prompt": "drums", "seed": 5, "bpm": 120, **wish})
    progress = lambda *step: None if told is None else told.append(step)
    return LoopSession(generator or Player(), request, progress, melody=melody)


@pytest.fixture
def scored(monkeypatch):
    """Takes are as good as a table of (variation, attempt) says; gives what was asked of the beat's finder."""

    def stand_in(table=lambda variation, attempt: (0.8, False), **found):
        asked = []

        def score_take(samples, rate, plan, beats_per_bar, downbeat=None):
            score, drifted = table(*divmod(int(samples[0]), 100))
            asked.append((rate, beats_per_bar, downbeat))
            return Take(samples, grid(**found), 0, score, drifted)

        monkeypatch.setattr(module, "score_take", score_take)
        return asked

    return stand_in


@pytest.mark.parametrize(
    ("good", "rounds", "taken"), [(0, 1, 0), (3, 1, 3), (4, 2, 4), (11, 3, 11), (12, 3, 2), (None, 3, 2)]
)
def test_four_candidates_are_drawn_at_once_and_two_rounds_more_while_even_the_best_drifts(
    scored, good, rounds, taken
):
    """Of those that drift the third is the best."""
    scored(lambda _, attempt: (0.9, False) if attempt == good else (0.3 if attempt == 2 else 0.2, True))
    session = begun()
    first = session.first()
    assert (first.attempt, first.score) == (taken, 0.3 if taken == 2 else 0.9)
    assert [[tuple(key) for key in call.keys] for call in session.generator.calls] == [
        [(5, 1, attempt) for attempt in range(4 * k, 4 * k + 4)] for k in range(rounds)
    ]
    assert len(session.report.notes) == (taken == 2)


@pytest.mark.parametrize("clocked", [False, True])
def test_a_candidate_is_asked_for_from_the_bars_first_beat(scored, clocked):
    asked, told = scored(), []
    session = begun(Player(clocked), told, top_k=7, beats_per_bar=3)
    session.first()
    (call,) = session.generator.calls
    assert list(call.prompts) == ["drums, 120 bpm"] * 4 and call.sampling == Sampling(top_k=7)
    assert call.frames == session.plan.first_frames and call.audio_prompts is None and call.melody is None
    if clocked:
        assert len(call.clock) >= call.frames + 3  # the last codebook's delay
        assert np.array_equal(call.clock[: call.frames], clock_features(call.frames, 25, 3, 0))
    else:
        assert call.clock is None
    assert asked == [(RATE, 3, None)] * 4
    assert told == [("candidates", call.frames, call.frames)]
    assert session.report.steps_per_second == {"candidates": 12.5}


def test_what_drifts_is_drawn_again_and_of_equally_good_draws_the_first_is_kept(scored):
    table = {(2, 0): (0.5, False), (3, 0): (0.1, True), (3, 1): (0.4, False), (4, 0): (0.2, True)}
    table |= {
        (4, 1): (0.2, True),
        (4, 2): (0.2, True),
        (5, 0): (0.2, True),
        (5, 1): (0.1, True),
        (5, 2): (0.3, True),
    }
    scored(lambda variation, attempt: table[variation, attempt])
    session = begun(variations=5)
    takes = session.continuations(first_loop())
    assert [(take.score, take.attempt) for take in takes] == [(0.5, 0), (0.4, 1), (0.2, 0), (0.3, 2)]
    assert [[tuple(key)[1:] for key in call.keys] for call in session.generator.calls] == [
        [(2, 0), (3, 0), (4, 0), (5, 0)],
        [(3, 1), (4, 1), (5, 1)],
        [(4, 2), (5, 2)],
    ]
    (note,) = session.report.notes
    assert note.startswith("variations [4, 5] have no clear beat")


def test_variations_can_be_named_and_come_in_their_order(scored):
    scored()
    session = begun(variations=2)
    takes = session.continuations(first_loop(), [1, 7, 3])
    assert [take.samples[0] for take in takes] == [100, 300, 700]
    assert len(session.generator.calls) == 1 and session.report.notes == []


@pytest.mark.parametrize(
    ("clocked", "bpm", "end", "frames"),
    [
        (False, 120.0, 8.5, 100),  # a bar of 2 s: 100 frames of 640 samples
        (False, 125.0, 8.5, 96),  # as long as it is really played, in whole frames
        (False, 121.0, 8.5, 99),
        (False, 115.0, 8.5, 100),  # no longer than is planned
        (True, 125.0, 8.5, 100),  # a clock's bar has its frames whatever was measured
        (False, 120.0, 1.0, 100),  # begins with silence
    ],
)
def test_variations_hear_the_bar_before_the_loops_end(scored, clocked, bpm, end, frames):
    asked = scored()
    session = begun(Player(clocked), variations=2)
    session.continuations(first_loop(bpm, 0.5, end))
    (call,) = session.generator.calls
    (heard,) = call.audio_prompts
    last, n = round(end * RATE), frames * HOP
    assert heard.dtype == np.float32
    assert np.array_equal(heard, np.maximum(0, np.arange(last - n + 1, last + 1)))
    assert asked == [(RATE, 4, n / RATE)] and call.frames == session.plan.next_frames


def test_a_stereo_bar_that_begins_before_the_music_begins_with_silence_in_both_channels(scored):
    scored()
    session = begun(variations=2)
    made = first_loop(end=1.0)
    session.continuations(replace(made, samples=np.stack([made.samples, -made.samples], 1)))
    (heard,) = session.generator.calls[0].audio_prompts
    assert heard.shape == (64_000, 2) and not heard[:32_000].any()
    assert np.array_equal(heard[32_000:, 1], -np.arange(1.0, 32_001))


@pytest.mark.parametrize(
    ("wish", "beats", "start"),
    [
        ({}, 16, 0),
        ({}, 17, 1),
        ({}, 18.4, 2),  # whole beats are counted
        ({"beats_per_bar": 3}, 16, 1),
        ({"bpm": 48, "beats_per_bar": 16, "max_duration": 20}, 40, 12),  # twelve beats of the bar are heard
    ],
)
def test_a_clock_goes_on_at_the_beat_on_which_the_audio_prompt_begins(scored, wish, beats, start):
    scored()
    session = begun(Player(clocked=True), variations=2, **wish)
    period, metre = session.plan.period, session.request.beats_per_bar
    session.continuations(first_loop(start=0.0, end=beats * period / 50, seconds=26))
    (call,) = session.generator.calls
    assert session.plan.prompt_beats == (12 if metre == 16 else metre)
    assert np.array_equal(call.clock[: call.frames], clock_features(call.frames, period, metre, start))


NOISE = np.random.default_rng(1).standard_normal(45_000).astype(np.float32)


@pytest.mark.parametrize(("start", "end"), [(0.5, 8.5), (3.0, 11.0), (0.0, 1.0)])
def test_a_melody_is_repeated_and_variations_go_on_in_it_from_the_first_loops_beginning(scored, start, end):
    scored()
    tune = Melody(NOISE, RATE)
    session = begun(Player(melody_samples=1000), melody=tune, variations=2)
    session.first()
    session.continuations(first_loop(start=start, end=end))
    first, second = (call.melody for call in session.generator.calls)
    n, heard = SECONDS * RATE, 64_000  # a bar
    assert np.array_equal(first, np.tile(tune.samples, 22)[:n])
    at = [
        *range(round(end * RATE) - heard, round(end * RATE)),
        *range(round(start * RATE), round(start * RATE) + n - heard),
    ]
    assert np.array_equal(second, first[np.array(at) % n])


@pytest.mark.parametrize(("seconds", "notes"), [(29.9, 0), (30, 0), (30.1, 1)])
def test_a_melody_beyond_the_models_window_is_followed_as_far_as_it_goes(seconds, notes):
    tune = Melody(np.resize(NOISE, round(seconds * 8_000)), 8_000)
    session = begun(Player(melody_samples=1000), melody=tune)
    assert [
        note for note in session.report.notes if "its first 30 s are followed" in note
    ] == session.report.notes
    assert len(session.report.notes) == notes


def test_a_melody_is_refused_by_a_model_that_takes_text_alone():
    with pytest.raises(ValueError, match="cannot be followed by fake, which takes text alone"):
        begun(melody=Melody(NOISE, RATE))


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"max_duration": 2}, []),  # just a bar
        ({"bpm": 100, "max_duration": 2}, ["2 beats long"]),
        ({"bpm": 40, "max_duration": 2, "variations": 1}, ["1 beat long"]),
        ({"prompt": "house, 90 bpm"}, ["bpm=120 overrides it"]),
        ({"bpm": 48, "beats_per_bar": 16, "max_duration": 20, "variations": 1}, []),
        ({"bpm": 48, "beats_per_bar": 16, "max_duration": 20, "variations": 2}, ["from the last 6 beats"]),
        ({"variations": 2}, []),
    ],
)
def test_what_is_out_of_the_ordinary_is_said_before_anything_is_drawn(wish, words):
    notes = begun(**{"variations": 2, **wish}).report.notes
    assert len(notes) == len(words) and all(word in note for word, note in zip(words, notes, strict=True))


@pytest.mark.parametrize(
    ("wish", "bars"), [({}, 4.0), ({"bpm": 100, "max_duration": 2}, 0.5), ({"beats_per_bar": 3}, 4.0)]
)
def test_the_report_counts_bars(wish, bars):
    report = begun(**wish).report
    assert (report.bars, report.seed, report.model) == (bars, 5, "fake")


@pytest.fixture
def cuts(monkeypatch):
    """Takes are cut to a loop of no length to speak of; sets are finished as they are."""

    def cut(samples, rate, bpm, beats_per_bar, *, grid):
        return Loop(np.zeros(8, np.float32), rate, bpm, beats_per_bar, 16, grid, SeamReport(1.0))

    monkeypatch.setattr(module, "cut", cut)
    monkeypatch.setattr(module, "finish", list)


@pytest.mark.usefixtures("cuts")
@pytest.mark.parametrize("variations", [1, 2, 3])
def test_a_run_gives_the_first_loop_and_its_variations_in_order_with_what_made_them(scored, variations):
    scored(
        lambda variation, attempt: (
            (0.8, variation == 3 and attempt == 0) if variation > 1 else (0.1 * attempt, False)
        )
    )
    told = []
    session = begun(told=told, variations=variations)
    loops = session.run()
    assert [dict(loop.info) for loop in loops] == [
        {"prompt": "drums", "seed": 5, "variation": k, "model": "fake"} for k in range(1, variations + 1)
    ]
    assert {loop.bpm for loop in loops} == {120} and loops.report is session.report
    stages = ["candidates", "variations", "loops"] if variations > 1 else ["candidates", "loops"]
    assert list(loops.report.seconds) == stages and list(dict.fromkeys(step[0] for step in told)) == stages
    assert [step[1:] for step in told if step[0] == "loops"] == [
        (k, variations) for k in range(1, variations + 1)
    ]
    assert loops.report.attempts == [4, 1, 1][:variations]  # a second draw as good as the first is not taken
    assert loops.report.measured_bpm == [120.0] * variations and loops.report.confidence == [0.8] * variations
    assert loops.report.seam_log_likelihood == [] and loops.report.keys == []


@pytest.mark.usefixtures("cuts")
def test_loops_of_a_melody_say_which(scored):
    scored()
    tune = Melody(NOISE, RATE)
    (loop,) = begun(Player(melody_samples=1000), melody=tune, variations=1).run()
    assert loop.info["melody"] == tune.identity


@pytest.mark.parametrize(
    ("seams", "told"), [([None, None], []), ([-0.5, None], [-0.5, None]), ([0.1, -0.2], [0.1, -0.2])]
)
def test_seams_are_told_where_any_was_judged_and_attempts_are_counted_from_1(seams, told):
    session = begun()
    session.report_takes(
        [
            replace(first_loop(bpm=119 + k), attempt=k, seam_log_likelihood=seam)
            for k, seam in enumerate(seams)
        ]
    )
    assert session.report.seam_log_likelihood == told and session.report.attempts == [1, 2]
    assert session.report.measured_bpm == [119, 120]


def test_keys_are_told_where_one_was_asked_for_and_only_clear_ones_by_name():
    fits = np.zeros(24)
    heard = [None, HeardKey(Key(9, True), 0.4, False, fits), HeardKey(Key(0, False), 0.9, True, fits)]
    loops = [SimpleNamespace(heard_key=key) for key in heard]
    asked, plain = begun(key="A minor"), begun()
    for session in (asked, plain):
        session.report_keys(loops)
    assert asked.report.keys == [None, None, "C major"] and asked.report.key_confidence == [0.0, 0.4, 0.9]
    assert "A minor was asked for; heard: no clear key in 2, C major in 1" in asked.report.notes
    assert plain.report.keys == [] and plain.report.key_confidence == [] and plain.report.notes == []


def test_only_candidates_are_judged_by_the_asked_key(scored, monkeypatch):
    scored()
    far = lambda take, rate, asked: {"A minor": 0.3}[asked] * take.samples[0] / rate
    monkeypatch.setattr(module, "distance_from_key", far)
    session = begun(key="A minor", variations=2)
    candidates = session.draw_candidates([2, 1])
    assert [take.key_distance for take in candidates] == pytest.approx([0.3 * n / RATE for n in (102, 101)])
    assert [take.attempt for take in candidates] == [2, 1]
    assert session.continuations(first_loop())[0].key_distance == 0
    assert begun().draw_candidates([2])[0].key_distance == 0


def test_candidates_are_tried_in_other_cuts_and_each_is_judged_by_its_own_seam(scored):
    scored(more=(Span(2.5, 10.5, 16, 0.5), Span(3.1, 11.1, 16, 0.5)))  # a bar later, and off the bar line
    generator, texts = Player(codes=True), []

    def log_likelihoods(text, passages, melody):
        texts.append((text, melody))
        # after the loop's own end, then in place: they differ by the attempt and by a tenth for the later cut
        marks = [(passage.codes[0, 0], passage.start) for passage in passages]
        assert len(marks) == 8 and [start for _, start in marks] == [100, 25, 100, 100] * 2
        return np.array([-3.0, -1.0, -2.0, -1.5, -0.5, -0.75, np.nan, -1.0])

    generator.log_likelihoods = log_likelihoods
    session = begun(generator)
    takes = session.draw_candidates([3, 6])
    assert [(take.attempt, take.grid.loop_start) for take in takes] == [
        (3, 0.5),
        (3, 2.5),
        (6, 0.5),
        (6, 2.5),
    ]
    assert [take.seam_log_likelihood for take in takes] == [-2.0, -0.5, 0.25, None]
    assert texts == [("drums, 120 bpm", None)]


def test_without_codes_there_is_one_cut_and_no_seam_to_judge(scored):
    scored(more=(Span(2.5, 10.5, 16, 0.5),))
    (take,) = begun().draw_candidates([0])
    assert take.codes is None and take.seam_log_likelihood is None
