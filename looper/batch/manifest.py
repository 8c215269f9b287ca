"""The manifest of a batch: JSON Lines, one line a request, each on the disk before the next is handed out.

    packs/
      manifest.jsonl            one `Record` a line, written by the driver alone
      batch.json                what seeds are drawn from, where packs go, which requests were asked for last
      <pack name>_<id>/         the pack of one request: loops, pack.json and record.json
      .lock                     held by the one driver that may write here

Whatever kills a driver, at most the manifest's last line is torn: it is cut off before more is written.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from looper.batch.record import Record, Status
from looper.batch.requests import BatchLine
from looper.files.atomic import cannot_write, deliver

MANIFEST = "manifest.jsonl"
BATCH = "batch.json"
LOCK = ".lock"


def packs_url(out: str | Path) -> str | None:
    """Where a batch's packs went, if not into its folder."""
    try:
        url = json.loads((Path(out) / BATCH).read_bytes()).get("copy_to")
    except (OSError, ValueError, AttributeError):
        return None
    return url if isinstance(url, str) else None


def read_manifest(out: str | Path) -> list[Record]:
    """Read the records of a batch's folder, also while a driver is writing: a torn last line is passed over.

    Raises
    ------
    FileNotFoundError
        If there is no manifest.
    ValueError
        If a line before the last is damaged; the message names it.
    """
    path = Path(out) / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"no {MANIFEST} in {out}: name a folder that `looper batch` has filled")
    return list(_records(path))


def _records(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):  # its writer was killed, or is about to go on
                return
            try:
                yield Record.from_json(line)
            except ValueError as error:
                raise ValueError(
                    f"{path}, line {number} is damaged ({error}): delete that line, and run the batch again"
                ) from error


class Manifest:
    """The output folder of a batch, held by one driver at a time; a context manager.

    Parameters
    ----------
    out : str or Path
        The folder; made if it is not there.

    Attributes
    ----------
    done : dict
        Status by id, of all requests that have a record.

    Raises
    ------
    RuntimeError
        On entering, if another driver holds the folder.
    OSError
        On entering, if it cannot be written.
    ValueError
        On entering, if the manifest is damaged before its last line.
    """

    def __init__(self, out: str | Path) -> None:
        self.out = Path(out)
        self.done: dict[str, Status] = {}
        self._lock = FileLock(
            self.out / LOCK, thread_local=False
        )  # an iterator may be closed by another thread

    def __enter__(self) -> Manifest:
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise RuntimeError(
                f"another `looper batch` is writing to {self.out}: wait for it, or choose another folder"
            ) from None
        except OSError as error:
            raise cannot_write(self.out, error.strerror or str(error), error.errno) from error
        try:
            self._open()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._lock.release()

    def _open(self) -> None:
        path = self.out / MANIFEST
        self._file = path.open("ab")
        try:
            os.truncate(path, _whole_length(path))
            sync_folder(self.out)
            self.done = {record.id: record.status for record in _records(path)}
        except BaseException:
            self._file.close()
            raise

    def append(self, record: Record) -> None:
        """Write a record and wait until the disk has it; where that fails, nothing of it stays.

        Raises
        ------
        ValueError
            If its request has a record already.
        OSError
            If it cannot be written.
        """
        if record.id in self.done:
            raise ValueError(f"request {record.id} has a record already")
        whole = os.fstat(self._file.fileno()).st_size
        try:
            _write(self._file.fileno(), record.to_json().encode("utf-8", "backslashreplace") + b"\n")
        except OSError as error:
            os.ftruncate(self._file.fileno(), whole)
            raise cannot_write(self.out, error.strerror or str(error), error.errno) from error
        self.done[record.id] = record.status

    def seed_secret(self) -> str:
        """What this folder's seeds are drawn from: made once, the same at every start."""
        facts = self._facts()
        if not isinstance(facts.get("seeds"), str):
            facts["seeds"] = secrets.token_hex(16)
            self._keep(facts)
        return str(facts["seeds"])

    def settle(self, name: str, value: str | None) -> str | None:
        """What the batch was begun with under `name`: `value`, if it begins now."""
        facts = self._facts()
        if name not in facts:
            facts[name] = None if self.done else value  # a batch from before there was a choice
            self._keep(facts)
        found: str | None = facts[name]
        return found

    def changes(self, lines: Iterable[BatchLine]) -> str | None:
        """How `lines` differ from those of the last start, as a sentence; None if they do not, or at the first."""
        ids = {line.id for line in lines}
        facts, digest = self._facts(), _digest_of(ids)
        before = facts.get("requests")
        if before == digest:
            return None
        self._keep({**facts, "requests": digest})
        if before is None:
            return None
        gone, new = len(self.done.keys() - ids), len(ids - self.done.keys())
        return (
            f"the requests have changed since the last start: {new} to make, and {gone} that are made "
            "are not asked for any more; their packs stay"
        )

    def _facts(self) -> dict[str, Any]:
        path = self.out / BATCH
        if not path.is_file():
            return {}
        try:
            facts = json.loads(path.read_bytes())
            return {**facts}
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{path} is damaged ({error}), and with it the seeds that were drawn: get it back, or start in "
                "another folder"
            ) from error

    def _keep(self, facts: dict[str, Any]) -> None:
        deliver({self.out / BATCH: (json.dumps(facts) + "\n").encode()})
        sync_folder(self.out)


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names in `folder`."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write(handle: int, data: bytes) -> None:
    while data:
        data = data[os.write(handle, data) :]
    os.fsync(handle)


def _whole_length(path: Path) -> int:
    """Bytes up to the end of the last whole line."""
    size = path.stat().st_size
    with path.open("rb") as file:
        while size:
            start = max(0, size - 65536)
            file.seek(start)
            at = file.read(size - start).rfind(b"\n")
            if at >= 0:
                return start + at + 1
            size = start
    return 0


def _digest_of(ids: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()
