"""The one orchestrator: candidates, the best loop, its variations, the finished set."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from looper.beats import BeatGrid, fit_grid
from looper.clock import clock_features
from looper.loops import Loop, cut, finish
from looper.plan import plan
from looper.report import Loops, Report
from looper.request import BPM_RANGE, LoopRequest
from looper.spans import Span

if TYPE_CHECKING:
    from looper.generator import Generator
    from looper.sampling import Sampling

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Called as (stage, done, total); stages are "candidates", "variations", "loops"."""

CANDIDATES = (
    4  # first loops drawn at once: the same on every device, so that a seed means the same everywhere
)
ROUNDS = 2  # further draws of what drifts
TEMPO_TOLERANCE = 0.04  # share of the tempo aimed at; beyond it a draw has drifted
LEAD_IN = 0.05  # seconds before a known bar line in which its attack may begin
CONFIDENCE_FLOOR = 0.3  # below it a drawn loop is tried again


@dataclass(frozen=True)
class Take:
    """One drawn waveform and what was found in it."""

    samples: np.ndarray
    grid: BeatGrid
    attempt: int
    score: float
    drifted: bool


class LoopMaker:
    """Makes loops with one loaded model.

    Parameters
    ----------
    generator : Generator
        A loaded model; see `load`.
    """

    def __init__(self, generator: Generator) -> None:
        self.generator = generator

    @classmethod
    def load(cls, model: str = "medium", device: str | None = None) -> LoopMaker:
        """Load a model by name ("tiny", "medium", "large") or by folder.

        Raises
        ------
        looper.checkpoint.WeightsError
            If the model's files are missing or damaged; the message says which command mends it.
        """
        from looper.checkpoint import find
        from looper.generator import Generator

        return cls(Generator.load(find(model), device))

    def make(self, request: LoopRequest, progress: Progress | None = None) -> Loops:
        """Make the loops of `request`: exactly `request.variations` of them, or an error.

        Parameters
        ----------
        request : LoopRequest
            The wish; seed -1 is drawn here and stands in the report.
        progress : callable, optional
            Called as (stage, done, total).

        Returns
        -------
        Loops
            Variation k is the same whatever the number of variations asked for.
        """
        return _Session(self.generator, request.with_seed(), progress or (lambda *_: None)).run()


