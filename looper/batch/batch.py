"""A batch in its folder: what is asked for, what is made, what is to do."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from looper.batch.manifest import Manifest, Record
from looper.batch.requests import BatchLine, draw_seeds
from looper.batch.verification import damage
from looper.batch.worker import finished_packs, read_record, relabelled, sweep


class Batch:
    """The requests of a batch and its folder, held while this context lasts.

    Parameters
    ----------
    lines : iterable of BatchLine
        What is asked for; a request that stands there twice is made once.
    out : str or Path
        The folder; made if it is not there.

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

    def __init__(self, lines: Iterable[BatchLine], out: str | Path) -> None:
        self.out = Path(out)
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
        packs = finished_packs(self.out)
        for line in self.lines:
            if line.id in self._manifest.done or line.id not in packs:
                continue
            record = read_record(packs[line.id])
            if record is None or record.id != line.id or damage(record, self.out):
                raise ValueError(
                    f"{packs[line.id]} bears the name of a pack of this batch and is damaged: remove it"
                )
            self.keep(relabelled(record, line))
