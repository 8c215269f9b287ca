"""A batch in its folder: what is asked for, what is made, what is to do."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from looper.batch.manifest import MANIFEST, Manifest
from looper.batch.record import Record
from looper.batch.remote import RemotePacks
from looper.batch.requests import BatchLine, draw_seeds
from looper.batch.verification import LocalPacks, damage
from looper.batch.worker import finished_packs, move_to, read_record, relabelled, sweep


class Batch:
    """The requests of a batch and its folder, held while this context lasts.

    Parameters
    ----------
    lines : iterable of BatchLine
        What is asked for; a request that stands there twice is made once.
    out : str or Path
        The folder; made if it is not there.
    remote : RemotePacks, optional
        Where finished packs go.

    Attributes
    ----------
    lines : list of BatchLine
        Every request once, the seeds drawn.
    todo : list of BatchLine
        Those without a record at the start, a model's lines one after another.
    notes : list of str
        What the user should know before the work.

    Raises
    ------
    RuntimeError, OSError, ValueError
        On entering; see `Manifest`.
    """

    def __init__(
        self, lines: Iterable[BatchLine], out: str | Path, remote: RemotePacks | None = None
    ) -> None:
        self.out, self.remote = Path(out), remote
        self.lines = list(lines)
        self.todo: list[BatchLine] = []
        self.notes: list[str] = []
        self._manifest = Manifest(out)

    def __enter__(self) -> Batch:
        self._manifest.__enter__()
        try:
            self._plan()
        except BaseException as error:
            self._manifest.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sweep(self.out)
        self._manifest.__exit__(kind, error, trace)
        if self.remote is not None and kind is None:
            self.remote.put_file(self.out / MANIFEST)

    @property
    def done(self) -> dict[str, str]:
        """Status by id of the requests asked for that have a record."""
        done = self._manifest.done
        return {line.id: done[line.id] for line in self.lines if line.id in done}

    def keep(self, record: Record) -> None:
        """Write a record to the manifest; see `Manifest.append`."""
        self._manifest.append(record)

    def _plan(self) -> None:
        sweep(self.out)
        self._settle_where_packs_go()
        self._draw()
        if changes := self._manifest.changes(self.lines):
            self.notes.append(changes)
        self._recover()
        left = [line for line in self.lines if line.id not in self._manifest.done]
        models = {line.model: place for place, line in reversed(list(enumerate(left)))}
        self.todo = sorted(left, key=lambda line: models[line.model])

    def _draw(self) -> None:
        """Draw seeds, and drop what is asked for twice."""
        unique: dict[str, BatchLine] = {}
        for line in draw_seeds(self.lines, self._manifest.seed_secret()):
            first = unique.setdefault(line.id, line)
            if first is not line:
                self.notes.append(
                    f"line {line.number} asks for the same as line {first.number}: it is made once"
                )
        self.lines = list(unique.values())

    def _recover(self) -> None:
        """Record packs that were finished when their driver was killed before it could say so."""
        missing = {line.id: line for line in self.lines if line.id not in self._manifest.done}
        for id, name in finished_packs(path.name for path in self.out.iterdir() if path.is_dir()).items():
            if (line := missing.pop(id, None)) is None:
                continue
            record, pack = read_record(self.out / name), self.out / name
            if record is None or record.id != id or damage(record, LocalPacks(self.out)):
                raise ValueError(f"{pack} bears the name of a pack of this batch and is damaged: remove it")
            if self.remote is not None:
                move_to(self.remote, pack)
            self.keep(relabelled(record, line))
        if self.remote is not None:
            self._recover_remote(self.remote, missing)

    def _recover_remote(self, remote: RemotePacks, missing: dict[str, BatchLine]) -> None:
        """Record packs that had reached the store; a half copied one is made again."""
        for id, name in finished_packs(remote.folders() if missing else ()).items():
            record = remote.record(name) if id in missing else None
            if record is not None and record.id == id and not damage(record, remote):
                self.keep(relabelled(record, missing[id]))

    def _settle_where_packs_go(self) -> None:
        """A batch that has begun in one place does not go on in another."""
        url = self.remote.url if self.remote else None
        if self.remote is not None:  # first: a place that cannot be is not where the batch began
            self.remote.check()
        if (before := self._manifest.settle("copy_to", url)) != url:
            raise ValueError(
                f"{self.out} was begun with its packs going to {before or 'this folder'}: "
                "go on like that, or choose another folder"
            )
        if self.remote is not None:
            self.remote.claim(hashlib.sha256(self._manifest.seed_secret().encode()).hexdigest()[:16])
