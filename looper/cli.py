"""The command line: make loops, cut loops, keep weights, serve."""

from __future__ import annotations

import json
import logging
import pathlib
import tempfile
import time
from typing import Annotated, Any

import typer
from rich.table import Table

from looper.screen import err, out, progress_bars, show_on, tell_cut, tell_made

app = typer.Typer(
    help="Text prompt and tempo in, seamless bar-aligned music loops out, at exactly the asked BPM.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
weights_app = typer.Typer(help="Fetch, list and check model weights.", no_args_is_help=True)
app.add_typer(weights_app, name="weights")

FILE_FORMATS = ("wav", "mp3", "flac", "ogg")
PLOT_SUFFIXES = (".png", ".pdf", ".svg", ".jpg")
SUBTYPES = {"16": "PCM_16", "24": "PCM_24", "float": "FLOAT"}
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
_Out = Annotated[pathlib.Path, typer.Option("--out", help="Folder for the files; made if it is not there.")]
_Format = Annotated[str, typer.Option(help="wav, mp3, flac or ogg.")]
_Depth = Annotated[str, typer.Option(help="Bits of a WAV or FLAC: 16, 24 or float.")]


@app.command()
def make(
    prompt: Annotated[str, typer.Argument(help="The music you want, for example 'deep house, warm chords'.")],
    bpm: Annotated[float, typer.Option(help="Tempo, 40 to 300. It rules over a tempo in the prompt.")] = 140,
    variations: Annotated[int, typer.Option("--variations", "-n", help="How many loops, 1 to 20.")] = 4,
    max_duration: Annotated[float, typer.Option(help="Longest loop in seconds, 2 to 20.")] = 8,
    model: Annotated[str, typer.Option(help="medium, large, tiny, or a folder of weights.")] = "medium",
    seed: Annotated[int, typer.Option(help="The same seed gives the same loops; -1 draws one.")] = -1,
    beats_per_bar: Annotated[int, typer.Option(help="Beats in a bar.")] = 4,
    top_k: Annotated[int, typer.Option(help="Sample from the k likeliest tokens.")] = 250,
    top_p: Annotated[
        float, typer.Option(help="Above 0: sample from this share of likelihood instead.")
    ] = 0.0,
    temperature: Annotated[float, typer.Option(help="Higher is more diverse; 0 is greedy.")] = 1.0,
    guidance: Annotated[
        float, typer.Option(help="How closely to follow the prompt (classifier-free guidance).")
    ] = 3.0,
    folder: _Out = pathlib.Path("loops"),
    format: _Format = "wav",
    depth: _Depth = "16",
    device: Annotated[str | None, typer.Option(help="cpu or cuda; the GPU where there is one.")] = None,
    pack: Annotated[
        bool, typer.Option("--pack", help="Write a folder with pack.json and a zip of it.")
    ] = False,
    plot: Annotated[
        pathlib.Path | None, typer.Option(help="Also write a picture of the loops and their seams.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Make loops from a text prompt.

    Example: looper make "boom bap, dusty drums" --bpm 93.7 -n 8 --model tiny --seed 7
    """
    from looper.export import write_all
    from looper.pack import write_pack
    from looper.pipeline import LoopMaker
    from looper.request import LoopRequest

    subtype = _subtype(format, depth)
    _check_outputs(folder, plot)
    request = LoopRequest(
        prompt, bpm, variations, max_duration, beats_per_bar, top_k, top_p, temperature, guidance, seed
    )  # fmt: skip
    with progress_bars(as_json) as bars:
        loading = bars.add_task("loading", total=None)
        started = time.perf_counter()
        maker = LoopMaker.load(model, device)
        loaded = time.perf_counter() - started
        bars.remove_task(loading)
        loops = maker.make(request, show_on(bars))
        loops.report.seconds = {"load": loaded, **loops.report.seconds}
        with loops.report.timed("export"):
            how = {"subtype": subtype}
            if pack:
                files = sorted(write_pack(loops, folder, format, **how)["folder"].glob(f"*.{format}"))
            else:
                folder.mkdir(parents=True, exist_ok=True)
                files = write_all(loops, folder, format, **how)
    if plot:
        from looper.plot_loops import plot_loops

        plot_loops(loops, plot)
    tell_made(loops, files, as_json)


@app.command()
def cut(
    file: Annotated[pathlib.Path, typer.Argument(help="Any recording that libsndfile or ffmpeg reads.")],
    bpm: Annotated[
        float, typer.Option(help="The tempo the loop shall have; the music may be some per cent off.")
    ],
    beats_per_bar: Annotated[int, typer.Option(help="Beats in a bar.")] = 4,
    max_duration: Annotated[
        float | None, typer.Option(help="Longest loop in seconds; as long as it goes if not given.")
    ] = None,
    min_start: Annotated[float, typer.Option(help="Look only after this many seconds.")] = 0.0,
    folder: _Out = pathlib.Path(),
    format: _Format = "wav",
    depth: _Depth = "16",
    plot: Annotated[
        pathlib.Path | None, typer.Option(help="Also write a picture of the beats and the cut.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Cut a seamless loop of exactly BPM out of a recording.

    Example: looper cut jam.wav --bpm 120 --plot jam.png
    """
    from looper.beats import fit_grid
    from looper.loops import cut as cut_loop
    from looper.loops import level, loop_beats
    from looper.names import slug
    from looper.pipeline import CONFIDENCE_FLOOR
    from looper.recordings import read

    subtype = _subtype(format, depth)
    _check_outputs(folder, plot)
    if max_duration is not None:
        if not max_duration > 0:
            raise ValueError(f"max_duration must be above 0 seconds, got {max_duration:g}")
        loop_beats(bpm, max_duration, beats_per_bar)
    samples, sample_rate = read(file)
    grid = fit_grid(samples, sample_rate, bpm, beats_per_bar, max_seconds=max_duration, min_start=min_start)
    (loop,) = level([cut_loop(samples, sample_rate, bpm, beats_per_bar, grid=grid)])
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{slug(file.stem) or 'loop'}_{round(bpm, 3):g}bpm_{loop.bars:g}bars.{format}"
    written = loop.save(folder / name, subtype=subtype)
    if plot:
        from looper.plot import plot_grid

        plot_grid(samples, sample_rate, grid, plot)
    if grid.confidence < CONFIDENCE_FLOOR:
        err.print(
            f"note: no clear beat near {bpm:g} BPM was found: the loop is cut on the likeliest grid",
            markup=False,
        )
    tell_cut(loop, grid, written, as_json)


@weights_app.command("get")
def weights_get(name: Annotated[str, typer.Argument(help="medium or large.")]) -> None:
    """Fetch MusicGen's published weights, convert them and check them. They are CC-BY-NC 4.0."""
    from looper.checkpoint import fetch

    with err.status(f"fetching {name}"):
        folder = fetch(name, progress=lambda *what: err.print(*[str(part) for part in what]))
    out.print(str(folder))


@weights_app.command("list")
def weights_list(as_json: _Json = False) -> None:
    """List the models and whether their weights are here."""
    from looper.weights import list_models, read_sources, weights_root

    here = list_models()
    rows = [
        {"name": n, "here": n in here, "folder": str(weights_root() / n)}
        for n in sorted({*here, *read_sources()})
    ]
    if as_json:
        out.print_json(json.dumps(rows))
        return
    table = Table("model", "weights", "folder or command")
    for row in rows:
        name, is_here = str(row["name"]), bool(row["here"])
        table.add_row(
            name,
            "here" if is_here else "missing",
            str(row["folder"]) if is_here else f"looper weights get {name}",
        )
    out.print(table)


@weights_app.command("verify")
def weights_verify(
    names: Annotated[list[str] | None, typer.Argument(help="Models or folders; all if none.")] = None,
) -> None:
    """Check sizes and sha256 of a model's files."""
    from looper.checkpoint import find, verify
    from looper.weights import list_models

    for name in names or list_models():
        verify(find(name))
        out.print(f"{name}: ok")


@weights_app.command("path")
def weights_path(name: Annotated[str, typer.Argument(help="A model's name.")]) -> None:
    """Print the folder of a model."""
    from looper.checkpoint import find

    out.print(str(find(name)))


@app.command()
def serve(
    folder: Annotated[
        pathlib.Path | None, typer.Argument(help="Open this folder of loops; no model server then.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the page; 0 takes a free one.", min=0, max=65535)] = 8393,
    tiny: Annotated[
        bool, typer.Option("--tiny", help="Serve the small demonstration model; needs no GPU.")
    ] = False,
) -> None:
    """Start the Cog server and the player page together, or open a folder of loops in the player."""
    from looper.serve import serve as run

    run(host=host, port=port, folder=folder, tiny=tiny)


def _subtype(format: str, depth: str) -> str | None:
    """Sample format for the file format, None where it has none; or say what does not go together."""
    _one_of("format", format, FILE_FORMATS)
    subtype = SUBTYPES[_one_of("depth", depth, SUBTYPES)]
    if format == "wav" or depth == "16":
        return subtype if format in ("wav", "flac") else None
    if format == "flac" and depth == "24":
        return subtype
    raise ValueError(f"depth {depth} does not go with {format}: use wav, or flac with 16 or 24")


def _check_outputs(folder: pathlib.Path, plot: pathlib.Path | None) -> None:
    """Complain about where the results shall go before the work, not after it."""
    missing = [p for p in (folder.absolute(), *folder.absolute().parents) if not p.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        for made in missing:  # only tried: a failure later on shall leave no empty folder
            made.rmdir()
    except OSError as error:
        raise ValueError(
            f"cannot write to {folder} ({error.strerror}): choose another folder with --out"
        ) from error
    if plot is None:
        return
    if plot.suffix.lower() not in PLOT_SUFFIXES:
        raise ValueError(f"the picture must end in {', '.join(PLOT_SUFFIXES)}, got {str(plot)!r}")
    if plot.is_dir() or not plot.absolute().parent.is_dir():
        raise ValueError(f"cannot write the picture {plot}: its folder must be there")


def _one_of(name: str, value: str, choices: Any) -> str:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r:.80}")
    return value


def main() -> None:
    """Run the command line; errors become one sentence on stderr and exit code 1, wrong usage 2."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        app()
    except (ValueError, RuntimeError, OSError) as error:
        err.print(f"looper: {error}", markup=False, style="red")
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
