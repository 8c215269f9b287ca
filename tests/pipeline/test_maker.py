from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from looper.generation.messages import GenerationOutput, GenerationRequest, Passage
from looper.loops.clicks import CLICK
from looper.loops.matching import cross_clicks
from looper.model.beat_clock import clock_features
from looper.pipeline.maker import LoopMaker
from looper.pipeline.plan import plan
from looper.pipeline.session import CANDIDATES, ROUNDS
from looper.pipeline.takes import score_take, seam_passages
from looper.request import LoopRequest
from testkit.fakes import SAMPLE_RATE, FakeGenerator, drum_track

TEMPI = (40, 61.3, 93.7, 120, 127.003, 174, 299.9)


def make(generator, **wish):
    return LoopMaker(generator).make(LoopRequest(**{"prompt": "drums", "seed": 5, **wish}))


FREE = [(bpm, seconds, False) for bpm in TEMPI for seconds in (2, 8, 20)]
CLOCKED = [(40, 2, True), (61.3, 8, True), (127.003, 8, True), (174, 2, True), (299.9, 20, True)]


@pytest.mark.slow
@pytest.mark.usefixtures("one_candidate")
@pytest.mark.parametrize(
    ("bpm", "max_duration", "clocked"),
    [(bpm, seconds, False) for bpm in TEMPI for seconds in (2, 8)]
    + [(bpm, 20, False) for bpm in (40, 61.3, 127.003, 299.9)]
    + CLOCKED,
)
def test_every_loop_has_exactly_the_samples_its_tempo_asks(bpm, max_duration, clocked):
    generator = FakeGenerator(clocked, deviation=lambda key: 0.004 * key[1])
    loops = make(generator, bpm=bpm, max_duration=max_duration, variations=2)
    beats = round(len(loops[0].samples) / SAMPLE_RATE * bpm / 60)
    bars = beats / 4
    if beats >= 4:
        assert bars == 2 ** round(np.log2(bars)), "a power of two of bars"
        assert 2 * bars * 240 / bpm > max_duration, "no longer one would have fitted"
    else:
        assert beats in (1, 2) and 240 / bpm > max_duration
    for loop in loops:
        assert len(loop.samples) == round(beats * 60 / bpm * SAMPLE_RATE)
        assert len(loop.samples) <= max_duration * SAMPLE_RATE
        assert np.isfinite(loop.samples).all()


LONG_BARS = [(48, 16, 20), (60, 16, 16), (45, 13, 20), (48, 8, 20), (72, 12, 20), (40, 16, 20), (40, 9, 14)]


@pytest.mark.slow
@pytest.mark.usefixtures("one_candidate")
@pytest.mark.parametrize(
    ("bars", "bpm", "metre", "clocked"),
    [(6, 119, 4, False), (8, 97.3, 4, True)]
    + [
        (*case, clocked)
        for case in ((3, 121.7, 4), (1, 300, 4), (3, 299, 7), (1, 40, 1))
        for clocked in (False, True)
    ],
)
def test_loops_have_just_the_bars_that_were_asked_for(bars, bpm, metre, clocked):
    loops = make(FakeGenerator(clocked), bpm=bpm, bars=bars, beats_per_bar=metre, variations=2)
    assert {len(loop.samples) for loop in loops} == {round(bars * metre * 60 / bpm * SAMPLE_RATE)}
    assert {loop.bars for loop in loops} == {bars} and loops.report.bars == bars
    assert cross_clicks(loops).max() <= CLICK


@pytest.mark.parametrize("clocked", [False, True])
@pytest.mark.parametrize(("bpm", "beats_per_bar", "max_duration"), LONG_BARS)
def test_however_long_a_bar_a_variation_has_room_for_a_loop_from_the_bar_line_on(
    bpm, beats_per_bar, max_duration, clocked
):
    request = LoopRequest("x", bpm=bpm, beats_per_bar=beats_per_bar, max_duration=max_duration)
    sizes = plan(request, FakeGenerator(clocked).spec)
    room = (sizes.next_frames - sizes.prompt_frames) / FakeGenerator.frame_rate
    assert room >= sizes.beats * 60 / sizes.bpm + 0.9 * 60 / bpm
    assert sizes.next_frames <= 30 * FakeGenerator.frame_rate and sizes.prompt_beats >= 1


