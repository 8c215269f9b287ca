"""Measure loops where they start again: clicks, length, attacks, loudness, MP3.

    python -m bench.quality.seams --clips DIR [--limit N] [--tiny N] [--json]

DIR holds recordings and a truth.json with their beats. Every recording is cut twice, on its true
beats and on the grid that looper finds, and once more by the recipe of the public model this project
follows (last 100 samples blended linearly with those before the cut, stretched afterwards; the
stretch itself is ours, the order is theirs). `--tiny N` adds N loops made by weights/tiny.

Columns, and what they should be:
  click_self    share of loops whose click ratio at the wrap is over 1.5 (<= 0.01)
  click_cross   share of pairs "loop i into loop j" of one set over 1.5 (<= 0.02); a recording's set is
                its single bars, a request's set is its variations
  onset_ms      median distance of attacks from where the stretch should have put them (<= 0.3)
  spread_lu     largest loudness difference within a set (<= 0.5)
  true_peak     largest true peak, dBTP (< -1)
  cpu           median CPU seconds for a loop, stretch to level
Below them: 200 random (bpm, bars, metre) for exact lengths, and MP3 decoded by ffmpeg and libsndfile.
`--json` prints click_self, click_cross, exact_lengths (shares), onset_error_ms, loudness_spread_lu,
mp3_offset_samples, each the worst of our rows, and every row under "rows".
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile as sf
from scipy.ndimage import uniform_filter1d
from scipy.signal import correlate

from bench.quality.exactness import exact_lengths, mp3_offset
from bench.quality.labelled_clips import bar_grids, true_grid
from looper.beats.grid import BeatGrid, fit_grid
from looper.loops import loudness
from looper.loops.clicks import CLICK, click_ratio, cross_click_ratios
from looper.loops.cut import cut
from looper.loops.loop import loop_length
from looper.loops.matching import finish
from looper.loops.stretch import stretch


@dataclass
class Row:
    """Figures of one way of making loops."""

    name: str
    self_clicks: list[float] = field(default_factory=list)
    cross_clicks: list[float] = field(default_factory=list)
    onsets_ms: list[float] = field(default_factory=list)
    spreads_lu: list[float] = field(default_factory=list)
    peaks_db: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def add_set(self, loops: list[np.ndarray], sample_rate: int) -> None:
        """Take the figures of loops that belong together."""
        ratios = cross_click_ratios(loops)
        self.cross_clicks += list(ratios[~np.eye(len(loops), dtype=bool)])
        heard = [loudness.integrated_loudness(loop, sample_rate) for loop in loops]
        heard = [value for value in heard if np.isfinite(value)]
        self.spreads_lu.append(max(heard) - min(heard) if heard else 0.0)
        self.peaks_db += [20 * np.log10(loudness.true_peak(loop) + 1e-9) for loop in loops]

    def figures(self) -> dict[str, float | int | str | None]:
        """Sum up for the table."""
        share = lambda values: float(np.mean(np.array(values) > CLICK)) if values else None
        middle = lambda values: float(np.median(values)) if values else None
        return {
            "name": self.name,
            "loops": len(self.self_clicks),
            "click_self": share(self.self_clicks),
            "pairs": len(self.cross_clicks),
            "click_cross": share(self.cross_clicks),
            "onset_ms": middle(self.onsets_ms),
            "onsets": len(self.onsets_ms),
            "spread_lu": max(self.spreads_lu, default=None),
            "true_peak": max(self.peaks_db, default=None),
            "cpu": middle(self.cpu),
        }


def by_the_recipe(samples: np.ndarray, sample_rate: int, grid: BeatGrid, n: int) -> np.ndarray:
    """Cut, blend 100 samples, stretch last: the public model's order."""
    start, end = round(grid.loop_start * sample_rate), round(grid.loop_end * sample_rate)
    loop = samples[start:end].copy()
    lead = samples[max(0, start - 100) : start]
    if len(lead):
        ramp = np.linspace(0, 1, len(lead), dtype=np.float32)
        loop[-len(lead) :] = (1 - ramp) * loop[-len(lead) :] + ramp * lead
    return stretch(loop[:, None], sample_rate, len(loop) / n)[:, 0]


def _attack_shape(samples: np.ndarray, ms: float) -> np.ndarray:
    return np.sqrt(
        uniform_filter1d(np.diff(samples, prepend=samples[:1]).astype(float) ** 2, max(2, round(ms / 2)))
    )


def onset_errors(source: np.ndarray, out: np.ndarray, sample_rate: int, pairs: np.ndarray) -> list[float]:
    """Milliseconds between clear attacks and where they should be.

    `pairs` [K, 2] are sample positions in `source` and where these should lie in `out`. An attack is
    clear when the 5 ms after its onset are at least 10 dB louder than the 5 ms before.
    """
    ms, errors = sample_rate / 1000, []
    reach = round(15 * ms)
    for at, should in np.round(pairs).astype(int):
        if min(at, should) < 2 * reach or at + 2 * reach > len(source) or should + 2 * reach > len(out):
            continue
        a = _attack_shape(source[at - reach : at + reach], ms)
        b = _attack_shape(out[should - reach : should + reach], ms)
        rise = int(np.argmax(np.diff(a)))
        five = round(5 * ms)
        if (
            rise < five
            or rise + five > len(a)
            or (a[rise : rise + five] ** 2).sum() < 10 * (a[rise - five : rise] ** 2).sum()
        ):
            continue
        lag = int(np.argmax(correlate(b - b.mean(), a - a.mean(), "full"))) - (len(a) - 1)
        errors.append(abs(lag) / ms)
    return errors


