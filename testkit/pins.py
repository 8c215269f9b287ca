"""What the beat grid and the loops are today, in numbers: `python -m testkit.pins` writes them anew.

A change that is meant to change nothing that is heard leaves them as they are; one that is meant to writes them
anew, and says so. Arrays are pinned by sums with fixed weights, so that a place that moves is noticed too.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

PINS = Path(__file__).parents[1] / "tests" / "data" / "pins.json"


def swung(bpm: float, seconds: float, rate: int, metre: int, seed: int) -> np.ndarray:
    """Kick, off-beats and a chord that changes with the bar, with offset, noise and a slight drift; [T]."""
    rng, t = np.random.default_rng(seed), np.arange(round(seconds * rate)) / rate
    out, beat, at, number = 0.02 + 0.002 * rng.standard_normal(len(t)), 60 / bpm, 0.137, 0
    while at < seconds:
        since = np.clip(t - at, 0, None)
        here = (t >= at) & (t < at + 0.3)
        out += here * np.exp(-25 * since) * np.sin(2 * np.pi * (60 if number % metre == 0 else 180) * since)
        off = np.clip(t - at - 0.62 * beat, 0, None)
        out += 0.2 * ((off > 0) & (off < 0.1)) * np.exp(-60 * off) * rng.standard_normal(len(t))
        root = 220 * 2 ** ([0, 5, 7, 3][number // metre % 4] / 12)
        whole = (t >= at) & (t < at + beat)
        out += 0.06 * whole * (np.sin(2 * np.pi * root * t) + np.sin(2 * np.pi * root * 1.26 * t))
        at, number = at + beat * (1 + 0.004 * np.sin(number)), number + 1
    return (0.6 * out).astype(np.float32)


def told(array: np.ndarray) -> list[float]:
    """An array in a few numbers, relative to its size."""
    flat = np.asarray(array, float).ravel()
    weights = np.random.default_rng(len(flat)).standard_normal((3, len(flat)))
    return [float(len(flat)), float(np.sqrt(np.mean(flat**2))), *(weights @ flat / len(flat) ** 0.5)]


def facts(found: Any, name: str) -> Iterator[tuple[str, list[float]]]:
    """The numbers of a dataclass, by the path that leads to them."""
    for field in dataclasses.fields(found):
        value, path = getattr(found, field.name), f"{name}.{field.name}"
        if dataclasses.is_dataclass(value):
            yield from facts(value, path)
        elif isinstance(value, np.ndarray):
            yield path, told(value)
        elif isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
            for number, one in enumerate(value[:6]):
                yield from facts(one, f"{path}[{number}]")
        elif isinstance(value, (bool, int, float)):
            yield path, [float(value)]


def beats() -> dict[str, list[float]]:
    """Features, grids and tempi of three recordings."""
    from looper.beats.features import extract_features
    from looper.beats.grid import fit_grid
    from looper.beats.tempo import phases
    from looper.beats.unknown_tempo import find_tempi

    found: dict[str, list[float]] = {}
    for name, bpm, seconds, rate, metre, options in (
        ("four", 121.7, 11.0, 32_000, 4, {}),
        ("three", 93.0, 9.0, 44_100, 3, {"max_seconds": 5.0, "min_start": 0.7}),
        ("known", 140.0, 7.0, 22_050, 4, {"beats": 8, "downbeat": 0.137 + 4 * 60 / 140}),
    ):
        samples = swung(bpm, seconds, rate, metre, seed=len(name))
        features = extract_features(samples, rate)
        found |= facts(features, f"{name}.features")
        found |= facts(fit_grid(samples, rate, bpm * 1.01, metre, **options), f"{name}.grid")
        for number, pulse in enumerate(phases(features, 60 / bpm)):
            found |= facts(pulse, f"{name}.phases[{number}]")
    for number, tempo in enumerate(find_tempi(swung(104, 10, 22_050, 4, 1), 22_050)):
        found |= facts(tempo, f"tempi[{number}]")
    return found


def loops() -> dict[str, list[float]]:
    """A set of loops at two rates, cut with much and with nothing around it, and what is measured of it."""
    from looper.beats.grid import BeatGrid
    from looper.beats.spans import Span
    from looper.loops.clicks import cross_click_ratios
    from looper.loops.cut import cut
    from looper.loops.key import hear_key
    from looper.loops.loop import at_any_rate
    from looper.loops.loudness import _peaks, _second_look, integrated_loudness, limit, true_peak
    from looper.loops.matching import finish

    def grid(start: float, bpm: float, count: int, metre: int) -> BeatGrid:
        times = start + 60 / bpm * (np.arange(count + 1) + 0.01 * np.sin(np.arange(count + 1)))
        ends = (float(times[0]), float(times[-1]))
        span = Span(*ends, count, 1.0)
        return BeatGrid(bpm, metre, times, times[::metre], *ends, count / metre, 1.0, (span,))

    found: dict[str, list[float]] = {}
    for name, rate, bpm, start, seconds in (
        ("amid", 32_000, 121.0, 1.137, 8.0),
        ("tight", 44_100, 119.0, 0.01, 4.06),
        ("as it is", 32_000, 120.0, 0.5, 5.0),
    ):
        made = []
        for seed in range(3):
            mono = swung(bpm, seconds, rate, 4, seed) * (0.3 + seed)
            stereo = np.stack([mono, np.roll(mono, 7 * seed) * 0.8], axis=1)
            loop = cut(stereo, rate, 120.0, 4, grid=grid(start, bpm, 8, 4))
            found[f"{name}.{seed}.cut"] = told(loop.samples)
            found |= facts(loop.seam, f"{name}.{seed}.seam")
            made.append(loop)
        for seed, loop in enumerate(finish(made)):
            found[f"{name}.{seed}.set"] = told(loop.samples)
            found |= facts(loop.seam, f"{name}.{seed}.finished")
        found[f"{name}.crosses"] = cross_click_ratios([loop.samples for loop in made]).ravel().tolist()
        found[f"{name}.other rate"] = told(at_any_rate(made[1], 38_000).samples)
        samples = made[2].samples.astype(float) * 3
        found[f"{name}.limited"] = told(limit(samples, rate))
        found[f"{name}.peaks"] = [*told(_peaks(samples)), true_peak(samples)]
        found[f"{name}.second look"] = [_second_look(samples, np.arange(9, len(samples), 1000))]
        found[f"{name}.loudness"] = [
            integrated_loudness(samples, rate),
            integrated_loudness(samples[:9000], rate),
        ]
        key = hear_key(samples, rate)
        assert key is not None
        found[f"{name}.key"] = [float(key.key.root), float(key.key.minor), key.confidence, *key.fits]
    return found


def main() -> None:
    """Write the numbers of today."""
    PINS.write_text(json.dumps({"beats": beats(), "loops": loops()}, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