@pytest.mark.slow
@pytest.mark.usefixtures("one_candidate")
@pytest.mark.parametrize(("bpm", "beats_per_bar", "max_duration"), [LONG_BARS[0], LONG_BARS[2]])
def test_variations_with_long_bars_are_cut_on_the_bar_line_and_the_shorter_prompt_is_said(
    bpm, beats_per_bar, max_duration
):
    sound = lambda *where, **how: drum_track(*where, **how, beats_per_bar=beats_per_bar)
    generator = FakeGenerator(sound=sound)
    loops = make(generator, bpm=bpm, beats_per_bar=beats_per_bar, max_duration=max_duration, variations=2)
    prompt = generator.calls[-1].audio_prompts.shape[-1] / SAMPLE_RATE
    bar = 60 / bpm * beats_per_bar
    start = loops[1].grid.loop_start - prompt
    assert abs(start - round(start / bar) * bar) < 0.05
    assert (
        loops.report.attempts[1] <= 1 + ROUNDS and loops[1].beats == plan(loops.request, generator.spec).beats
    )
    assert any("do not fit the model's window" in note for note in loops.report.notes)


@pytest.mark.parametrize(("bpm", "seconds", "clocked"), FREE + CLOCKED)
def test_ordinary_bars_are_continued_whole(bpm, seconds, clocked):
    sizes = plan(LoopRequest("x", bpm=bpm, max_duration=seconds), FakeGenerator(clocked).spec)
    assert sizes.prompt_beats == 4


def test_a_loop_of_a_single_beat_says_so():
    loops = make(FakeGenerator(), bpm=40, max_duration=2, variations=1)
    assert loops[0].beats == 1
    assert any("1 beat long" in note for note in loops.report.notes)


@pytest.mark.slow
def test_a_replaced_tempo_is_told_and_the_model_reads_the_asked_one():
    generator = FakeGenerator()
    loops = make(generator, prompt="house, 90 bpm", bpm=124, variations=1)
    assert generator.calls[0].prompts[0] == "house, 124 bpm"
    assert any("90 bpm" in note for note in loops.report.notes)


def test_words_alone_or_samples_alone_are_refused_with_what_to_pass():
    maker = LoopMaker(FakeGenerator())
    asked, samples = LoopRequest("house", bpm=120, seed=1), drum_track(120, 8)
    with pytest.raises(ValueError, match=r"request must be looper\.LoopRequest\(prompt, .*, got str"):
        maker.make("house")
    with pytest.raises(ValueError, match=r"request must be looper\.LoopRequest\(prompt, .*, got NoneType"):
        maker.vary(samples, SAMPLE_RATE, None)
    with pytest.raises(ValueError, match=r"melody must be looper\.Melody\(samples, .*, got ndarray"):
        maker.make(asked, melody=samples)


@pytest.mark.slow
def test_the_first_loop_is_the_candidate_that_keeps_the_tempo():
    generator = FakeGenerator(deviation=lambda key: 0.0 if key[2] == 2 else 0.11)
    loops = make(generator, bpm=120, variations=1)
    assert loops.report.measured_bpm[0] == pytest.approx(120, rel=1e-3)
    assert loops.report.attempts == [3]
    assert len(generator.calls) == 1


class Listener(FakeGenerator):
    """A generator that has codes, and finds the seams of some candidates odd."""

    def __init__(self, odd, **kwargs):
        super().__init__(**kwargs)
        self.odd, self.heard = odd, []

    def generate(self, request, progress=None):
        count = len(request.prompts)
        rows = np.arange(count)[:, None, None]
        codes = np.broadcast_to(rows, (count, 4, request.frames)).copy()  # a row's codes say which it is
        return GenerationOutput(super().generate(request, progress).samples, codes, 50.0)

    def log_likelihoods(self, prompt, passages, melody=None):
        self.heard.append(list(passages))
        # first of each pair: after the loop's own end, second: in place
        return np.array(
            [-1.0 - self.odd(heard.codes[0, 0]) * (i % 2 == 0) for i, heard in enumerate(passages)]
        )


@pytest.mark.slow
def test_of_equally_sure_candidates_the_one_with_the_likeliest_seam_is_taken():
    generator = Listener(lambda row: [1.5, 0.6, 0.1, 0.9][row])
    loops = make(generator, bpm=120, variations=1)
    assert loops.report.attempts == [3]
    assert loops.report.seam_log_likelihood == pytest.approx([-0.1])
    assert len(generator.heard) == 1, "all candidates in one pass"


