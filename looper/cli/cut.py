"""`looper cut` and `looper analyse`: what is done with recordings, without a model."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from looper.cli import options as opt
from looper.cli.cut_output import CutFile, tell_analysis, tell_cut, tell_cuts
from looper.files.formats import AUDIO_FORMATS
from looper.files.text import displayable
from looper.request import CutRequest
from looper.runtime.validation import FieldError

if TYPE_CHECKING:
    import numpy as np

    from looper.beats.unknown_tempo import TempoCandidate
    from looper.export.style import FileStyle
    from looper.loops.loop import Loop

Recordings = Annotated[
    list[pathlib.Path],
    typer.Argument(help="Recordings that libsndfile or ffmpeg reads, or folders of them.", metavar="FILE..."),
]
FoundBpm = Annotated[
    float | None,
    typer.Option(help="Tempo, 40 to 300; the music may be some per cent off. Found, and told, if not given."),
]
SUFFIXES = {
    *AUDIO_FORMATS,
    "aac",
    "aif",
    "aiff",
    "caf",
    "m4a",
    "opus",
    "w64",
    "wma",
}  # of a folder's recordings
ROUND_SHARE = 1e-3  # a tempo found so near a whole number is taken for it; nothing is stretched by so little


def cut(
    files: Recordings,
    bpm: FoundBpm = None,
    beats_per_bar: opt.BeatsPerBar = 4,
    max_duration: opt.CutDuration = None,
    bars: opt.Bars = None,
    min_start: opt.MinStart = 0.0,
    folder: opt.Folder = pathlib.Path(),
    format: opt.Format = "wav",
    depth: opt.Depth = None,
    rate: opt.Rate = None,
    names: opt.Names = "plain",
    plot: opt.CutPlot = None,
    as_json: opt.Json = False,
) -> None:
    """Cut a seamless loop of exactly BPM out of each recording, at its own sample rate and with its channels.

    Example: looper cut jam.wav --bpm 120 --plot jam.png
    """
    style = opt.file_style(format, depth, names, rate)
    asked = _Cutting(bpm, beats_per_bar, max_duration, min_start, bars, rate, folder, style)
    asked.at(120 if bpm is None else bpm, lenient=bpm is None)
    opt.check_outputs(folder, plot)
    several = len(files) > 1 or files[0].is_dir()
    if several and plot:
        raise FieldError("plot", "draws one recording: leave it out, or name one file")
    opt.check_not_recording(plot, files[0])
    if several:
        _cut_all(_recordings(files), asked, as_json)
    else:
        tell_cut(asked.cut(files[0], plot), as_json)


def analyse(
    file: opt.Recording,
    bpm: FoundBpm = None,
    beats_per_bar: opt.BeatsPerBar = 4,
    as_json: opt.Json = False,
) -> None:
    """Tell the tempo of a recording, its beats, bar lines, key and best loop; no file is written.

    Example: looper analyse jam.wav --json
    """
    from looper.beats.grid import fit_grid
    from looper.files.read import read
    from looper.loops.key import hear_key

    CutRequest(120 if bpm is None else bpm, beats_per_bar)
    samples, sample_rate = read(file)
    tempi = _tempi(samples, sample_rate, file, needed=bpm is None)
    bpm = rounded(tempi[0].bpm) if bpm is None else bpm
    grid = fit_grid(samples, sample_rate, bpm, beats_per_bar)
    tell_analysis(file, samples, sample_rate, grid, tempi, hear_key(samples, sample_rate), as_json)


@dataclass(frozen=True)
class _Cutting:
    """What is to be cut out of each recording, and where it goes."""

    bpm: float | None
    beats_per_bar: int
    max_duration: float | None
    min_start: float
    bars: int | None
    rate: int | None
    folder: pathlib.Path
    style: FileStyle

    def at(self, bpm: float, *, lenient: bool = False) -> CutRequest:
        """The request at a tempo, checked; `lenient` leaves out what depends on a tempo that is not known yet."""
        longest, bars = (None, None) if lenient else (self.max_duration, self.bars)
        return CutRequest(bpm, self.beats_per_bar, longest, self.min_start, bars)

    def cut(self, file: pathlib.Path, plot: pathlib.Path | None = None) -> CutFile:
        """Cut one recording, write its loop and, where asked, its picture."""
        from looper.export.loop_files import write_cut
        from looper.export.names import cut_name
        from looper.files.read import read

        samples, sample_rate = read(file)
        tempi = [] if self.bpm is not None else _tempi(samples, sample_rate, file, needed=True)
        request = self.at(rounded(tempi[0].bpm) if self.bpm is None else self.bpm)
        loop = _cut(samples, sample_rate, request)
        loop = loop if self.rate is None else loop.at_rate(self.rate)
        written = write_cut(loop, self.folder, file, self.style)
        if plot:
            from looper.export.plot_grid import plot_grid

            plot_grid(samples, sample_rate, loop.grid, plot)
        return CutFile(file, loop, written, cut_name(loop, file.stem, names=self.style.names), tuple(tempi))


def rounded(bpm: float) -> float:
    """A tempo that was found, as a whole number where it is as good as one, else with two decimals.

    Examples
    --------
    >>> rounded(119.96), rounded(93.6987)
    (120.0, 93.7)
    """
    whole = float(round(bpm))
    return whole if abs(bpm / whole - 1) <= ROUND_SHARE else round(bpm, 2)


def _tempi(
    samples: np.ndarray, sample_rate: int, file: pathlib.Path, *, needed: bool
) -> list[TempoCandidate]:
    from looper.beats.unknown_tempo import find_tempi

    try:
        tempi = find_tempi(samples, sample_rate)
    except ValueError:
        if needed:
            raise
        return []
    if needed and not tempi:
        raise ValueError(f"no beat was found in {file}: say its tempo with --bpm")
    return tempi


def _cut(samples: np.ndarray, sample_rate: int, request: CutRequest) -> Loop:
    """The loop, at the loudness that loops have."""
    from looper.beats.grid import fit_grid
    from looper.loops.cut import cut
    from looper.loops.matching import level

    bpm, metre = request.bpm, request.beats_per_bar
    bounds = {"max_seconds": request.max_duration, "min_start": request.min_start, "beats": request.beats}
    grid = fit_grid(samples, sample_rate, bpm, metre, **bounds)  # type: ignore[arg-type]
    return level([cut(samples, sample_rate, bpm, metre, bars=request.bars, grid=grid)])[0]


def _recordings(files: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """The files, and those of the folders among them by name."""
    found = []
    for file in files:
        if not file.is_dir():
            found.append(file)
            continue
        inside = sorted(
            path
            for path in file.iterdir()
            if path.suffix.lower()[1:] in SUFFIXES
            and not path.name.startswith(".")  # "._jam.wav" is what a Mac keeps of jam.wav on other disks
            and path.is_file()
        )
        if not inside:
            raise ValueError(f"no recordings in {file}: name files, or a folder of WAV, FLAC, MP3 ...")
        found += inside
    return found


def _cut_all(files: Sequence[pathlib.Path], asked: _Cutting, as_json: bool) -> None:
    """Cut each; what cannot be cut is named, the others are, and the exit code says so."""
    results: list[CutFile | tuple[pathlib.Path, str]] = []
    for file in files:
        try:
            results.append(asked.cut(file))
        except ValueError as error:
            named = opt.named_as_option(error) if isinstance(error, FieldError) else error
            name = displayable(str(file))
            said = str(named).replace(str(file), name)
            results.append((file, said if name in said else f"{name}: {said}"))
    tell_cuts(results, as_json)
    if any(isinstance(result, tuple) for result in results):
        raise typer.Exit(1)
