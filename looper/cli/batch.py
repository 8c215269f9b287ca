"""`looper batch`: packs by the thousand, from a file of requests."""

from __future__ import annotations

import pathlib
import sys
import time
from collections import Counter
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from looper.cli import options as opt
from looper.cli.output import err, out
from looper.files.formats import AUDIO_FORMATS

if TYPE_CHECKING:
    from collections.abc import Generator

    from rich.progress import TaskID

    from looper.batch.batch import Batch
    from looper.batch.record import Record
    from looper.batch.remote import RemotePacks
    from looper.batch.requests import BatchLine

Requests = Annotated[
    str, typer.Argument(help="CSV or JSON Lines, one request a line; - reads standard input.", metavar="FILE")
]
Out = Annotated[pathlib.Path, typer.Option("--out", help="Folder for the packs and their manifest.")]
InFlight = Annotated[
    int | None, typer.Option(help="Requests at a time for each loaded model.", min=1, max=64)
]
Zips = Annotated[bool, typer.Option("--zips", help="Put a zip of each pack into it.")]
CopyTo = Annotated[
    str | None,
    typer.Option(
        help="Copy packs to a URL (s3://bucket/packs, gs://, sftp://); only the manifest stays in --out."
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(help="Share the work on Ray: local, auto (the cluster of this machine) or an address."),
]
Workers = Annotated[
    int | None, typer.Option(help="Workers on Ray; one a GPU, or one, if not given.", min=1, max=10_000)
]
Verify = Annotated[
    bool, typer.Option("--verify", help="Check the packs against their manifest; of a folder, only that.")
]


Parquet = Annotated[
    pathlib.Path | None,
    typer.Option(help="Write the manifest as a Parquet table too (needs pyarrow); of a folder, only that."),
]


def batch(
    requests: Requests,
    folder: Out = pathlib.Path("packs"),
    model: opt.Model = "medium",
    format: opt.Format = "wav",
    in_flight: InFlight = None,
    zips: Zips = False,
    copy_to: CopyTo = None,
    device: opt.Device = None,
    ray: Ray = None,
    workers: Workers = None,
    verify: Verify = False,
    parquet: Parquet = None,
) -> None:
    """Make a pack of loops for every line of a file; the same command goes on where it was stopped.

    Columns: prompt, bpm, variations, max_duration, bars, beats_per_bar, top_k, top_p, temperature, guidance,
    seed, key, model, format, rate. Example: looper batch requests.csv --out packs --model tiny
    """
    if (verify or parquet) and pathlib.Path(requests).is_dir():
        _look_at(pathlib.Path(requests), verify, parquet)
        return
    if workers is not None and ray is None:
        raise ValueError("--workers goes with --ray: without it there is one process")
    if device is not None and ray is not None:
        raise ValueError("--device does not go with --ray: Ray gives each worker its GPU")
    from looper.batch.batch import Batch
    from looper.batch.driver import IN_FLIGHT, check_models
    from looper.runtime.device import check_device

    opt.one_of("format", format, AUDIO_FORMATS)
    _check_parquet(parquet)
    check_device(device)
    lines = _read(requests, model, format)
    opt.check_outputs(folder, None)
    check_models(lines)
    remote = _remote(copy_to)
    with Batch(lines, folder, remote) as work:
        for note in work.notes:
            err.print(f"note: {note}")
        start = partial(_on_ray, address=ray, workers=workers) if ray else partial(_here, device=device)
        records = start(work, in_flight or IN_FLIGHT, zips)
        _watch(work, records)
        statuses = Counter(work.done.values())
    out.print(f"{folder}: {_summary(statuses)}")
    _look_at(folder, verify, parquet)
    if statuses["failed"] or statuses["lost"]:
        raise typer.Exit(1)


def _read(requests: str, model: str, format: str) -> list[BatchLine]:
    from looper.batch.requests import read_requests, read_text
    from looper.batch.rows import decode

    if requests == "-":
        return read_text(decode(sys.stdin.buffer.read(), "standard input"), model=model, format=format)
    return read_requests(requests, model=model, format=format)


def _remote(url: str | None) -> RemotePacks | None:
    from looper.batch.remote import RemotePacks

    return RemotePacks(url) if url else None


def _here(work: Batch, in_flight: int, zips: bool, *, device: str | None) -> Generator[Record, None, None]:
    from looper.batch.driver import make_packs
    from looper.batch.worker import PackWorker

    return make_packs(work, PackWorker(work.out, zips=zips, device=device, remote=work.remote), in_flight)


def _on_ray(
    work: Batch, in_flight: int, zips: bool, *, address: str, workers: int | None
) -> Generator[Record, None, None]:
    from looper.batch.ray_driver import RayPlan, make_packs_on_ray

    url = work.remote.url if work.remote else None
    return make_packs_on_ray(work, RayPlan(address, workers, in_flight, zips, url))


def _watch(work: Batch, records: Generator[Record, None, None]) -> None:
    """Show records as they come; Ctrl-C says how to go on."""
    before = Counter(work.done.values())
    with _progress() as bars, closing(records):  # the work stops before its bar goes
        failed = before["failed"] + before["lost"]
        total, done = len(work.lines), before.total()
        task = bars.add_task("packs", total=total, completed=done, failed=failed, rate="")
        try:
            _follow(records, bars, task)
        except KeyboardInterrupt:
            err.print("stopping; the same command goes on from here")
            raise


def _follow(records: Generator[Record, None, None], bars: Progress, task: TaskID) -> None:
    started, loops, failed = time.monotonic(), 0, bars.tasks[0].fields["failed"]
    for record in records:
        loops += len(record.bpm_measured)
        if record.status != "ok":
            failed += 1
            err.print(f"line {record.line}: {record.status}: {record.error}")
        rate = loops * 60 / (time.monotonic() - started)
        bars.update(task, advance=1, failed=failed, rate=f"{rate:.0f} loops/min")


def _progress() -> Progress:
    """Packs done, failed, loops a minute, time left."""
    words = ("{task.description}", "{task.completed:.0f}/{task.total:.0f}", "{task.fields[failed]} failed")
    name, done, failed = map(TextColumn, words)
    rate = TextColumn("{task.fields[rate]}")
    left = TimeRemainingColumn()
    return Progress(SpinnerColumn(), name, BarColumn(bar_width=None), done, failed, rate, left, console=err)


def _summary(statuses: Counter[str]) -> str:
    made = f"{statuses['ok']} pack{'s' * (statuses['ok'] != 1)} made"
    bad = [f"{statuses[status]} {status}" for status in ("failed", "lost") if statuses[status]]
    return ", ".join([made, *bad])


def _check_parquet(path: pathlib.Path | None) -> None:
    """Complain before the work of what would come to light after it."""
    if path is None:
        return
    from looper.batch.parquet import need_pyarrow

    need_pyarrow()
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"no folder {path.absolute().parent} for {path.name}")


def _look_at(folder: pathlib.Path, verify: bool, parquet: pathlib.Path | None) -> None:
    if parquet is not None:
        from looper.batch.parquet import export_parquet

        count = export_parquet(folder, parquet)
        out.print(f"{parquet}: {count} records")
    if verify:
        _verify(folder)


def _verify(folder: pathlib.Path) -> None:
    from looper.batch.verification import verify

    wrong = verify(folder)
    for words in wrong:
        err.print(words)
    if wrong:
        raise typer.Exit(1)
    out.print(f"{folder}: all packs are as they were made")
