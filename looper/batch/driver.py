"""The driver of one process: every line through one loaded model, several at a time."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import groupby
from pathlib import Path
from typing import Any

from looper.batch.batch import Batch
from looper.batch.record import Record
from looper.batch.remote import RemotePacks
from looper.batch.requests import FORMAT, MODEL, BatchLine, read_requests
from looper.batch.worker import Load, PackWorker, load_model
from looper.checkpoints.store import find
from looper.request import LoopRequest

IN_FLIGHT = 4  # requests at a time: their rows share the steps, and one's beats are found while others play


def run(
    requests: str | Path | Iterable[Mapping[str, Any] | LoopRequest],
    out: str | Path,
    *,
    model: str = MODEL,
    format: str = FORMAT,
    in_flight: int = IN_FLIGHT,
    zips: bool = False,
    copy_to: str | None = None,
    device: str | None = None,
    load: Load = load_model,
) -> Generator[Record, None, None]:
    """Make a pack of every request; what is made already is passed over.

    Everything is checked now; the folder is held and the model loaded when the first record is asked for.

    Parameters
    ----------
    requests : path or iterable
        As `looper.batch.requests.read_requests`.
    out : str or Path
        Folder of the packs and their manifest.
    model, format : str
        For requests that name none.
    in_flight : int
        Requests at a time.
    zips : bool
        Put a zip of each pack into it.
    copy_to : str, optional
        A URL that fsspec can write to, s3://bucket/packs say: packs go there, and only the manifest stays in `out`.
    device : str, optional
        As `LoopMaker.load`.
    load : callable
        What makes a `LoopMaker` of (model, device).

    Returns
    -------
    generator of Record
        As packs are finished; each is in the manifest by then. Closing it stops the work.

    Raises
    ------
    looper.batch.requests.BadLinesError
        Naming all requests that cannot be made.
    looper.checkpoints.sources.WeightsError
        If a model is not there.
    RuntimeError, OSError, ValueError
        While iterating: if another driver holds the folder, or it cannot be written. What is made is kept, and
        the same call goes on.
    """
    lines = read_requests(requests, model=model, format=format)
    check_models(lines)
    remote = RemotePacks(copy_to) if copy_to else None
    worker = PackWorker(Path(out), zips=zips, device=device, load=load, remote=remote)
    return _run(lines, Path(out), in_flight, worker)


def check_models(lines: Iterable[BatchLine]) -> None:
    """Raise `WeightsError` for a model that is not there."""
    for model in {line.model: None for line in lines}:
        find(model)


def _run(
    lines: list[BatchLine], out: Path, in_flight: int, worker: PackWorker
) -> Generator[Record, None, None]:
    with Batch(lines, out, worker.remote) as batch:
        yield from make_packs(batch, worker, in_flight)


def make_packs(batch: Batch, worker: PackWorker, in_flight: int = IN_FLIGHT) -> Generator[Record, None, None]:
    """Make what a batch has to do, a model's lines before the next one's; each record is in the manifest first."""
    for _, lines in groupby(batch.todo, key=lambda line: line.model):
        for record in _as_completed(lines, worker, in_flight):
            batch.keep(record)
            yield record


def _as_completed(
    lines: Iterable[BatchLine], worker: PackWorker, in_flight: int
) -> Generator[Record, None, None]:
    """Records as they come, `in_flight` lines being made at a time."""
    waiting = iter(lines)
    running: set[Future[Record]] = set()
    with ThreadPoolExecutor(in_flight, thread_name_prefix="batch") as pool:
        try:
            while True:
                while len(running) < in_flight and (line := next(waiting, None)):
                    running.add(pool.submit(worker.make, line))
                if not running:
                    return
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield future.result()
        except BaseException:  # Ctrl-C, a full disk, or nobody asks for more
            worker.stop()
            raise