@pytest.mark.slow
def test_a_likely_seam_does_not_outweigh_a_clear_beat():
    drifts = lambda key: 0.03 if key[2] == 1 else 0.0
    generator = Listener(lambda row: 0.0 if row == 1 else 9.0, deviation=drifts)
    assert make(generator, bpm=120, variations=1).report.attempts != [2]


@pytest.mark.slow
def test_a_candidate_is_cut_where_its_seam_is_likeliest():
    usual = make(FakeGenerator(), bpm=120, variations=1)[0].grid.loop_start
    generator = Listener(lambda row: 0.0)
    asked: list[int] = []

    def dislike_the_usual(prompt, passages, melody=None):
        # a passage in place begins with the bar before the loop: none before a loop at the very start
        odd = []
        for place in passages[1::2]:
            asked.append(place.start)
            odd += [-1.0 - 1.5 * ((place.start == 0) == (usual < 0.5)), -1.0]
        return np.array(odd)

    generator.log_likelihoods = dislike_the_usual
    moved = make(generator, bpm=120, variations=1)[0].grid
    assert len(set(asked)) > 1, "there was another cut"
    assert abs(moved.loop_start - usual) == pytest.approx(2.0, abs=0.01), "a bar apart"
    assert moved.loop_end - moved.loop_start == pytest.approx(8.0, abs=0.01)


@pytest.mark.slow
def test_a_model_that_cannot_say_leaves_the_choice_to_the_beats():
    loops = make(Listener(lambda row: float("nan")), bpm=120, variations=2, max_duration=4)
    assert (
        loops.report.attempts == make(FakeGenerator(), bpm=120, variations=2, max_duration=4).report.attempts
    )
    assert loops.report.seam_log_likelihood == []


@pytest.mark.slow
def test_a_variation_is_not_drawn_again_for_its_seam():
    generator = Listener(lambda row: 9.0)
    loops = make(generator, bpm=120, variations=3, max_duration=4)
    assert loops.report.attempts[1:] == [1, 1]
    assert loops.report.seam_log_likelihood == pytest.approx([-9.0] * 3)
    assert set(loops.report.steps_per_second) == {"candidates", "variations"}


@pytest.mark.parametrize(("bpm", "max_duration"), [(120, 8), (299.9, 2), (40, 2), (127.003, 20)])
def test_what_the_model_hears_is_the_loops_beginning_after_its_end_and_in_place(bpm, max_duration):
    generator = FakeGenerator()
    request = LoopRequest("drums", bpm, 1, max_duration, seed=1)
    sizes = plan(request, generator.spec)
    wave = drum_track(bpm, sizes.first_frames / 50)
    take = score_take(wave, SAMPLE_RATE, sizes, 4)
    frames = np.arange(sizes.first_frames)
    seam, place = seam_passages(replace(take, codes=np.stack([frames] * 4), clock=frames[:, None]), 50.0, 4)
    start, end = round(take.grid.loop_start * 50), round(take.grid.loop_end * 50)
    for heard in (seam, place):
        assert heard.codes[0, heard.start] == start
        head = heard.codes[0, heard.start :]
        assert 0 < len(head) <= 50 and (np.diff(head) == 1).all()
        assert np.array_equal(heard.clock[:, 0], heard.codes[0])
    assert np.array_equal(seam.codes[:, seam.start :], place.codes[:, place.start :])
    assert seam.codes[0, seam.start - 1] == min(end, len(frames)) - 1
    assert place.start == 0 or place.codes[0, place.start - 1] == start - 1


@pytest.mark.slow
def test_the_real_model_finds_a_loops_own_beginning_likelier_than_one_out_of_order(tiny):
    generator = tiny.generator
    drawn = generator.generate(
        GenerationRequest(["techno, 120 bpm"], 250, keys=[(1, 1, 0)], clock=clock_features(258, 25))
    )
    codes, clock = drawn.codes[0], clock_features(258, 25)
    shuffled = codes.copy()
    shuffled[:, 200:] = codes[:, 200:][:, np.random.default_rng(0).permutation(50)]
    right, wrong = generator.log_likelihoods(
        "techno, 120 bpm", [Passage(codes, 200, clock), Passage(shuffled, 200, clock)]
    )
    assert right > wrong + 0.5


@pytest.mark.slow
def test_a_variation_that_drifts_is_drawn_again_by_itself():
    generator = FakeGenerator(deviation=lambda key: 0.12 if key[1] == 3 and key[2] == 0 else 0.0)
    loops = make(generator, bpm=120, variations=4, max_duration=4)
    assert loops.report.attempts[1:] == [1, 2, 1]
    assert [call.keys for call in generator.calls[1:]] == [[(5, 2, 0), (5, 3, 0), (5, 4, 0)], [(5, 3, 1)]]


