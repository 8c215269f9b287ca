"""What is done with recordings: tempi found, loops at studio rates, variations, each against what is known.

    python -m bench.quality.recordings tempo --set DIR        # against librosa's tempo, told nothing either
    python -m bench.quality.recordings rates --clips DIR      # seams and true peaks of loops, resampled
    python -m bench.quality.recordings vary --clips DIR [--model tiny] [--limit N]

DIR holds audio files; for `tempo` also truth.json, as training/clips/render.py writes it. True peaks are read from the
loop's Fourier series at eight times its rate, not by the limiter's own filter.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path

import librosa
import numpy as np
import soundfile as sf
from pyloudnorm import Meter
from scipy.signal import resample

import looper
from looper.files.formats import RATES
from looper.length import is_loop_length
from looper.loops.clicks import CLICK
from looper.loops.loop import loop_length
from looper.loops.matching import cross_clicks, finish

NEAR = 0.02  # share of a tempo within which it is found
TEMPI = (40, 61.3, 93.7, 120, 127.003, 174, 299.9)


def sounds(folder: Path, limit: int | None) -> list[tuple[str, np.ndarray, int]]:
    """Names, samples [T] or [T, C] and rates of a folder's recordings, spread over all of them."""
    files = sorted(path for path in folder.iterdir() if path.suffix in (".flac", ".wav", ".ogg"))
    step = max(1, len(files) // (limit or len(files)))
    return [(path.name, *sf.read(path, dtype="float32")) for path in files[::step][:limit]]


def tempo(folder: Path) -> dict[str, dict[str, float]]:
    """Shares of clips whose tempo is found: the first candidate, the first three, the first or its half or double."""
    rows = []
    for clip in json.loads((folder / "truth.json").read_text()):
        if not (folder / clip["file"]).exists():
            continue
        samples, rate = sf.read(folder / clip["file"], dtype="float32")
        theirs = float(np.atleast_1d(librosa.feature.tempo(y=librosa.to_mono(samples.T), sr=rate))[0])
        rows.append((clip["musical_bpm"], looper.find_tempi(samples, rate), theirs))
    near = lambda bpm, true: abs(bpm / true - 1) < NEAR
    octaves = lambda bpm, true: any(near(bpm, true * k) for k in (0.5, 1, 2))
    found = [(true, [c.bpm for c in tempi] or [0.0], tempi, theirs) for true, tempi, theirs in rows]
    ours = {
        "first": np.mean([near(bpm[0], true) for true, bpm, *_ in found]),
        "first_three": np.mean([any(near(one, true) for one in bpm[:3]) for true, bpm, *_ in found]),
        "first_or_octave": np.mean([octaves(bpm[0], true) for true, bpm, *_ in found]),
        "said": np.mean([tempi[0].confidence if tempi else 0.0 for *_, tempi, _ in found]),
    }
    librosas = {
        "first": np.mean([near(theirs, true) for true, *_, theirs in found]),
        "first_or_octave": np.mean([octaves(theirs, true) for true, *_, theirs in found]),
    }
    return {
        name: {k: round(float(v), 3) for k, v in row.items()}
        for name, row in (("ours", ours), ("librosa", librosas))
    }


def peak_db(samples: np.ndarray) -> float:
    """True peak of a repeating loop in dB."""
    return float(20 * np.log10(np.abs(resample(samples.astype(float), 8 * len(samples), axis=0)).max()))


def rates(folder: Path, limit: int | None) -> dict[str, dict[str, float]]:
    """Exact lengths, clicks and highest true peak of pairs of loops at each rate."""
    pairs = []
    for (_, samples, rate), bpm in zip(sounds(folder, limit), TEMPI * 20, strict=False):
        played = looper.analyse(samples, rate, bpm)
        one = looper.cut(samples, rate, bpm, grid=played)
        if one.bars >= 1 and is_loop_length(int(one.bars)):
            other = looper.cut(np.roll(samples, rate // 3, axis=0), rate, bpm, bars=int(one.bars))
            pairs.append(finish([one, other]))
    told = {}
    for hertz in RATES:
        sets = [[loop.at_rate(hertz) for loop in pair] for pair in pairs]
        told[str(hertz)] = {
            "loops": sum(map(len, sets)),
            "exact": sum(len(x.samples) == loop_length(x.beats, x.bpm, hertz) for pair in sets for x in pair),
            "click_ratio_worst": round(max(float(cross_clicks(pair).max()) for pair in sets), 3),
            "true_peak_db": round(max(peak_db(loop.samples) for pair in sets for loop in pair), 2),
        }
    return told


def vary(folder: Path, limit: int | None, model: str) -> list[dict[str, object]]:
    """Two variations and the source of each recording, at its own tempo: clicks, lengths, tempo, loudness."""
    maker, rows = looper.LoopMaker.load(model, "cpu"), []
    for seed, (name, samples, rate) in enumerate(sounds(folder, limit)):
        tempi = looper.find_tempi(samples, rate)
        bpm = round(tempi[0].bpm, 2) if tempi else 120.0
        request = looper.LoopRequest("house drums", bpm=bpm, variations=2, max_duration=6, seed=seed)
        loops = maker.vary(samples, rate, request, include_source=True)
        loud = [Meter(rate).integrated_loudness(loop.samples) for loop in loops]
        pairs = cross_clicks(list(loops))
        rows.append(
            {
                "file": name,
                "bpm": bpm,
                "bars": loops[0].bars,
                "exact": all(len(x.samples) == loop_length(x.beats, bpm, rate) for x in loops),
                "pairs_that_click": int(
                    sum(pairs[i, j] > CLICK for i, j in product(range(len(loops)), repeat=2))
                ),
                "click_ratio_worst": round(float(pairs.max()), 3),
                "generated_bpm": [round(found, 2) for found in loops.report.measured_bpm[1:]],
                "confidence": [round(found, 2) for found in loops.report.confidence[1:]],
                "loudness_spread_lu": round(float(np.ptp(loud)), 3),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("tempo", "rates", "vary"))
    parser.add_argument("--set", "--clips", dest="folder", type=Path, required=True)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--model", default="tiny")
    given = parser.parse_args()
    if given.what == "vary":
        vary(given.folder, given.limit, given.model)
        return
    told = tempo(given.folder) if given.what == "tempo" else rates(given.folder, given.limit)
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
