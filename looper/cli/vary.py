"""`looper vary`: variations of a recording."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Annotated

import typer

from looper.cli import options as opt
from looper.cli.delivery import Delivery

if TYPE_CHECKING:
    from looper.pipeline.maker import LoopMaker
    from looper.pipeline.result import Loops
    from looper.pipeline.session import Progress

VaryBpm = Annotated[
    float, typer.Option(help="Tempo, 40 to 300: the recording's, within 7.5 %, and the loops' exactly.")
]
VaryDuration = Annotated[
    float | None,
    typer.Option(
        "--max-duration",
        help="Longest loop in seconds, 2 to 20, to cut out of a recording that is none already; 8 if not given.",
    ),
]
IncludeSource = Annotated[
    bool, typer.Option("--include-source", help="Write the recording's own loop too, as variation 00.")
]


def vary(
    file: opt.Recording,
    prompt: opt.Prompt,
    bpm: VaryBpm,
    variations: opt.Variations = 4,
    max_duration: VaryDuration = None,
    bars: opt.Bars = None,
    key: opt.Key = None,
    model: opt.Model = "medium",
    seed: opt.Seed = -1,
    beats_per_bar: opt.BeatsPerBar = 4,
    top_k: opt.TopK = 250,
    top_p: opt.TopP = 0.0,
    temperature: opt.Temperature = 1.0,
    guidance: opt.Guidance = 3.0,
    include_source: IncludeSource = False,
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
    """Make variations of a loop, or of the best loop in a recording: each goes on from its last bar.

    They are as long and as loud as it, and run into it and into each other.
    Example: looper vary my_loop.wav "dusty drums" --bpm 93.7 -n 8
    """
    from looper.checkpoints.store import find
    from looper.request import LoopRequest
    from looper.runtime.device import check_device
    from looper.runtime.packages import need

    style = opt.file_style(format, depth, names, rate)
    opt.check_outputs(folder, plot)
    opt.check_not_recording(plot, file)
    check_device(device)
    request = LoopRequest(
        prompt, bpm, variations, max_duration, beats_per_bar,  # type: ignore[arg-type]
        top_k, top_p, temperature, guidance, seed, bars, key,
    ).with_seed()  # fmt: skip
    need("audiocraft")
    find(model)
    from looper.export.pack import check_room
    from looper.files.read import read
    from looper.pipeline.from_recording import RecordingSession, find_source

    source = find_source(*read(file), request)  # what is wrong with it is said before a model is loaded
    if pack:
        check_room(request, folder, source.loop.beats)

    def work(maker: LoopMaker, progress: Progress) -> Loops:
        return RecordingSession(maker.generator, request, progress, source).run(include_source=include_source)

    Delivery(folder, style, rate, pack, plot, as_json).make(work, model, device)