class _Session:
    """The state of one request on its way through the house."""

    def __init__(self, generator: Generator, request: LoopRequest, progress: Progress) -> None:
        self.generator = generator
        self.request = request
        self.progress = progress
        self.plan = plan(request, generator)
        self.report = Report(request.seed, generator.name, self.plan.beats / request.beats_per_bar)
        self.sampling = self._sampling()
        self._say_what_is_planned()

    def _sampling(self) -> Sampling:
        from looper.sampling import Sampling

        r = self.request
        return Sampling(r.top_k, r.top_p, r.temperature, r.cfg_coef)

    def _say_what_is_planned(self) -> None:
        for words in self.request.replaced_tempi:
            self.report.note(
                f"the prompt says {words!r}, but bpm={self.request.bpm:g} rules: the model reads that"
            )
        if self.plan.beats < self.request.beats_per_bar:
            n = self.plan.beats
            self.report.note(
                f"no whole bar at {self.request.bpm:g} BPM fits in {self.request.max_duration:g} s: "
                f"the loops are {n} beat{'s' if n > 1 else ''} long"
            )

    def run(self) -> Loops:
        """Draw, choose, continue, cut, level."""
        with self.report.timed("candidates"):
            first = self._first()
        takes = [first]
        if self.request.variations > 1:
            with self.report.timed("variations"):
                takes += self._continuations(first)
        with self.report.timed("loops"):
            loops = self._cut(takes)
        for take in takes:
            self.report.measured_bpm.append(take.grid.bpm)
            self.report.confidence.append(take.grid.confidence)
            self.report.attempts.append(take.attempt + 1)
        return Loops(loops, self.request, self.report)

    def _draw(
        self,
        stage: str,
        keys: list[tuple[int, int, int]],
        prompt: np.ndarray | None = None,
        start_beat: int = 0,
    ) -> np.ndarray:
        """Waveforms [B, T] of the noise generators named by `keys`."""
        frames = self.plan.first_frames if prompt is None else self.plan.next_frames
        clock = None
        if self.plan.period:
            clock = clock_features(frames + 8, self.plan.period, self.request.beats_per_bar, start_beat)
        return self.generator.generate(
            [self.request.model_text] * len(keys),
            frames,
            keys=keys,
            sampling=self.sampling,
            audio_prompts=None if prompt is None else prompt[None],
            clock=clock,
            progress=lambda done, total: self.progress(stage, done, total),
        )

    def _judge(self, samples: np.ndarray, attempt: int, downbeat: float | None) -> Take:
        """Fit the grid and say how good a loop this is."""
        rate = self.generator.sample_rate
        # an audio prompt keeps its own tempo and must not vouch for what follows it
        unheard = round(max(0.0, (downbeat or 0.0) - LEAD_IN) * rate) / rate
        grid = fit_grid(
            samples[round(unheard * rate) :],
            rate,
            min(max(self.plan.bpm, BPM_RANGE[0]), BPM_RANGE[1]),
            self.request.beats_per_bar,
            beats=self.plan.beats,
            downbeat=None if downbeat is None else downbeat - unheard,
        )
        grid = self._whole(_later(grid, unheard), len(samples) / rate)
        off = abs(grid.bpm / self.plan.bpm - 1)
        drifted = off > TEMPO_TOLERANCE or grid.confidence < CONFIDENCE_FLOOR
        score = grid.confidence - max(0.0, off - 0.005) * 10
        return Take(samples, grid, attempt, score, drifted)

    def _whole(self, grid: BeatGrid, seconds: float) -> BeatGrid:
        """The grid, or where it has no room for a whole loop the asked tempo's, without confidence."""
        if grid.beats == self.plan.beats:
            return grid
        length = self.plan.beats * 60 / self.plan.bpm
        start = max(0.0, min(grid.loop_start, seconds - length))
        span = Span(start, start + length, self.plan.beats, 0.0)
        return replace(
            grid,
            bpm=self.plan.bpm,
            loop_start=start,
            loop_end=span.end,
            spans=(span,),
            confidence=0.0,
            warp=None,
        )

    def _first(self) -> Take:
        """The best of CANDIDATES draws; another round where even that one drifts."""
        takes: list[Take] = []
        for round_ in range(1 + ROUNDS):
            attempts = range(round_ * CANDIDATES, (round_ + 1) * CANDIDATES)
            waves = self._draw("candidates", [(self.request.seed, 1, a) for a in attempts])
            takes += _parallel(lambda w, a: self._judge(w, a, None), waves, attempts)
            best = max(takes, key=lambda take: take.score)
            if not best.drifted:
                return best
            log.info("no candidate keeps the tempo (best confidence %.2f)", best.grid.confidence)
        self.report.note(
            "no clear beat was found at the asked tempo: the first loop is cut as well as it can be"
        )
        return best

    def _audio_prompt(self, first: Take) -> np.ndarray:
        """The bar that ends where the first loop ends, whole frames long, so that what follows is a downbeat."""
        hop = self.generator.hop_length
        end = round(first.grid.loop_end * self.generator.sample_rate)
        frames = self.plan.prompt_frames
        if not self.plan.period:  # unclocked: the bar as it is really played
            bar = 60 / first.grid.bpm * self.request.beats_per_bar
            frames = min(frames, int(bar * self.generator.sample_rate) // hop)
        head = first.samples[max(0, end - frames * hop) : end]
        missing = frames * hop - len(head)
        return head if missing <= 0 else np.concatenate([np.zeros(missing, head.dtype), head])

    def _start_beat(self, first: Take) -> int:
        """Beat of the clock's bar on which the audio prompt begins: the loop may end in the middle of one."""
        if not self.plan.period:
            return 0
        end = round(first.grid.loop_end * self.generator.frame_rate / self.plan.period)
        return end % self.request.beats_per_bar  # the prompt is one bar long

    def _continuations(self, first: Take) -> list[Take]:
        """Variations 2..n in one batch, each judged by itself and redrawn while it drifts."""
        prompt = self._audio_prompt(first)
        downbeat = len(prompt) / self.generator.sample_rate
        start_beat = self._start_beat(first)
        best: dict[int, Take] = {}
        waiting = list(range(2, self.request.variations + 1))
        for attempt in range(1 + ROUNDS):
            keys = [(self.request.seed, v, attempt) for v in waiting]
            waves = self._draw("variations", keys, prompt, start_beat)
            takes = _parallel(lambda w, a: self._judge(w, a, downbeat), waves, [attempt] * len(keys))
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
        return [best[v] for v in range(2, self.request.variations + 1)]

    def _cut(self, takes: list[Take]) -> list[Loop]:
        """Takes to loops at the asked tempo, equally loud."""
        total = len(takes)
        r = self.request

        def one(take: Take, variation: int) -> Loop:
            loop = cut(take.samples, self.generator.sample_rate, r.bpm, r.beats_per_bar, grid=take.grid)
            info = {
                "prompt": r.prompt,
                "seed": r.seed,
                "variation": variation,
                "model": self.generator.name,
            }
            return replace(loop, info=info)

        done = lambda count: self.progress("loops", count, total)
        return finish(_parallel(one, takes, range(1, total + 1), done=done))


def _later(grid: BeatGrid, seconds: float) -> BeatGrid:
    """The grid of an excerpt in the time of the whole, which began `seconds` before it."""
    return replace(
        grid,
        beat_times=grid.beat_times + seconds,
        downbeat_times=grid.downbeat_times + seconds,
        loop_start=grid.loop_start + seconds,
        loop_end=grid.loop_end + seconds,
        spans=tuple(replace(span, start=span.start + seconds, end=span.end + seconds) for span in grid.spans),
        warp=None,
    )


def _parallel(
    function: Callable[..., Any], *columns: Iterable[Any], done: Callable[[int], None] = lambda _: None
) -> list[Any]:
    """Map over rows in threads, `done` counting in this one; numpy and the stretch release the interpreter."""
    pool = ThreadPoolExecutor(max_workers=8)
    results = []
    try:
        for result in pool.map(function, *columns):
            results.append(result)
            done(len(results))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return results
