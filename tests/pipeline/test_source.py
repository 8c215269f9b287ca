"""What of a recording is varied, what the model hears of it, and how the set is told; nothing is generated."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from looper.beats.grid import BeatGrid
from looper.beats.spans import Span
from looper.generation.messages import ModelSpec
from looper.loops.loop import Loop
from looper.loops.resample import resampled
from looper.loops.seam import SeamReport
from looper.pipeline import from_recording as module
from looper.pipeline.from_recording import RecordingSession, Source, find_source
from looper.request import LoopRequest
from testkit.fakes import FakeGenerator

RATE = 4_000


def grid(bpm=60.0, beats=8, confidence=0.9, beats_per_bar=4, start=1.0):
    end = start + beats * 60 / bpm
    span = Span(start, end, beats, 1.0)
    times = np.arange(4.0)
    return BeatGrid(
        bpm, beats_per_bar, times, times[:1], start, end, beats / beats_per_bar, confidence, (span,)
    )


class Found:
    """What stands for the fit, the cut and the stretch: each is noted, and no sample is touched."""

    def __init__(self, monkeypatch, click=0.5, **facts):
        self.facts, self.fits, self.cuts, self.stretched = facts, [], [], []
        monkeypatch.setattr(module, "fit_grid", self.fit_grid)
        monkeypatch.setattr(module, "cut", self.cut)
        monkeypatch.setattr(module, "_at_tempo", self.at_tempo)
        monkeypatch.setattr(module, "click_ratio", lambda samples: click)

    def fit_grid(self, samples, rate, bpm, beats_per_bar, *, max_seconds, beats):
        self.fits.append((bpm, beats_per_bar, max_seconds, beats))
        return grid(**{"beats_per_bar": beats_per_bar, **({"beats": beats} if beats else {}), **self.facts})

    def cut(self, samples, rate, bpm, beats_per_bar, *, bars=None, grid):
        self.cuts.append((bars, grid.loop_start, grid.loop_end, grid.beats, grid.bars))
        return Loop(samples, rate, bpm, beats_per_bar, grid.beats, grid, SeamReport(1.0))

    def at_tempo(self, ring, rate, bpm, grid):
        self.stretched.append((len(ring), bpm, grid.beats))
        return Loop(ring, rate, bpm, grid.beats_per_bar, grid.beats, None, SeamReport(1.0))


@pytest.fixture
def found(monkeypatch):
    return lambda **facts: Found(monkeypatch, **facts)


def noise(seconds, rate=RATE, channels=0):
    shape = (round(seconds * rate), channels) if channels else round(seconds * rate)
    return np.random.default_rng(4).uniform(-0.5, 0.5, shape).astype(np.float32)


@pytest.mark.parametrize(
    ("seconds", "wish", "facts", "beats"),
    [
        (16, {}, {}, 16),
        (4, {}, {}, 4),
        (12, {}, {}, 12),  # three bars
        (12, {"beats_per_bar": 3}, {}, 12),  # four
        (16.015, {}, {}, 16),  # a fiftieth of a beat is no other length
        (15.985, {}, {}, 16),
        (16.025, {}, {}, None),
        (15.975, {}, {}, None),
        (20, {}, {}, None),  # five bars
        (24, {}, {}, None),  # six, of over 20 s
        (14, {}, {}, None),  # three and a half
        (2, {}, {"beats": 2}, None),
        (20, {"bpm": 96}, {"bpm": 96}, 32),  # eight of just 20 s
        (20.01, {"bpm": 95.95}, {"bpm": 95.95}, None),  # eight of just more
        (16 * 60 / 61, {}, {"bpm": 61.0}, 16),  # whole at the tempo that is heard in it
        (16, {}, {"bpm": 61.0}, 16),  # whole at the asked one
        (16, {"bars": 4, "max_duration": 16}, {}, 16),
        (16, {"bars": 2}, {}, None),
    ],
)
def test_whole_bars_are_a_loop_as_they_are_and_from_all_else_one_is_cut(found, seconds, wish, facts, beats):
    stand_in = found(**facts)
    request = LoopRequest("x", **{"bpm": 60, "max_duration": 8, **wish})
    samples = noise(seconds)
    source = find_source(samples, RATE, request)
    asked = None if request.bars is None else request.beats
    assert stand_in.fits == [(request.bpm, request.beats_per_bar, request.max_duration, asked)]
    assert source.whole is (beats is not None) and source.loop.samples.ndim == 1
    if beats is None:
        assert [bars for bars, *_ in stand_in.cuts] == [request.bars]
        return
    assert stand_in.cuts == [] and source.loop.beats == beats
    exact = len(samples) == round(beats * 60 / request.bpm * RATE)
    assert stand_in.stretched == ([] if exact else [(len(samples), request.bpm, beats)])
    assert np.array_equal(source.loop.samples, samples)
    told = source.loop.grid
    assert (told.loop_start, told.loop_end) == (0, len(samples) / RATE)
    assert told.spans == (Span(0, len(samples) / RATE, beats, 0.0),)
    assert told.bars == beats / request.beats_per_bar and told.bpm == facts.get("bpm", 60)


def test_a_whole_recording_that_clicks_is_closed_where_it_ends(found):
    stand_in = found(click=1.51)
    source = find_source(noise(16), RATE, LoopRequest("x", bpm=60))
    assert stand_in.cuts == [(None, 0, 16, 16, 4)] and source.whole
    assert len(source.notes) == 1 and "clicks when it repeats" in source.notes[0]


@pytest.mark.parametrize(
    ("seconds", "facts", "words"),
    [
        (16, {"confidence": 0.3}, []),
        (16, {"confidence": 0.29}, ["no clear beat near 60 BPM"]),
        (17, {"beats": 4}, []),
        (17, {"beats": 2}, ["2 beats long"]),
        (17, {"beats": 1, "confidence": 0.1}, ["no clear beat", "1 beat long"]),
    ],
)
def test_what_is_doubtful_of_a_recording_is_said(found, seconds, facts, words):
    found(**facts)
    notes = find_source(noise(seconds), RATE, LoopRequest("x", bpm=60)).notes
    assert len(notes) == len(words) and all(word in note for word, note in zip(words, notes, strict=True))


@pytest.mark.parametrize("channels", [0, 1, 2])
@pytest.mark.parametrize("seconds", [16, 17], ids=["whole", "cut"])
def test_a_source_has_the_recordings_shape(found, seconds, channels):
    found()
    samples = noise(seconds, channels=channels)
    assert find_source(samples, RATE, LoopRequest("x", bpm=60)).loop.samples.shape == samples.shape


def test_three_channels_are_refused(found):
    found()
    with pytest.raises(ValueError, match="has 3 channels: mix it down"):
        find_source(noise(16, channels=3), RATE, LoopRequest("x", bpm=60))


def test_a_source_is_thought_a_part_until_it_is_said_to_be_the_whole():
    assert Source(loop=None).whole is False


# --- what the model hears --------------------------------------------------------------------------


class Silent(FakeGenerator):
    """A generator that is asked for nothing."""

    def __init__(self, clocked=False, channels=1):
        super().__init__(clocked)
        self.channels = channels

    @property
    def spec(self):
        return ModelSpec(self.frame_rate, self.hop_length, self.window_seconds, self.clocked, self.channels)


class Session(RecordingSession):
    """Takes and their loops are given; what the continuation begins from is kept."""

    made = ()

    def continuations(self, first, variations=()):
        self.first, self.asked = first, list(variations)
        return [replace(first, attempt=number) for number, _ in enumerate(self.made)]

    def cut(self, takes, variations):
        return list(self.made)


def a_source(samples, rate=RATE, bpm=120.0, beats=4, preroll_ms=0.0, **facts):
    seam = SeamReport(0.5, preroll_ms=preroll_ms)
    found = replace(grid(bpm, beats), loop_start=3.0)
    return Source(Loop(samples, rate, bpm, 4, beats, found, seam), **facts)


def begun(source, generator=None, bpm=120, **wish):
    request = LoopRequest(**{"prompt": "drums", "seed": 5, "bpm": bpm, "variations": 2, **wish})
    return Session(generator or Silent(), request, lambda *_: None, source)


@pytest.fixture
def as_they_are(monkeypatch):
    monkeypatch.setattr(module, "finish", lambda loops, loudness: list(loops))


def heard_first(source, generator=None, **wish):
    session = begun(source, generator, **wish)
    session.run()
    return session.first


@pytest.mark.usefixtures("as_they_are")
@pytest.mark.parametrize(
    ("channels", "made", "heard"), [(0, 1, 0), (1, 1, 0), (2, 1, 0), (0, 2, 0), (1, 2, 0), (2, 2, 2)]
)
def test_the_model_hears_one_round_from_the_downbeat_on_at_its_rate_without_offset(channels, made, heard):
    """In as many channels as it makes, mono else."""
    samples = noise(2, channels=channels) + 0.1
    first = heard_first(a_source(samples, preroll_ms=250.0), Silent(channels=made))
    columns = samples.reshape(len(samples), -1).astype(float)
    columns = columns - columns.mean(axis=0) if heard else columns.mean(axis=1) - columns.mean()
    wanted = resampled(np.roll(columns, -1000, axis=0), 64_000)
    assert first.samples.shape == wanted.shape and first.samples.dtype == np.float32
    assert np.abs(first.samples - wanted).max() < 1e-5
    assert (first.grid.loop_start, first.grid.loop_end, first.grid.beats, first.grid.bpm) == (0, 2, 4, 120)
    assert (first.attempt, first.score, first.drifted) == (0, 0.0, False)


@pytest.mark.usefixtures("as_they_are")
@pytest.mark.parametrize("channels", [0, 2])
def test_a_model_with_a_clock_hears_the_round_at_the_tempo_that_it_plays(channels):
    """65.3 BPM are played at 65.2: as many beats, each in its place."""
    bpm, beats, rate = 65.3, 4, 8_000
    n = round(beats * 60 / bpm * rate)
    clicks = 0.003 * np.random.default_rng(1).standard_normal(n)
    for beat in range(beats):
        at = round(beat * n / beats) + np.arange(200)
        clicks[at] += np.exp(-np.arange(200) / 40) * np.sin(np.arange(200))
    mine = (np.stack([clicks, 0.5 * clicks], 1) if channels else clicks).astype(np.float32)
    source = a_source(np.roll(mine, 80, axis=0), rate, bpm, beats, preroll_ms=10.0)
    # beats of the recording that it was cut from lie elsewhere in it, and are none of the round's
    elsewhere = replace(source.loop.grid, beat_times=n / rate * np.array([1.15, 1.55, 1.8]))
    source = replace(source, loop=replace(source.loop, grid=elsewhere))
    first = heard_first(source, Silent(clocked=True, channels=channels or 1), bpm=bpm)
    played = first.grid.bpm
    assert played != bpm and len(first.samples) == round(beats * 60 / played * 32_000)
    assert first.samples.shape[1:] == mine.shape[1:]
    assert first.grid.loop_end == len(first.samples) / 32_000
    one = np.abs(first.samples if not channels else first.samples[:, 0])
    for beat in range(beats):
        near = np.roll(one, 3_000 - round(beat * len(one) / beats))[:6_000]
        assert abs(int(np.argmax(near > 0.25 * one.max())) - 3_000) < 120, beat  # 4 ms


# --- the set ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("as_they_are")
@pytest.mark.parametrize(("mine", "made"), [(0, 0), (1, 0), (2, 0), (0, 2), (1, 2), (2, 2)])
def test_variations_have_the_recordings_rate_and_channels(mine, made):
    source = a_source(noise(2, channels=mine))
    session = begun(source)
    wave = 0.3 * np.sin(2 * np.pi * 50 * np.arange(64_000) / 32_000)
    played = np.stack([wave, 0.5 * wave], 1) if made else wave
    session.made = [
        Loop(played.astype(np.float32), 32_000, 120, 4, 4, grid(), SeamReport(1.0), {"variation": 1})
    ]
    (loop,) = session.run()
    assert loop.samples.shape == source.loop.samples.shape and loop.sample_rate == RATE
    right = np.sin(2 * np.pi * 50 * np.arange(8_000) / RATE)
    left = 0.3 if mine == 2 or not made else 0.225  # two channels in one: their mean
    columns = loop.samples.reshape(8_000, -1)
    assert np.abs(columns[:, 0] - left * right).max() < 1e-3
    assert np.abs(columns[:, -1] - (0.15 if mine == made == 2 else left) * right).max() < 1e-3
    name = hashlib.sha256(source.loop.samples.tobytes()).hexdigest()[:16]
    assert loop.info == {"variation": 1, "source": name}


def a_set(gain_db=0.0, seams=(None, None), whole=True, monkeypatch=None, **how):
    """A run whose two variations are given, and which makes the source quieter by a gain."""
    source = a_source(noise(2), whole=whole)
    source = replace(source, loop=replace(source.loop, grid=grid(119.0, 4, confidence=0.7)))
    session = begun(source, key="A minor")
    loop = Loop(noise(2, 32_000), 32_000, 120, 4, 4, grid(), SeamReport(1.0))
    session.made = [replace(loop, info={"variation": k}) for k in (1, 2)]

    def finish(loops, loudness):
        first, *others = loops
        quieter = replace(first, samples=(first.samples * 10 ** (gain_db / 20)).astype(np.float32))
        return [quieter, *(replace(other, samples=np.zeros_like(other.samples)) for other in others)]

    monkeypatch.setattr(module, "finish", finish)
    judged = session.continuations

    def with_seams(first, variations=()):
        takes = zip(judged(first, variations), seams, strict=True)
        return [replace(t, seam_log_likelihood=s, grid=grid(120.5, 4, confidence=0.9)) for t, s in takes]

    session.continuations = with_seams
    return session, session.run(**how)


@pytest.mark.parametrize("how", [{}, {"include_source": False}, {"include_source": True}], ids=str)
@pytest.mark.parametrize("seams", [(None, None), (-0.5, 0.2)])
def test_the_source_comes_first_where_it_is_asked_for_and_the_report_with_it(monkeypatch, how, seams):
    session, loops = a_set(seams=seams, monkeypatch=monkeypatch, **how)
    included, report = bool(how.get("include_source")), loops.report
    assert [loop.info["variation"] for loop in loops] == ([0, 1, 2] if included else [1, 2])
    assert session.asked == [1, 2] and list(report.seconds) == ["variations", "loops"]
    assert report.attempts == ([0, 1, 2] if included else [1, 2])
    assert report.measured_bpm == [119.0, 120.5, 120.5][-len(loops) :]
    assert report.confidence == [0.7, 0.9, 0.9][-len(loops) :]
    judged = [] if seams[0] is None else [*seams]
    assert report.seam_log_likelihood == ([None, *judged] if included and judged else judged)
    assert len(report.keys) == len(loops)
    if included:
        assert loops[0].info["prompt"] == "drums" and loops[0].info["seed"] == 5
        assert loops[0].info["source"] == hashlib.sha256(noise(2).tobytes()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("gain_db", "whole", "said"),
    [
        (-0.08, True, None),
        (-0.12, True, "0.1 LU"),
        (-2.0, True, "2.0 LU"),
        (-2.0, False, None),
        (2.0, True, None),
    ],
)
def test_a_set_that_is_quieter_than_the_file_says_by_how_much(monkeypatch, gain_db, whole, said):
    _, loops = a_set(gain_db, whole=whole, monkeypatch=monkeypatch)
    notes = [note for note in loops.report.notes if "leave no room" in note]
    assert len(notes) == (said is not None) and all(f"the set is {said} below" in note for note in notes)


@pytest.mark.parametrize(
    ("channels", "made", "words"),
    [
        (0, 1, None),
        (1, 1, None),
        (2, 2, None),
        (2, 1, "the recording is stereo and the model makes mono"),
        (0, 2, "the recording is mono and the model makes stereo"),
        (1, 2, "the recording is mono and the model makes stereo"),
    ],
)
def test_channels_that_differ_from_the_models_are_said_after_what_is_known_of_the_source(
    channels, made, words
):
    source = a_source(noise(2, channels=channels), notes=("it clicks",))
    notes = begun(source, Silent(channels=made)).report.notes
    assert notes[0] == "it clicks" and len(notes) == (2 if words else 1)
    assert words is None or notes[1].startswith(words)


@pytest.mark.parametrize(
    ("bpm", "metre", "beats", "words"),
    [
        (120, 4, 4, None),
        (120, 4, 2, None),
        (48, 16, 16, "from the last 6 beats of the recording's loop"),
        (48, 16, 2, None),
        (40, 16, 8, None),  # ten beats of sixteen are more than there are to hear
    ],
)
def test_a_bar_that_leaves_no_room_is_heard_in_part_and_that_is_said(bpm, metre, beats, words):
    n = round(beats * 60 / bpm * RATE)
    source = a_source(noise(n / RATE), bpm=bpm, beats=beats)
    notes = begun(source, bpm=bpm, beats_per_bar=metre, max_duration=20).report.notes
    assert len(notes) == (words is not None) and all(words in note for note in notes)
