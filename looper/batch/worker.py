"""What makes the packs of a batch, in the driver's own process or in a worker of Ray: model in, folders out."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import looper
from looper.batch.manifest import sync_folder
from looper.batch.record import RECORD, Record
from looper.batch.remote import RemoteError, RemotePacks
from looper.batch.requests import ID_LENGTH, BatchLine
from looper.checkpoints.manifest import MANIFEST as MODEL_MANIFEST
from looper.checkpoints.manifest import sha256
from looper.checkpoints.store import find
from looper.export.pack import write_pack
from looper.files.atomic import cannot_write
from looper.runtime.memory import freeze_gc, return_memory, tune_malloc

if TYPE_CHECKING:
    from looper.pipeline.maker import LoopMaker
    from looper.pipeline.result import Loops

Load = Callable[[str, str | None], "LoopMaker"]
"""Makes a `LoopMaker` of a model's name and a device."""

_SCRATCH = re.compile(rf"\.[0-9a-f]{{{ID_LENGTH}}}-")
_PACK = re.compile(rf".+_([0-9a-f]{{{ID_LENGTH}}})")


class Stopped(BaseException):
    """The batch is being stopped; no line is to blame."""


class DeviceLostError(RuntimeError):
    """The GPU computes no more: whatever runs in this process from now on fails."""


def load_model(model: str, device: str | None) -> LoopMaker:
    """Load a model by name or folder; see `LoopMaker.load`."""
    from looper.pipeline.maker import LoopMaker

    return LoopMaker.load(model, device)


class PackWorker:
    """Makes one pack a line, with one model loaded at a time; safe to call from several threads.

    Parameters
    ----------
    out : Path
        The batch's folder.
    zips : bool
        Whether each pack holds a zip of itself.
    device : str, optional
        As `LoopMaker.load`.
    load : callable
        What loads models.
    remote : RemotePacks, optional
        Where finished packs go.
    """

    def __init__(
        self,
        out: Path,
        *,
        zips: bool = False,
        device: str | None = None,
        load: Load = load_model,
        remote: RemotePacks | None = None,
    ) -> None:
        tune_malloc()
        self.out, self.zips, self.device, self.load, self.remote = out, zips, device, load, remote
        self._stopping = False
        self._lock = threading.Lock()
        self._loaded: tuple[str, LoopMaker] | None = None

    def stop(self) -> None:
        """Have all calls of `make` end with `Stopped` at their next step."""
        self._stopping = True

    def make(self, line: BatchLine, tries: int = 1) -> Record:
        """Make the pack of `line`, or say in its record why there is none.

        Raises
        ------
        OSError
            If the folder cannot be written: that is not the line's fault.
        DeviceLostError
            If the GPU is lost.
        looper.checkpoints.sources.WeightsError
            If the model cannot be loaded.
        """
        maker = self._maker(line.model)
        started = time.monotonic()  # the clock on the wall may jump
        about: dict[str, Any] = {"tries": tries, "host": socket.gethostname(), "version": looper.__version__}
        try:
            loops = maker.make(line.request, self._check)
            loops = loops if line.rate is None else loops.at_rate(line.rate)
            return self._pack(loops, line, {**about, "seconds": time.monotonic() - started})
        except RemoteError:
            raise
        except OSError as error:
            raise cannot_write(self.out, _reason(error), error.errno) from error
        except Exception as error:
            _raise_if_lost(error)
            return Record.of(line, "failed", error=str(error) or type(error).__name__, **about)
        finally:
            return_memory()

    def _check(self, *_: object) -> None:
        if self._stopping:
            raise Stopped

    def _maker(self, model: str) -> LoopMaker:
        with self._lock:
            if self._loaded is None or self._loaded[0] != model:
                self._loaded = None  # its memory is what the other needs
                self._loaded = (model, self.load(model, self.device))
                freeze_gc()
            return self._loaded[1]

    def _pack(self, loops: Loops, line: BatchLine, about: dict[str, Any]) -> Record:
        """Write the pack in a folder of its own, then give it its name."""
        scratch = Path(tempfile.mkdtemp(prefix=f".{line.id}-{os.getpid()}-", dir=self.out))
        try:
            written = write_pack(loops, scratch, line.format)
            pack = written["folder"]
            if self.zips:
                written["zip"].rename(pack / written["zip"].name)
            record = _record(loops, line, pack, f"{pack.name}_{line.id}", about)
            _write_record(record, pack)
            record = self._in_place(record, pack)
            if self.remote is not None:
                move_to(self.remote, self.out / str(record.folder))
            return record
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _in_place(self, record: Record, pack: Path) -> Record:
        """Give the pack its name; where another worker was faster, its pack is as good."""
        target = self.out / str(record.folder)
        try:
            pack.rename(target)
        except OSError:
            if (there := read_record(target)) is None:
                raise
            return there
        sync_folder(self.out)
        return record


def move_to(remote: RemotePacks, pack: Path) -> None:
    """Copy a finished pack to its store, and remove it here."""
    remote.put(pack)
    shutil.rmtree(pack)


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)


def _raise_if_lost(error: Exception) -> None:
    """Raise `DeviceLostError` where `error` comes of a GPU that computes no more."""
    if "torch" not in sys.modules:
        return
    from looper.runtime.device import gpu_answers, has_gpu

    if has_gpu() and not gpu_answers():
        raise DeviceLostError(f"the GPU no longer answers ({error}): run the same command again") from error


def _record(loops: Loops, line: BatchLine, pack: Path, name: str, about: dict[str, Any]) -> Record:
    report = loops.report
    return Record.of(
        line,
        "ok",
        model_sha256=_model_sha256(line.model),
        bars=report.bars,
        bpm_measured=[round(bpm, 4) for bpm in report.measured_bpm],
        confidence=[round(sure, 4) for sure in report.confidence],
        folder=name,
        files={file.name: sha256(file) for file in sorted(pack.iterdir())},
        **{**about, "seconds": round(about["seconds"], 3)},
    )


def _model_sha256(model: str) -> str:
    """Sha256 of the list of a model's files, which has theirs."""
    return sha256(find(model) / MODEL_MANIFEST)


def _write_record(record: Record, pack: Path) -> None:
    with (pack / RECORD).open("w", encoding="utf-8") as file:
        file.write(json.dumps(json.loads(record.to_json()), indent=2, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    for written in pack.iterdir():  # what write_pack has not synced: pack.json and the zip
        handle = os.open(written, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
    sync_folder(pack)


def read_record(pack: Path) -> Record | None:
    """The record that a finished pack holds; None where there is no whole one."""
    try:
        return Record.from_json((pack / RECORD).read_bytes())
    except (OSError, ValueError):
        return None


def finished_packs(names: Iterable[str]) -> dict[str, str]:
    """Those of some names of folders that packs bear, by the ids of their requests."""
    return {match[1]: name for name in names if (match := _PACK.fullmatch(name))}


def sweep(out: Path) -> None:
    """Remove what killed workers have left half written."""
    with suppress(OSError):
        for entry in list(os.scandir(out)):
            if _SCRATCH.match(entry.name):
                shutil.rmtree(entry.path, ignore_errors=True)


def relabelled(record: Record, line: BatchLine) -> Record:
    """A pack's own record under the number that its line has now."""
    return replace(record, line=line.number)
