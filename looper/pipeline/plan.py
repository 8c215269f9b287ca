"""How much to generate for a request: whole bars, and a bar more for choice and for the seam."""

from __future__ import annotations

import math
from dataclasses import dataclass

from looper.generation.messages import ModelSpec
from looper.model.beat_clock import frames_per_beat
from looper.request import LoopRequest

SPARE = 1.06  # room for music that is slower than asked


@dataclass(frozen=True)
class Plan:
    """Sizes of one request: what is aimed at and how many frames that takes.

    Attributes
    ----------
    beats : int
        Whole beats in each loop.
    period : int or None
        Codec frames per beat where the model has a beat clock.
    bpm : float
        The tempo that the model is asked to play: the asked one, or the clock's nearest.
    bar_frames, first_frames, next_frames, prompt_frames : int
        Frames of a bar, of a candidate, of a variation with its audio prompt, and of that prompt.
    prompt_beats : int
        Asked beats in the audio prompt: a bar, or fewer where a bar leaves no room for a loop.
    """

    beats: int
    period: int | None
    bpm: float
    bar_frames: int
    first_frames: int
    next_frames: int
    prompt_frames: int
    prompt_beats: int


def plan(request: LoopRequest, spec: ModelSpec, beats: int | None = None) -> Plan:
    """Work out how much to generate: the loop, a bar more, and for variations the bar before it.

    Where a long bar and a long loop do not fit the model's window together, the prompt is cut to as many beats
    as leave room for the whole loop from the bar line on, and a beat more. `beats` are those of the loops where a
    recording decides them, not the request.
    """
    rate = spec.frame_rate
    beats = beats or request.beats
    period = frames_per_beat(request.bpm, rate) if spec.clocked else None
    played = 60 * rate / period if period else request.bpm
    asked = request.bpm * 2.0 ** round(math.log2(played / request.bpm))  # the octave that is played
    beat = 60 * rate / request.bpm * (asked / played)  # frames per asked beat in the generated music
    bar = beat * request.beats_per_bar
    # a clocked bar is whole frames, at the level that is played
    bar_frames = max((period or 0) * request.beats_per_bar, math.ceil(bar))
    window = int(spec.window_seconds * rate)
    loop_frames = math.ceil(beats * beat * SPARE)
    prompt_beat = period or beat
    room = window - loop_frames - math.ceil(beat)
    prompt_beats = max(1, min(request.beats_per_bar, int(room // prompt_beat)))
    prompt_frames = math.floor(prompt_beats * prompt_beat)
    return Plan(
        beats=beats,
        period=period,
        bpm=request.bpm * played / asked,
        bar_frames=bar_frames,
        first_frames=min(window, loop_frames + bar_frames),
        next_frames=min(window, prompt_frames + loop_frames + bar_frames),
        prompt_frames=prompt_frames,
        prompt_beats=prompt_beats,
    )
