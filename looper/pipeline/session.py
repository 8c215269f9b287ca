"""One request on its way: candidates, the best loop, its variations, the finished set."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from looper.generation.messages import GenerationOutput, GenerationRequest, NoiseKey, check_melody
from looper.loops.cut import cut
from looper.loops.loop import Loop
from looper.loops.matching import finish
from looper.melody import NEEDS_ANOTHER_MODEL, Melody
from looper.model.beat_clock import clock_features
from looper.pipeline.plan import plan
from looper.pipeline.result import Loops, Report, key_note
from looper.pipeline.takes import (
    Take,
    distance_from_key,
    other_cuts,
    score_take,
    seam_passages,
    what_is_doubtful,
)
from looper.request import LoopRequest
from looper.runtime.threads import map_in_threads
from looper.runtime.validation import FieldError

if TYPE_CHECKING:
    from looper.generation.generator import Generator

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Called as (stage, done, total); stages are "candidates", "variations", "loops"."""

CANDIDATES = (
    4  # first loops drawn at once: the same on every device, so that a seed means the same everywhere
)
ROUNDS = 2  # further draws of what drifts


class LoopSession:
    """One request on its way from candidates to finished loops."""

    def __init__(
        self,
        generator: Generator,
        request: LoopRequest,
        progress: Progress,
        beats: int | None = None,
        melody: Melody | None = None,
    ) -> None:
        self.generator = generator
        self.request = request
        self.progress = progress
        self.plan = plan(request, generator.spec, beats)
        self.report = Report(request.seed, generator.name, self.plan.beats / request.beats_per_bar)
        self._info = {} if melody is None else {"melody": melody.identity}
        self._melody = None if melody is None else self._as_heard(melody)
        self._note_what_is_planned()

    def _as_heard(self, melody: Melody) -> np.ndarray:
        """The melody at the model's rate, repeated or cut to the length of the model's window, [T]."""
        spec, rate = self.generator.spec, self.generator.sample_rate
        if spec.melody_samples is None:
            raise FieldError("melody", NEEDS_ANOTHER_MODEL.format(self.generator.name))
        if melody.seconds > spec.window_seconds:
            self.report.note(
                f"the melody lasts {melody.seconds:.0f} s: its first {spec.window_seconds:g} s are followed"
            )
        samples = melody.at_rate(rate)
        check_melody(samples, spec)
        return np.resize(samples, round(spec.window_seconds * rate))

    def _note_what_is_planned(self) -> None:
        for words in self.request.replaced_tempi:
            self.report.note(
                f"the prompt says {words!r}, but bpm={self.request.bpm:g} overrides it: the model reads that"
            )
        if self.plan.beats < self.request.beats_per_bar:
            n = self.plan.beats
            self.report.note(
                f"no whole bar at {self.request.bpm:g} BPM fits in {self.request.max_duration:g} s: "
                f"the loops are {n} beat{'s' if n > 1 else ''} long"
            )

        if self.request.variations > 1 and self.plan.prompt_beats < self.request.beats_per_bar:
            self.report.note(
                f"a bar of {self.request.beats_per_bar} beats and the loop do not fit the model's window together: "
                f"variations go on from the last {self.plan.prompt_beats} beats of the first loop, not from a whole bar"
            )

    def run(self) -> Loops:
        """Draw, choose, continue, cut, level."""
        with self.report.timed("candidates"):
            first = self.first()
        takes = [first]
        if self.request.variations > 1:
            with self.report.timed("variations"):
                takes += self.continuations(first)
        with self.report.timed("loops"):
            loops = finish(self.cut(takes, range(1, len(takes) + 1)))
        self.report_takes(takes)
        self.report_keys(loops)
        return Loops(loops, self.request, self.report)

    def report_keys(self, loops: Sequence[Loop]) -> None:
        """Where a key was asked for, tell in the report which ones are heard."""
        if self.request.key is None:
            return
        heard = [loop.heard_key for loop in loops]
        self.report.keys = [None if key is None or not key.clear else key.key.words for key in heard]
        self.report.key_confidence = [0.0 if key is None else key.confidence for key in heard]
        self.report.note(key_note(self.request.key, self.report.keys))

    def report_takes(self, takes: Sequence[Take]) -> None:
        """Tell in the report what came of each take."""
        for take in takes:
            self.report.measured_bpm.append(take.grid.bpm)
            self.report.confidence.append(take.grid.confidence)
            self.report.attempts.append(take.attempt + 1)
        seams = [take.seam_log_likelihood for take in takes]
        if any(seam is not None for seam in seams):
            self.report.seam_log_likelihood = seams

    def draw_candidates(self, attempts: Sequence[int]) -> list[Take]:
        """Draw first loops, each in all its cuts."""
        clock = self._clock(self.plan.first_frames, start_beat=0)
        output = self._generate(
            "candidates", [1] * len(attempts), attempts, self.plan.first_frames, clock, melody=self._melody
        )
        takes = self._score(output, attempts, clock, downbeat=None)
        if output.codes is not None:
            takes = [cut for take in takes for cut in other_cuts(take, self.request.beats_per_bar)]
        return self._with_seams(takes)

    def _draw_variations(self, first: Take, variations: Sequence[int], attempt: int) -> list[Take]:
        """Draw what continues the last bar of `first`, once for each of `variations`."""
        prompt = self._audio_prompt(first)
        clock = self._clock(self.plan.next_frames, self._start_beat(first))
        attempts = [attempt] * len(variations)
        melody = self._melody_after(first, len(prompt))
        output = self._generate(
            "variations", variations, attempts, self.plan.next_frames, clock, prompt, melody
        )
        takes = self._score(output, attempts, clock, downbeat=len(prompt) / self.generator.sample_rate)
        return self._with_seams(takes)

    def _melody_after(self, first: Take, prompt_samples: int) -> np.ndarray | None:
        """The melody as variations hear it: that of their audio prompt, then from the first loop's beginning on."""
        if self._melody is None:
            return None
        rate, n = self.generator.sample_rate, len(self._melody)
        start, end = (round(seconds * rate) for seconds in (first.grid.loop_start, first.grid.loop_end))
        heard = np.arange(end - prompt_samples, end)
        at = np.concatenate([heard, start + np.arange(n - prompt_samples)])
        return np.take(self._melody, at, mode="wrap")

    def _clock(self, frames: int, start_beat: int) -> np.ndarray | None:
        """Beat clock features for a model that takes them; a few more frames than are drawn, for the delays."""
        if not self.plan.period:
            return None
        return clock_features(frames + 8, self.plan.period, self.request.beats_per_bar, start_beat)

    def _generate(
        self,
        stage: str,
        variations: Sequence[int],
        attempts: Sequence[int],
        frames: int,
        clock: np.ndarray | None,
        prompt: np.ndarray | None = None,
        melody: np.ndarray | None = None,
    ) -> GenerationOutput:
        request = self.request
        asked = GenerationRequest(
            [request.model_text] * len(variations),
            frames,
            keys=[NoiseKey(request.seed, *key) for key in zip(variations, attempts, strict=True)],
            sampling=request.sampling,
            audio_prompts=None if prompt is None else prompt[None],
            clock=clock,
            melody=melody,
        )
        output = self.generator.generate(asked, lambda done, total: self.progress(stage, done, total))
        self.report.steps_per_second[stage] = output.steps_per_second
        return output

    def _score(
        self,
        output: GenerationOutput,
        attempts: Sequence[int],
        clock: np.ndarray | None,
        downbeat: float | None,
    ) -> list[Take]:
        """Find the beats of each waveform, and how good a loop it makes."""
        rate, beats = self.generator.sample_rate, self.request.beats_per_bar

        def one(samples: np.ndarray, attempt: int, codes: np.ndarray | None) -> Take:
            take = score_take(samples, rate, self.plan, beats, downbeat)
            key = self.request.key
            off = 0.0 if key is None or downbeat is not None else distance_from_key(take, rate, key)
            return replace(take, attempt=attempt, codes=codes, clock=clock, key_distance=off)

        codes = [None] * len(attempts) if output.codes is None else output.codes
        return map_in_threads(one, output.samples, attempts, codes)

    def _with_seams(self, takes: list[Take]) -> list[Take]:
        """Let the model judge all seams in one pass; without codes there is no model to ask."""
        if any(take.codes is None for take in takes):
            return takes
        rate, beats = self.generator.frame_rate, self.request.beats_per_bar
        passages = [passage for take in takes for passage in seam_passages(take, rate, beats)]
        text = self.request.model_text
        seams, places = self.generator.log_likelihoods(text, passages, self._melody).reshape(-1, 2).T
        return [
            replace(take, seam_log_likelihood=float(seam)) if np.isfinite(seam) else take
            for take, seam in zip(takes, seams - places, strict=True)
        ]

    def first(self) -> Take:
        """The best of CANDIDATES draws; another round where even that one drifts."""
        takes: list[Take] = []
        for round_ in range(1 + ROUNDS):
            attempts = range(round_ * CANDIDATES, (round_ + 1) * CANDIDATES)
            takes += self.draw_candidates(attempts)
            best = max(takes, key=lambda take: take.rank_score)
            if not best.drifted:
                return best
            logger.info("no candidate will do (best confidence %.2f)", best.grid.confidence)
        self.report.note(what_is_doubtful(best, self.plan.bpm))
        return best

    def _audio_prompt(self, first: Take) -> np.ndarray:
        """The bar, or its last beats, before the end of the first loop: whole frames, so that a downbeat follows."""
        hop = self.generator.hop_length
        end = round(first.grid.loop_end * self.generator.sample_rate)
        frames = self.plan.prompt_frames
        if not self.plan.period:  # unclocked: the bar as it is really played
            bar = 60 / first.grid.bpm * self.plan.prompt_beats
            frames = min(frames, int(bar * self.generator.sample_rate) // hop)
        head = first.samples[max(0, end - frames * hop) : end]
        silence = np.zeros((frames * hop - len(head), *head.shape[1:]), head.dtype)
        return np.concatenate([silence, head])

    def _start_beat(self, first: Take) -> int:
        """Beat of the clock's bar on which the audio prompt begins: the loop may end in the middle of one."""
        if not self.plan.period:
            return 0
        end = round(first.grid.loop_end * self.generator.frame_rate / self.plan.period)
        return (end - self.plan.prompt_beats) % self.request.beats_per_bar

    def continuations(self, first: Take, variations: Sequence[int] = ()) -> list[Take]:
        """Variations 2..n, or those named, in one batch, each judged by itself and redrawn while it drifts."""
        best: dict[int, Take] = {}
        waiting = list(variations or range(2, self.request.variations + 1))
        for attempt in range(1 + ROUNDS):
            takes = self._draw_variations(first, waiting, attempt)
            for variation, take in zip(waiting, takes, strict=True):
                if variation not in best or take.score > best[variation].score:
                    best[variation] = take
            waiting = [v for v in waiting if best[v].drifted]
            if not waiting:
                break
        if waiting:
            self.report.note(
                f"variations {waiting} have no clear beat at the asked tempo: cut as well as they can be"
            )
        return [best[v] for v in sorted(best)]

    def cut(self, takes: Sequence[Take], variations: Sequence[int]) -> list[Loop]:
        """Takes to loops at the asked tempo, each closed by itself."""
        total = len(takes)
        r = self.request

        def one(take: Take, variation: int) -> Loop:
            loop = cut(take.samples, self.generator.sample_rate, r.bpm, r.beats_per_bar, grid=take.grid)
            info = {
                "prompt": r.prompt,
                "seed": r.seed,
                "variation": variation,
                "model": self.generator.name,
                **self._info,
            }
            return replace(loop, info=info)

        done = lambda count: self.progress("loops", count, total)
        return map_in_threads(one, takes, variations, done=done)
