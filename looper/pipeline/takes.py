"""Generated waveforms, and how good a loop each of them would make."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from looper.beats.grid import BeatGrid, fit_grid
from looper.beats.spans import Span
from looper.generation.messages import Passage
from looper.loops.key import hear_key
from looper.musical_key import parse_key
from looper.pipeline.plan import Plan
from looper.request import BPM_RANGE

TEMPO_TOLERANCE = 0.04  # share of the tempo aimed at; beyond it a draw has drifted
LEAD_IN = 0.05  # seconds before a known bar line in which its attack may begin
CONFIDENCE_FLOOR = 0.3  # below it a variation is drawn again
FIRST_CONFIDENCE_FLOOR = 0.5  # below it the first loop, which sets the bar line of all, is drawn again
JOINED_BARS_DB = 4.0  # difference of a loop's last bar from its first that passes for the same music
JUMP_PENALTY_PER_DB = 0.03  # confidence that each further decibel costs in the choice of a candidate
MAX_JUMP_DB = 8.0  # beyond JOINED_BARS_DB; farther makes no difference
SEAM_JUDGED_SECONDS = 1.0  # of a loop's beginning, when its seam is judged by the model
SEAM_PENALTY_PER_NAT = 0.1  # confidence that a nat of unlikeliness costs in the choice of a candidate
MAX_SCORE_GAP = 0.6  # of a span's score: others as good may be taken for their seam
CONFIDENCE_PER_SPAN_SCORE = 0.02  # confidence that a point of a span's score is worth
KEY_PENALTY = 0.5  # confidence that a key costs which fits worse by 1 in correlation
MAX_SEAM_NATS = 2.0  # nats; beyond, it makes no difference


@dataclass(frozen=True)
class Take:
    """One generated waveform and what was found in it.

    Attributes
    ----------
    samples : np.ndarray
        float32 [T], of a stereo model [T, 2].
    grid : BeatGrid
        Its beats and its best loop.
    attempt : int
        Number of the draw, from 0.
    score : float
        The higher the better a loop.
    drifted : bool
        Whether it must be drawn again.
    codes : np.ndarray or None
        [n_q, frames].
    clock : np.ndarray or None
        Beat clock features [columns, C] that it was drawn with.
    seam_log_likelihood : float or None
        See `seam_passages`; nats per token.
    key_distance : float
        How much worse the asked key fits than the one that is heard; see `distance_from_key`.
    """

    samples: np.ndarray
    grid: BeatGrid
    attempt: int
    score: float
    drifted: bool
    codes: np.ndarray | None = None
    clock: np.ndarray | None = None
    seam_log_likelihood: float | None = None
    key_distance: float = 0.0

    @property
    def rank_score(self) -> float:
        """`score` less what an unlikely seam, unlike bars and another key cost: what candidates are ranked by."""
        seam = 0.0 if self.seam_log_likelihood is None else self.seam_log_likelihood
        unlikely = min(max(0.0, -seam), MAX_SEAM_NATS)
        jump = min(max(0.0, self.grid.spans[0].jump_db - JOINED_BARS_DB), MAX_JUMP_DB)
        cost = SEAM_PENALTY_PER_NAT * unlikely + JUMP_PENALTY_PER_DB * jump
        return self.score - cost - KEY_PENALTY * self.key_distance


def score_take(
    samples: np.ndarray, sample_rate: int, plan: Plan, beats_per_bar: int, downbeat: float | None = None
) -> Take:
    """Fit the grid to a drawn waveform and say how good a loop it makes.

    Parameters
    ----------
    samples : np.ndarray
        float32 [T] or [T, 2].
    sample_rate : int
        Hz.
    plan : Plan
    beats_per_bar : int
    downbeat : float, optional
        Seconds of a bar line that is known: where the audio prompt ended.
    """
    # an audio prompt keeps its own tempo and must not vouch for what follows it
    unheard = round(max(0.0, (downbeat or 0.0) - LEAD_IN) * sample_rate) / sample_rate
    grid = fit_grid(
        samples[round(unheard * sample_rate) :],
        sample_rate,
        min(max(plan.bpm, BPM_RANGE[0]), BPM_RANGE[1]),
        beats_per_bar,
        beats=plan.beats,
        downbeat=None if downbeat is None else downbeat - unheard,
    )
    grid = _whole(_later(grid, unheard), plan, len(samples) / sample_rate)
    off = abs(grid.bpm / plan.bpm - 1)
    floor = FIRST_CONFIDENCE_FLOOR if downbeat is None else CONFIDENCE_FLOOR
    drifted = off > TEMPO_TOLERANCE or grid.confidence < floor
    score = grid.confidence - max(0.0, off - 0.005) * 10
    return Take(samples, grid, 0, score, drifted)


def distance_from_key(take: Take, sample_rate: int, asked: str) -> float:
    """How much worse the `asked` key fits the take's loop than the key it is heard in; 0 where no key is clear.

    Drums are in no key, and lose nothing by that.
    """
    first, last = (round(seconds * sample_rate) for seconds in (take.grid.loop_start, take.grid.loop_end))
    heard = hear_key(take.samples[max(0, first) : last], sample_rate)
    return heard.distance(parse_key(asked)) if heard is not None and heard.clear else 0.0


def what_is_doubtful(take: Take, bpm: float) -> str:
    """Say in the user's words why a take would have been drawn again."""
    confidence = take.grid.confidence
    if confidence < CONFIDENCE_FLOOR or abs(take.grid.bpm / bpm - 1) > TEMPO_TOLERANCE:
        return "no clear beat was found at the asked tempo: the first loop is cut as well as it can be"
    return (
        f"the first loop starts on the likeliest bar line, which is not sure (confidence {confidence:.2f}): "
        "another seed may be clearer"
    )


