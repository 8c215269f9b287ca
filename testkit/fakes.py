"""A drum track, and a generator that plays it where a model would stand."""

from __future__ import annotations

import os
import time

import numpy as np

from looper.beats.grid import BeatGrid
from looper.generation.messages import GenerationOutput, ModelSpec
from looper.loops.loop import Loop, loop_length
from looper.loops.seam import SeamReport
from looper.model.beat_clock import FEATURES
from looper.pipeline.result import Loops, Report

SAMPLE_RATE = 32_000


def drum_track(bpm: float, seconds: float, first_beat: float = 0.0, beats_per_bar: int = 4) -> np.ndarray:
    """A kick on every downbeat and third beat, a snare between, hats on eighths: float32 at 32 kHz."""
    n = round(seconds * SAMPLE_RATE)
    out = np.zeros(n + SAMPLE_RATE, np.float32)
    t = np.arange(SAMPLE_RATE // 4) / SAMPLE_RATE
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(len(t))
    kick = np.sin(2 * np.pi * (50 * t + 4 * (1 - np.exp(-30 * t)))) * np.exp(-14 * t)
    snare = 0.5 * noise * np.exp(-25 * t) + 0.3 * np.sin(2 * np.pi * 190 * t) * np.exp(-30 * t)
    hat = 0.15 * np.diff(noise, append=0) * np.exp(-80 * t)
    bass = 0.3 * np.sin(2 * np.pi * 55 * t) * np.exp(-3 * t)
    beat = 60 / bpm
    for i in range(int(2 * seconds / beat) + 2):
        at = first_beat + i * beat / 2
        start = round(at * SAMPLE_RATE)
        if not 0 <= start < n:
            continue
        place = out[start : start + len(t)]
        place += hat
        if i % 2 == 0:
            place += snare if (i // 2) % beats_per_bar % 2 else kick
            if (i // 2) % beats_per_bar == 0:
                place += bass
    return out[:n] * 0.7


class FakeGenerator:
    """Stands where a model would: plays drum_track at the asked tempo, off by `deviation` of the row's key."""

    sample_rate, frame_rate, hop_length, window_seconds = SAMPLE_RATE, 50.0, 640, 30.0
    name = "fake"

    def __init__(self, clocked=False, deviation=lambda key: 0.0, sound=drum_track):
        self.clocked, self.deviation, self.sound = clocked, deviation, sound
        self.calls = []

    @property
    def spec(self):
        return ModelSpec(self.frame_rate, self.hop_length, self.window_seconds, self.clocked)

    def generate(self, request, progress=None):
        self.calls.append(request)
        return GenerationOutput(self.waves(request, progress))

    def waves(self, request, progress):
        frames, clock, audio_prompts = request.frames, request.clock, request.audio_prompts
        assert frames <= self.window_seconds * self.frame_rate
        assert (clock is not None) == self.clocked
        if clock is not None:
            assert clock.shape[0] >= frames and clock.shape[1] == FEATURES
        bpm = float(request.prompts[0].rsplit(", ", 1)[-1].removesuffix(" bpm"))
        if self.clocked:  # a clocked model plays whole frames per beat, named by the clock's tempo feature
            bpm = 3000 / (30 + 10 * float(clock[0, -1]))
        seconds = frames / self.frame_rate
        lead = 0 if audio_prompts is None else audio_prompts.shape[-1] / self.sample_rate
        rows = []
        for i, key in enumerate(request.keys):
            tempo = bpm * (1 + self.deviation(key))
            wave = self.sound(tempo, seconds, first_beat=lead % (240 / tempo))
            if audio_prompts is not None:
                wave[: audio_prompts.shape[-1]] = audio_prompts[min(i, len(audio_prompts) - 1)]
            rows.append(wave.astype(np.float32))
        if progress:
            progress(frames, frames)
        return np.stack(rows)

    def prepare(self): ...


class FakeMaker:
    """Stands where a LoopMaker would: noise of the exact length in milliseconds, decided by the request alone.

    Prompts with a meaning: "broken" is an error of the generation, "deadly" ends the process as a crash would,
    "slow" takes a fifth of a second.
    """

    rate = 8_000

    @classmethod
    def load(cls, model, device=None):
        return cls()

    def make(self, request, progress=None, melody=None):
        self._act(request.prompt, progress or (lambda *_: None))
        beats = request.beats
        bars, n = beats / request.beats_per_bar, loop_length(beats, request.bpm, self.rate)
        grid = BeatGrid(
            request.bpm, request.beats_per_bar, *[np.zeros(0)] * 2, 0, n / self.rate, bars, 0.9, ()
        )
        noise = np.random.default_rng(request.seed).uniform(-0.5, 0.5, (request.variations, n))
        info = {"prompt": request.prompt, "seed": request.seed, "model": "fake"}
        loops = [
            Loop(wave, self.rate, request.bpm, request.beats_per_bar, beats, grid, SeamReport(1.0), info)
            for wave in noise.astype(np.float32)
        ]
        for loop in loops:
            vars(loop)["heard_key"] = None  # noise has none, and to hear that takes librosa's import
        report = Report(request.seed, "fake", bars)
        report.measured_bpm, report.confidence = [request.bpm] * len(loops), [0.9] * len(loops)
        report.attempts = [1] * len(loops)
        return Loops(loops, request, report)

    def _act(self, prompt, progress):
        if prompt == "broken":
            raise RuntimeError("the model's output stopped being finite at step 3")
        if prompt == "deadly":
            os._exit(9)
        for step in range(20 if prompt == "slow" else 0):
            progress("candidates", step, 20)
            time.sleep(0.01)
