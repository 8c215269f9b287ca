"""Folders of clips to examples: what we rendered ourselves, and MusicGen's own music.

Rendered clips (``training.clips.render``) know their bar lines. Of generated music nobody does: two
trackers were run over it, and their bar lines are evidence. A folder of such music has a ``truth.json``,
a list of clips with ``file``, ``requested_bpm``, ``prompt``, ``madmom`` and ``beatnet`` (each a list of
[seconds, number in the bar]) and, where both have the same bar lines, ``agreed_downbeats`` in seconds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile as sf
from scipy.special import softmax

from looper.beats import tempo_map
from looper.beats.constraints import Constraints
from looper.beats.features import extract_features
from looper.beats.hypotheses import MetricalHypothesis, metrical_hypotheses
from looper.beats.pulse import find_pulse
from looper.beats.tempo_map import TempoMap
from looper.samples import mono
from training.bar_scorer import Example

RIGHT_PERIOD = 0.01  # share by which the found period may be off
ON_LINE_SECONDS = 0.05  # between a hypothesis's bar lines and the true ones
WINDOW_SECONDS = 0.07  # of the F-measure
# log odds that a tracker's bar lines give those they match, and that both together give
MADMOM, BEATNET, AGREED, SAME = 2.5, 1.5, 1.5, 6.0
SAME_F = 0.85  # F-measure from which bar lines count as the agreed ones
PRIOR = 0.6  # exponent of the networks' own opinion, which is too sure of itself
UNSURE_WEIGHT = 0.5  # in the loss, of clips on which the trackers disagree
OPENING_WEIGHT = 2.0  # in the loss, of rendered clips that begin on a bar line: they are the fewer


@dataclass(frozen=True)
class GeneratedClip:
    """A clip of generated music: its hypotheses, and the bar lines that trackers heard, in their time."""

    file: str
    prompt: str
    model: str
    found: list[MetricalHypothesis]
    duration: float
    lines: dict[str, np.ndarray]  # of "madmom", "beatnet" and, where there are any, "agreed"

    @property
    def example(self) -> Example:
        """Without a target."""
        return Example(self.found, np.zeros((len(self.found), 4)))


def f_measure(reference: np.ndarray, estimated: np.ndarray) -> float:
    """Share of events that match one to one within WINDOW_SECONDS, as an F-measure."""
    hits = i = j = 0
    while i < len(reference) and j < len(estimated):
        gap = estimated[j] - reference[i]
        hits += abs(gap) <= WINDOW_SECONDS
        i, j = i + (gap >= -WINDOW_SECONDS), j + (gap <= WINDOW_SECONDS)
    return 2 * hits / (len(reference) + len(estimated)) if hits else 0.0


def _hear(path: Path, wanted: Constraints) -> tuple[list[MetricalHypothesis], TempoMap, float]:
    """A recording's hypotheses, its pulse, and seconds in straightened time."""
    samples, rate = sf.read(path, dtype="float32")
    features = extract_features(mono(samples), rate)
    pulse, _ = find_pulse(features, wanted)
    even = features if len(pulse.times) == 2 else tempo_map.straighten(features, pulse)
    return metrical_hypotheses(even, pulse.period), pulse, even.duration


def target_of(clip: dict, found: list[MetricalHypothesis], lines: np.ndarray) -> np.ndarray:
    """Mark the hypothesis at the true level whose lines lie nearest to the true ones."""
    metre = clip["beats_per_bar"]
    target, best = np.zeros((len(found), metre), np.float32), (ON_LINE_SECONDS, -1, -1)
    for i, hypothesis in enumerate(found):
        for m in range(metre):
            mine = hypothesis.beat_times[m::metre]
            if hypothesis.level == clip["level"] and len(mine):
                off = float(np.median(np.abs(lines[:, None] - mine).min(axis=1)))
                best = min(best, (off, i, m))
    if best[1] >= 0:
        target[best[1:]] = 1
    return target


def rendered(folder: Path) -> list[Example]:
    """Examples of the clips in a folder whose tempo is found and whose bar line can be told."""
    examples = []
    for clip in json.loads((folder / "truth.json").read_text()):
        if len(clip["beats"]) < 5 or not clip["downbeats"]:
            continue
        wanted = Constraints(clip["requested_bpm"], clip["beats_per_bar"])
        found, pulse, _ = _hear(folder / clip["file"], wanted)
        true = np.ptp(clip["beats"]) / (len(clip["beats"]) - 1) / clip["level"]
        if abs(pulse.period / true - 1) < RIGHT_PERIOD:
            target = target_of(clip, found, pulse.even_time(np.array(clip["downbeats"])))
            small = [replace(h, features=h.features.astype(np.float16)) for h in found]  # thousands of clips
            weight = 1.0 if clip["start"] == "random" else OPENING_WEIGHT
            examples += [Example(small, target, weight)] if target.any() else []
    return examples


def generated(folder: Path) -> list[GeneratedClip]:
    """The clips of a folder of generated music that has trackers' bar lines."""
    clips = []
    for clip in json.loads((folder / "truth.json").read_text()):
        found, pulse, duration = _hear(folder / clip["file"], Constraints(clip["requested_bpm"]))
        heard = {n: [t for t, k in clip.get(n) or [] if k == 1] for n in ("madmom", "beatnet")}
        heard["agreed"] = clip.get("agreed_downbeats") or []
        lines = {name: pulse.even_time(np.array(times, float)) for name, times in heard.items()}
        clips.append(GeneratedClip(clip["file"], clip["prompt"], clip["model"], found, duration, lines))
    return clips


def _matches(found: list[MetricalHypothesis], lines: np.ndarray, metre: int = 4) -> np.ndarray:
    """F-measure of each beat of the bar of each hypothesis against bar lines, [len(found), metre]."""
    return np.array([[f_measure(lines, h.beat_times[m::metre]) for m in range(metre)] for h in found])


def likely_bars(clip: GeneratedClip, opinion: np.ndarray) -> Example:
    """What the networks' opinion and the trackers' evidence make likely: a target to fit on.

    Parameters
    ----------
    clip : GeneratedClip
    opinion : np.ndarray
        Probabilities [len(found), 4] by networks that never saw the clip.
    """
    odds = PRIOR * np.log(opinion + 1e-4)
    odds += MADMOM * _matches(clip.found, clip.lines["madmom"])
    odds += BEATNET * _matches(clip.found, clip.lines["beatnet"])
    agreed = _matches(clip.found, clip.lines["agreed"])
    odds += AGREED * agreed + SAME * (agreed > SAME_F)
    return Example(clip.found, softmax(odds), 1.0 if len(clip.lines["agreed"]) else UNSURE_WEIGHT)