def measure_clips(folder: Path, limit: int | None) -> list[Row]:
    ours_true, ours_own, recipe = Row("ours, true grid"), Row("ours, own grid"), Row("the recipe, true grid")
    for clip in json.loads((folder / "truth.json").read_text())[:limit]:
        samples, rate = sf.read(folder / clip["file"], dtype="float32")
        bpm, metre = clip["requested_bpm"], clip["beats_per_bar"]
        own = fit_grid(samples, rate, bpm, metre)
        for row, grid in ((ours_true, true_grid(clip)), (ours_own, own)):
            if grid is None:
                continue
            started = time.process_time()
            loop = cut(samples, rate, bpm, metre, grid=grid)
            done = finish([loop])[0]
            row.cpu.append(time.process_time() - started)
            row.self_clicks.append(click_ratio(done.samples))
            row.onsets_ms += onset_errors(samples, loop.samples, rate, _expected(clip, grid, loop, rate))
        if true_grid(clip) is not None:
            grid = true_grid(clip)
            old = by_the_recipe(samples, rate, grid, loop_length(grid.beats, bpm, rate))
            recipe.self_clicks.append(click_ratio(old))
            recipe.onsets_ms += onset_errors(samples, old, rate, _expected(clip, grid, None, rate, len(old)))
        bars = list(bar_grids(clip, len(samples) / rate))
        if len(bars) > 1:
            loops = finish([cut(samples, rate, bpm, metre, grid=grid) for grid in bars])
            ours_true.add_set([loop.samples for loop in loops], rate)
            n = len(loops[0].samples)
            recipe.add_set([by_the_recipe(samples, rate, grid, n) for grid in bars], rate)
    # a found loop alone is a set of one: no pairs, and its level is checked with the others
    return [ours_true, ours_own, recipe]


def _expected(clip: dict, grid: BeatGrid, loop, rate: int, n: int | None = None) -> np.ndarray:
    """Pairs of true beats and their places in the loop, where a constant ratio says where that is."""
    beats = np.array(clip["beats"])
    beats = beats[(beats > grid.loop_start + 0.1) & (beats < grid.loop_end - 0.1)]
    if clip["drift"] != 0:
        return np.empty((0, 2))
    n = n or len(loop.samples)
    seconds = grid.loop_end - grid.loop_start
    factor = seconds * rate / n
    if loop is not None and abs(factor - 1) <= 0.001:
        factor = 1.0
    preroll = 0.0 if loop is None else loop.seam.preroll_ms * rate / 1000
    return np.column_stack([beats * rate, (beats - grid.loop_start) * rate / factor + preroll])


def measure_tiny(count: int) -> Row:
    import looper

    row, maker = Row("ours, weights/tiny"), looper.LoopMaker.load("tiny")
    prompts = (
        "deep house, warm chords",
        "drum and bass, reese bass",
        "lofi hip hop, dusty drums",
        "ambient pad",
    )
    tempi = (124, 174, 84, 93.5, 127.003)
    made = 0
    while made < count:
        k = made // 5
        request = looper.LoopRequest(
            prompt=prompts[k % len(prompts)],
            bpm=tempi[k % len(tempi)],
            variations=min(5, count - made),
            seed=k,
        )
        loops = list(maker.make(request))
        row.self_clicks += [click_ratio(loop.samples) for loop in loops]
        row.add_set([loop.samples for loop in loops], loops[0].sample_rate)
        made += len(loops)
    return row


def _worst(rows: list[dict], key: str) -> float | None:
    return max((row[key] for row in rows if row[key] is not None), default=None)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=Path, required=True, help="folder of recordings with truth.json")
    parser.add_argument("--limit", type=int, help="only the first recordings")
    parser.add_argument("--tiny", type=int, default=0, help="also this many loops of weights/tiny")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = measure_clips(args.clips, args.limit)
    if args.tiny:
        rows.append(measure_tiny(args.tiny))
    table = [row.figures() for row in rows]
    ours = [row for row in table if row["name"].startswith("ours")]
    figures = {
        "click_self": _worst(ours, "click_self"),
        "click_cross": _worst(ours, "click_cross"),
        "exact_lengths": exact_lengths(),
        "onset_error_ms": _worst(ours, "onset_ms"),
        "loudness_spread_lu": _worst(ours, "spread_lu"),
        "mp3_offset_samples": mp3_offset(args.clips),
    }
    if args.json:
        print(json.dumps({**figures, "rows": table}, indent=1))
        return
    print("  ".join(f"{name:>12}" if k else f"{name:<22}" for k, name in enumerate(table[0])))
    for row in table:
        cells = ["-" if v is None else v if isinstance(v, str) else f"{v:.4g}" for v in row.values()]
        print("  ".join(f"{cell:>12}" if k else f"{cell:<22}" for k, cell in enumerate(cells)))
    for name, value in figures.items():
        print(f"{name:<20} {value:.4g}" if value is not None else f"{name:<20} -")


if __name__ == "__main__":
    main()