def other_cuts(take: Take, beats_per_bar: int) -> list[Take]:
    """The take, and the same take cut whole bars earlier or later where that makes about as good a loop."""
    grid = take.grid
    best, bar = grid.spans[0], (grid.loop_end - grid.loop_start) / grid.beats * beats_per_bar
    found = [take]
    for span in grid.spans[1:]:
        bars = (span.start - best.start) / bar
        if (
            span.beats != best.beats
            or abs(bars - round(bars)) > 0.03
            or span.score < best.score - MAX_SCORE_GAP
        ):
            continue
        others = tuple(other for other in grid.spans if other is not span)
        moved = replace(grid, loop_start=span.start, loop_end=span.end, spans=(span, *others))
        found.append(
            replace(
                take, grid=moved, score=take.score - CONFIDENCE_PER_SPAN_SCORE * (best.score - span.score)
            )
        )
    return found


def seam_passages(take: Take, frame_rate: float, beats_per_bar: int) -> tuple[Passage, Passage]:
    """A loop's beginning after its last bar, as it is heard when it repeats, and the same codes in place.

    The difference of the model's mean log-likelihoods of the two is the seam's: 0 where the repeat
    surprises no more than the music itself did, negative where it comes out of the blue.

    References
    ----------
    After the seam perplexity of "LoopGen: Training-Free Loopable Music Generation", 2025 (arXiv 2504.04466).
    """
    assert take.codes is not None
    grid, frames = take.grid, take.codes.shape[1]
    start = min(max(0, round(grid.loop_start * frame_rate)), frames - 1)
    end = min(max(start + 1, round(grid.loop_end * frame_rate)), frames)
    bar = min(end - start, max(1, round((end - start) / grid.beats * beats_per_bar)))
    head = np.arange(start, min(end, start + round(SEAM_JUDGED_SECONDS * frame_rate)))

    def after(context: np.ndarray) -> Passage:
        at = np.concatenate([context, head])
        assert take.codes is not None
        clock = None if take.clock is None else take.clock[np.minimum(at, len(take.clock) - 1)]
        return Passage(take.codes[:, at], len(context), clock)

    return after(np.arange(end - bar, end)), after(np.arange(max(0, start - bar), start))


def _later(grid: BeatGrid, seconds: float) -> BeatGrid:
    """The grid of an excerpt in the time of the whole, which began `seconds` before it."""
    return replace(
        grid,
        beat_times=grid.beat_times + seconds,
        downbeat_times=grid.downbeat_times + seconds,
        loop_start=grid.loop_start + seconds,
        loop_end=grid.loop_end + seconds,
        spans=tuple(replace(span, start=span.start + seconds, end=span.end + seconds) for span in grid.spans),
        tempo_map=None,
    )


def _whole(grid: BeatGrid, plan: Plan, seconds: float) -> BeatGrid:
    """The grid, or where it has no room for a whole loop the asked tempo's, without confidence."""
    if grid.beats == plan.beats:
        return grid
    length = plan.beats * 60 / plan.bpm
    start = max(0.0, min(grid.loop_start, seconds - length))
    span = Span(start, start + length, plan.beats, 0.0)
    return replace(
        grid,
        bpm=plan.bpm,
        loop_start=start,
        loop_end=span.end,
        spans=(span,),
        confidence=0.0,
        tempo_map=None,
    )