@pytest.mark.slow
@pytest.mark.parametrize("sound", ["silence", "noise", "drifting"])
def test_unhelpful_music_still_gives_every_loop_at_exact_length_and_says_so(sound):
    sounds = {
        "drifting": drum_track,
        "silence": lambda bpm, seconds, first_beat: np.zeros(round(seconds * SAMPLE_RATE), np.float32),
        "noise": lambda bpm, seconds, first_beat: np.random.default_rng(1).uniform(
            -0.3, 0.3, round(seconds * SAMPLE_RATE)
        ),
    }
    deviation = 0.13 if sound == "drifting" else 0.0
    generator = FakeGenerator(deviation=lambda key: deviation, sound=sounds[sound])
    loops = make(generator, bpm=120, variations=3, max_duration=4)
    assert len(loops) == 3
    assert {len(loop.samples) for loop in loops} == {round(8 * 0.5 * SAMPLE_RATE)}
    assert all(np.isfinite(loop.samples).all() for loop in loops)
    draws = [len(call.keys) for call in generator.calls]
    assert len(draws) <= 2 * (1 + ROUNDS) and draws[0] == CANDIDATES
    if sound != "drifting":
        assert max(loops.report.confidence) < 0.5 and loops.report.notes


@pytest.mark.slow
@pytest.mark.parametrize("clocked", [False, True])
def test_variations_continue_the_bar_that_ends_the_first_loop(clocked):
    generator = FakeGenerator(clocked)
    loops = make(generator, bpm=120, variations=2, max_duration=4)
    prompt = generator.calls[1].audio_prompts
    assert prompt.shape[0] == 1 and prompt.shape[1] % generator.hop_length == 0
    clock = clock_features(600, 25) if clocked else None
    wave = generator.generate(
        GenerationRequest(["drums, 120 bpm"], 600, keys=[(5, 1, 0)], clock=clock)
    ).samples[0]
    end = round(loops[0].grid.loop_end * SAMPLE_RATE)
    assert prompt.shape[1] == 4 * 25 * 640  # one bar of 120 BPM
    np.testing.assert_array_equal(prompt[0], wave[end - prompt.shape[1] : end])


@pytest.mark.slow
@pytest.mark.parametrize("bpm", [61.3, 299.9])
def test_a_variation_does_not_depend_on_how_many_were_asked_for(bpm):
    wish = {"bpm": bpm, "max_duration": 4}
    by_key = lambda key: 0.01 / key[1] + 0.001 * (key[0] % 5 + key[2])
    one, three, four = (make(FakeGenerator(deviation=by_key), variations=n, **wish) for n in (1, 3, 4))
    np.testing.assert_array_equal(one[0].samples, three[0].samples)
    for k in range(3):
        np.testing.assert_array_equal(three[k].samples, four[k].samples)
    assert not np.array_equal(three[1].samples, three[2].samples)


def test_progress_is_told_stage_by_stage_to_the_end():
    told = []
    LoopMaker(FakeGenerator()).make(
        LoopRequest("drums", bpm=240, max_duration=2, variations=3, seed=1), lambda *step: told.append(step)
    )
    assert list(dict.fromkeys(stage for stage, _, _ in told)) == ["candidates", "variations", "loops"]
    for stage in ("candidates", "variations", "loops"):
        last = [step for step in told if step[0] == stage][-1]
        assert last[1] == last[2]


class CancelledError(BaseException):
    """As Cog cancels: not an Exception."""


@pytest.mark.slow
def test_what_the_progress_call_raises_ends_the_work_at_once_and_harms_nothing():
    maker = LoopMaker(FakeGenerator())
    request = LoopRequest("drums", bpm=240, max_duration=2, variations=2, seed=1)
    for stage in ("candidates", "variations", "loops"):

        def cancel(now, done, total, stage=stage):
            if now == stage:
                raise CancelledError

        with pytest.raises(CancelledError):
            maker.make(request, cancel)
    np.testing.assert_array_equal(maker.make(request)[1].samples, maker.make(request)[1].samples)


# with the real small model


