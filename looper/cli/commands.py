"""The commands: make loops, cut loops, keep weights, serve."""

from __future__ import annotations

import json
import pathlib
from typing import Annotated

import typer
from rich.table import Column, Table

from looper.cli import options as opt
from looper.cli.batch import batch
from looper.cli.cut import analyse, cut
from looper.cli.delivery import Delivery
from looper.cli.output import err, out
from looper.cli.vary import vary

app = typer.Typer(
    help="Text prompt and tempo in, seamless bar-aligned music loops out, at exactly the asked BPM.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
weights_app = typer.Typer(help="Fetch, list and check model weights.", no_args_is_help=True)
app.add_typer(weights_app, name="weights")
app.command()(batch)
app.command()(vary)
app.command()(cut)
app.command()(analyse)


def _say_version(wanted: bool) -> None:
    if wanted:
        import looper

        out.print(f"musicgen-looper {looper.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_say_version)
    ] = False,
) -> None:
    """Text prompt and tempo in, seamless bar-aligned music loops out, at exactly the asked BPM."""


@app.command()
def make(
    prompt: opt.Prompt,
    bpm: opt.Bpm = 140,
    variations: opt.Variations = 4,
    max_duration: opt.MaxDuration = None,
    bars: opt.Bars = None,
    key: opt.Key = None,
    melody: opt.MelodyFile = None,
    model: opt.Model = "medium",
    seed: opt.Seed = -1,
    beats_per_bar: opt.BeatsPerBar = 4,
    top_k: opt.TopK = 250,
    top_p: opt.TopP = 0.0,
    temperature: opt.Temperature = 1.0,
    guidance: opt.Guidance = 3.0,
    folder: opt.Folder = pathlib.Path("loops"),
    format: opt.Format = "wav",
    depth: opt.Depth = None,
    rate: opt.Rate = None,
    names: opt.Names = "plain",
    device: opt.Device = None,
    pack: opt.Pack = False,
    plot: opt.LoopsPlot = None,
    as_json: opt.Json = False,
) -> None:
    """Make loops from a text prompt.

    Example: looper make "boom bap, dusty drums" --bpm 93.7 -n 8 --model tiny --seed 7
    """
    from looper.checkpoints.store import find
    from looper.request import LoopRequest
    from looper.runtime.device import check_device
    from looper.runtime.packages import need

    style = opt.file_style(format, depth, names, rate)
    opt.check_outputs(folder, plot)
    check_device(device)
    request = LoopRequest(
        prompt, bpm, variations, max_duration, beats_per_bar,  # type: ignore[arg-type]
        top_k, top_p, temperature, guidance, seed, bars, key,
    )  # fmt: skip
    need("audiocraft")
    weights = find(model)  # what takes seconds to import comes after all that can be refused without it
    opt.check_not_recording(plot, melody)
    tune = None if melody is None else opt.read_melody(melody, weights)
    if pack:
        from looper.export.pack import check_room

        check_room(request, folder)
    work = lambda maker, progress: maker.make(request, progress, melody=tune)
    Delivery(folder, style, rate, pack, plot, as_json).make(work, model, device)


@app.command()
def unpack(reply: opt.Reply, folder: opt.Folder = pathlib.Path("loops"), as_json: opt.Json = False) -> None:
    """Write the loops of a server's JSON reply to files.

    Example: curl -s localhost:5000/predictions -d '{"input": {"prompt": "funk"}}' | looper unpack -
    """
    from looper.export.unpack import unpack as write_files

    text = opt.read_reply_file(reply)
    opt.check_outputs(folder, None)
    files = [str(file) for file in write_files(text, folder)]
    if as_json:
        out.print_json(json.dumps({"files": files}))
        return
    for file in files:
        out.print(file)


@weights_app.command("get")
def weights_get(
    model: Annotated[
        str, typer.Argument(help="A published model (`weights list`), a folder, or owner/name on the hub.")
    ],
    name: Annotated[str | None, typer.Option(help="What to call a model of your own.")] = None,
    t5: Annotated[
        pathlib.Path | None,
        typer.Option(help="Text encoder of an audiocraft export: a model's or a T5 folder."),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Commit of the repository.")] = None,
) -> None:
    """Fetch MusicGen's published weights (CC-BY-NC 4.0), or convert a model of your own, and check them.

    A fine-tune in audiocraft's export format or in Hugging Face's: looper weights get ./my-finetune --name mine
    """
    from looper.checkpoints.fetch import fetch
    from looper.checkpoints.own_models import add_model
    from looper.checkpoints.sources import fetchable

    say = lambda *what: err.print(*[str(part) for part in what])
    if model in fetchable() and not pathlib.Path(model).is_dir():
        if name or t5:
            raise ValueError(f"--name and --t5 do not go with {model}, which has a name and a text encoder")
        with err.status(f"fetching {model}"):
            folder = fetch(model, revision=revision, progress=say)
    else:
        with err.status(f"getting {model}"):
            folder = add_model(model, name, t5=t5, revision=revision, progress=say)
    out.print(str(folder))


@weights_app.command("list")
def weights_list(as_json: opt.Json = False) -> None:
    """List the models and whether their weights are here."""
    from looper.checkpoints.sources import fetchable, weights_root
    from looper.checkpoints.store import find, list_models

    here = list_models()
    rows = [
        {"name": n, "here": n in here, "folder": str(find(n) if n in here else weights_root() / n)}
        for n in sorted({*here, *fetchable()})
    ]
    if as_json:
        out.print_json(json.dumps(rows))
        return
    table = Table("model", "weights", Column("folder or command", overflow="fold"))
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
    from looper.checkpoints.manifest import verify
    from looper.checkpoints.sources import WeightsError, weights_root
    from looper.checkpoints.store import find, list_models

    if not (names := names or list_models()):
        raise WeightsError(
            f"no models in {weights_root()}: run `looper weights get medium`, or set LOOPER_WEIGHTS to their folder"
        )
    for name in names:
        verify(find(name))
        out.print(f"{name}: ok")


@weights_app.command("path")
def weights_path(name: Annotated[str, typer.Argument(help="A model's name.")]) -> None:
    """Print the folder of a model."""
    from looper.checkpoints.store import find

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
    at_once: Annotated[
        int,
        typer.Option(
            envvar="COG_MAX_CONCURRENCY",
            help="Requests that are made at once; the page's others wait in line.",
            min=1,
            max=64,
        ),
    ] = 1,
) -> None:
    """Start the Cog server and the player page together, or open a folder of loops in the player."""
    from looper.runtime.packages import need

    need("starlette", "uvicorn", *(["cog", "audiocraft"] if folder is None else []))
    from looper.web.server import serve as run

    models = None
    if folder is None:
        from looper.cli.served import served_models

        models = served_models(tiny)
    run(host=host, port=port, folder=folder, tiny=tiny, at_once=at_once, models=models)
