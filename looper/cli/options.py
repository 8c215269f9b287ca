"""What the command line takes, and what does not go together, said before any work begins."""

from __future__ import annotations

import itertools
import os
import pathlib
import sys
import tempfile
from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated

import typer

from looper.files.formats import AUDIO_FORMATS, check_rate
from looper.runtime.packages import need
from looper.runtime.validation import FieldError

if TYPE_CHECKING:
    from looper.export.style import FileStyle
    from looper.melody import Melody

PLOT_SUFFIXES = (".png", ".pdf", ".svg", ".jpg")
_NAMES = {"cfg_coef": "--guidance", "prompt": "the prompt"}
_OPTIONS = (
    *("bpm", "variations", "max_duration", "bars", "beats_per_bar", "seed", "top_k", "top_p", "temperature"),
    *("min_start", "key", "format", "depth", "plot", "device", "rate", "names", "melody"),
)
NAMES = ("plain", "splice")
SUBTYPES = {"16": "PCM_16", "24": "PCM_24", "float": "FLOAT"}

Prompt = Annotated[str, typer.Argument(help="The music you want, for example 'deep house, warm chords'.")]
Bpm = Annotated[float, typer.Option(help="Tempo, 40 to 300. It overrides a tempo in the prompt.")]
Variations = Annotated[int, typer.Option("--variations", "-n", help="How many loops, 1 to 20.")]
MaxDuration = Annotated[
    float | None,
    typer.Option(help="Longest loop in seconds, 2 to 20; 8 if neither this nor --bars is given."),
]
Bars = Annotated[
    int | None,
    typer.Option(
        help="Exactly so many bars: a power of two, or 3 or 6; what fits the longest loop if not given."
    ),
]
Key = Annotated[
    str | None,
    typer.Option(help="A key such as 'A minor': a wish, not a promise; the report says what is heard."),
]
Model = Annotated[str, typer.Option(help="A model of `looper weights list`, or a folder of weights.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same loops; -1 draws one.")]
BeatsPerBar = Annotated[int, typer.Option(help="Beats in a bar.")]
TopK = Annotated[int, typer.Option(help="Sample from the k likeliest tokens.")]
TopP = Annotated[float, typer.Option(help="Above 0: sample from this share of likelihood instead.")]
Temperature = Annotated[float, typer.Option(help="Higher is more diverse; 0 is greedy.")]
Guidance = Annotated[float, typer.Option(help="How closely to follow the prompt (classifier-free guidance).")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N; the GPU where there is one.")]
Pack = Annotated[bool, typer.Option("--pack", help="Write a folder with pack.json and a zip of it.")]
LoopsPlot = Annotated[
    pathlib.Path | None, typer.Option("--plot", help="Also write a picture of the loops and their seams.")
]

MelodyFile = Annotated[
    pathlib.Path | None,
    typer.Option(
        "--melody", help="A recording whose tune the loops follow, at the asked tempo; with melody models."
    ),
]

Recording = Annotated[pathlib.Path, typer.Argument(help="Any recording that libsndfile or ffmpeg reads.")]
CutDuration = Annotated[
    float | None,
    typer.Option("--max-duration", help="Longest loop in seconds; as long as it goes if not given."),
]
MinStart = Annotated[float, typer.Option(help="Look only after this many seconds.")]
CutPlot = Annotated[
    pathlib.Path | None, typer.Option("--plot", help="Also write a picture of the beats and the cut.")
]

Reply = Annotated[
    pathlib.Path,
    typer.Argument(help="The JSON that Cog, Replicate or `cog predict` answered; - reads it from a pipe."),
]

Folder = Annotated[pathlib.Path, typer.Option("--out", help="Folder for the files; made if it is not there.")]
Format = Annotated[str, typer.Option(help="wav, mp3, flac or ogg.")]
Depth = Annotated[
    str | None,
    typer.Option(help="Bits of a WAV or FLAC: 16, 24 or float; 24 in a pack, else 16, if not given."),
]
Rate = Annotated[
    int | None,
    typer.Option(help="Samples a second: 32000, 44100 or 48000; exact at each. As it came if not given."),
]
Names = Annotated[str, typer.Option(help="plain, or splice: names that the sample shop takes.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]


def file_style(format: str, depth: str | None, names: str, rate: int | None) -> FileStyle:
    """How files are to be, or what does not go together; `rate` is only checked."""
    from looper.export.style import FileStyle

    subtype = _subtype(format, depth)
    if rate is not None:
        check_rate(rate)
    return FileStyle(format, subtype, one_of("names", names, NAMES))


def read_melody(file: pathlib.Path, model: pathlib.Path) -> Melody:
    """The melody in a recording, or what is wrong with it or with the model folder for it."""
    from looper.checkpoints.store import takes_melody
    from looper.files.read import read
    from looper.melody import NEEDS_ANOTHER_MODEL, Melody

    if not takes_melody(model):
        raise FieldError("melody", NEEDS_ANOTHER_MODEL.format(model.name))
    return Melody(*read(file))


def _subtype(format: str, depth: str | None) -> str | None:
    """Sample format for the file format, None where it has none or none was asked for."""
    one_of("format", format, AUDIO_FORMATS)
    if depth is None:
        return None
    chosen = SUBTYPES[one_of("depth", depth, SUBTYPES)]
    if format == "wav" or depth == "16":
        return chosen if format in ("wav", "flac") else None
    if format == "flac" and depth == "24":
        return chosen
    raise FieldError("depth", f"{depth} does not go with {format}: use wav, or flac with 16 or 24")


def named_as_option(error: FieldError) -> FieldError:
    """The error with its field named as the user typed it: --guidance where a request has cfg_coef."""
    known = {name: f"--{name.replace('_', '-')}" for name in _OPTIONS} | _NAMES
    return error.named(known.get(error.field, error.field))


def check_outputs(folder: pathlib.Path, plot: pathlib.Path | None) -> None:
    """Complain about where the results shall go before the work, not after it."""
    try:
        _try_folder(folder.absolute())
    except OSError as error:
        raise ValueError(
            f"cannot write to {folder} ({error.strerror}): choose another folder with --out"
        ) from error
    if plot is not None:
        _check_picture(plot, folder)


def _try_folder(folder: pathlib.Path) -> None:
    """Write where `folder` is or would be made; it is not made, for a failure later on shall leave none.

    Its new names are tried in a scratch folder, which no other process removes.
    """
    new = list(itertools.takewhile(lambda place: not os.path.lexists(place), (folder, *folder.parents)))
    base = new[-1].parent if new else folder
    with tempfile.TemporaryDirectory(dir=base, prefix=".looper-") as scratch:
        for place in new:
            pathlib.Path(scratch, place.name).mkdir(exist_ok=True)


def _check_picture(plot: pathlib.Path, folder: pathlib.Path) -> None:
    """Complain of a picture that cannot be written; `folder` will be there by then."""
    need("matplotlib")
    if plot.suffix.lower() not in PLOT_SUFFIXES:
        raise ValueError(f"the picture must end in {', '.join(PLOT_SUFFIXES)}, got {str(plot)!r}")
    place, out = plot.resolve(), folder.resolve()
    made = (out, *out.parents)
    if place.is_dir() or place in made or not (place.parent in made or place.parent.is_dir()):
        raise ValueError(f"cannot write the picture {plot}: its folder must be there")
    if not place.parent.is_dir():  # made with `folder`, and tried with it
        return
    try:
        tempfile.TemporaryFile(dir=place.parent).close()
    except OSError as error:
        raise ValueError(
            f"cannot write the picture {plot} ({error.strerror}): choose another place with --plot"
        ) from error


def check_not_recording(plot: pathlib.Path | None, recording: pathlib.Path | None) -> None:
    """Refuse a picture in the recording's own place, under whatever name it is reached."""
    if plot is None or recording is None or not recording.exists():
        return
    place = plot.resolve()  # its folder may only be made later, and hold a way back
    if place.exists() and place.samefile(recording):
        raise FieldError("plot", f"must not be the recording itself: {plot}")


def one_of(name: str, value: str, choices: Collection[str]) -> str:
    """`value`, or a complaint that names the `choices`."""
    if value not in choices:
        raise FieldError(name, f"must be one of {', '.join(choices)}, got {value!r:.80}")
    return value


def read_reply_file(path: pathlib.Path) -> bytes:
    """The bytes of a reply in a file, or of standard input for "-"."""
    from looper.export.reply import MOST_REPLY_BYTES

    if str(path) == "-":
        text = sys.stdin.buffer.read(MOST_REPLY_BYTES + 1)
    else:
        if not path.is_file():
            raise ValueError(
                f"no such file: {path}: name the file with the reply, or - to read it from a pipe"
            )
        with path.open("rb") as file:
            text = file.read(MOST_REPLY_BYTES + 1)
    if len(text) > MOST_REPLY_BYTES:
        raise ValueError(f"the reply is over {MOST_REPLY_BYTES / 1e9:.1f} GB, and none of a prediction is")
    return text