@pytest.mark.slow
def test_tiny_keeps_the_asked_tempo_and_repeats_itself_for_a_seed(tiny):
    wish = {"prompt": "techno", "bpm": 126.5, "max_duration": 2, "seed": 0}
    two, one = (tiny.make(LoopRequest(variations=n, **wish)) for n in (2, 1))
    np.testing.assert_array_equal(one[0].samples, two[0].samples)
    assert not np.array_equal(two[0].samples, two[1].samples)
    assert {len(loop.samples) for loop in two} == {round(4 * 60 / 126.5 * SAMPLE_RATE)}
    for measured in two.report.measured_bpm:
        assert measured == pytest.approx(126.5, rel=0.03)
    other = tiny.make(LoopRequest(variations=1, **{**wish, "seed": 1}))
    assert not np.array_equal(other[0].samples, one[0].samples)


@pytest.mark.slow
@pytest.mark.usefixtures("one_candidate")
def test_one_maker_serves_several_threads_in_turn(models, monkeypatch):
    monkeypatch.setattr("looper.pipeline.session.ROUNDS", 0)  # random weights always drift
    maker = LoopMaker(models("t5"))
    wishes = [
        LoopRequest("techno", bpm=240, variations=2, max_duration=2, seed=1, top_k=20),
        LoopRequest("dub", bpm=150, variations=1, max_duration=2, seed=2, top_k=20),
    ]
    alone = [[loop.samples.tobytes() for loop in maker.make(wish)] for wish in wishes]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(maker.make, [*wishes, wishes[0]]))
    for made, expected in zip(together, [*alone, alone[0]], strict=True):
        assert [loop.samples.tobytes() for loop in made] == expected


class Singing(FakeGenerator):
    """Plays chords under the drums, in a key of its own for each attempt."""

    roots = (0, 6, 9, 2)  # C, Gb, A, D, all minor

    def waves(self, request, progress):
        waves = super().waves(request, progress)
        t = np.arange(waves.shape[1]) / SAMPLE_RATE
        for wave, key in zip(waves, request.keys, strict=True):
            base = 220 * 2 ** ((self.roots[key[2] % 4] - 9) / 12)
            steps = np.array([[0, 3, 7], [5, 8, 12], [7, 11, 14], [0, 3, 7]])[(t * 2).astype(int) % 4]
            wave += 0.2 * np.sin(2 * np.pi * base * 2 ** (steps.T / 12) * t).sum(axis=0).astype(np.float32)
        return waves


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "heard"), [("A minor", "A minor"), ("F# m", "F# minor"), ("Dm", "D minor")]
)
def test_of_the_candidates_the_one_in_the_asked_key_is_taken_and_the_report_says_what_came_out(asked, heard):
    loops = make(Singing(), bpm=120, variations=1, max_duration=4, key=asked)
    assert loops.report.keys == [heard] and loops[0].key.words == heard
    assert 0 < loops.report.key_confidence[0] <= 1
    assert f"{heard} was asked for; heard: {heard} in 1" in loops.report.notes


@pytest.mark.slow
def test_a_key_that_no_candidate_is_in_is_told_and_drums_are_none_the_worse_for_it():
    other = make(Singing(), bpm=120, variations=1, max_duration=4, key="E major")
    assert other.report.keys != ["E major"] and "E major was asked for; heard: " in other.report.notes[0]
    asked, plain = (
        make(FakeGenerator(), bpm=120, variations=2, max_duration=4, **key) for key in ({"key": "Am"}, {})
    )
    assert all(np.array_equal(a.samples, b.samples) for a, b in zip(asked, plain, strict=True))
    assert plain.report.keys == [] and plain.report.notes == []
    assert "heard: no clear key in 2" in asked.report.notes[0]


@pytest.mark.slow
def test_the_model_reads_the_key():
    generator = FakeGenerator()
    make(generator, prompt="warm pads, 90 bpm", bpm=120, variations=1, key="f# minor")
    assert set(generator.calls[0].prompts) == {"warm pads, F# minor, 120 bpm"}


@pytest.mark.parametrize(("bpm", "seconds", "clocked"), [(120, 8, False), (93.7, 4, False), (174, 4, True)])
def test_no_more_is_drawn_than_the_prompt_the_loop_and_a_bar(bpm, seconds, clocked):
    made = plan(LoopRequest("x", bpm=bpm, max_duration=seconds), FakeGenerator(clocked).spec)
    loop = 60 * made.beats / made.bpm * FakeGenerator(clocked).spec.frame_rate
    assert made.first_frames == pytest.approx(loop + made.bar_frames, rel=0.1)
    assert made.next_frames == made.prompt_frames + made.first_frames
