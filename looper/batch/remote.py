"""A batch's packs in an object store or on a server: anywhere that fsspec can write.

The batch's own folder stays the place of its manifest, its lock and its seeds; a pack is made there, copied to
the store and then removed. `record.json` is copied last: where it is, the pack is whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from looper.batch.record import RECORD, Record

CHUNK_BYTES = 1 << 20
OWNER = "batch.id"  # whose packs these are


class RemoteError(OSError):
    """The store cannot be written to, or read; the message says which, and why."""


class RemotePacks:
    """The packs below a URL.

    Parameters
    ----------
    url : str
        As fsspec has it: `s3://bucket/packs`, `gs://bucket/packs`, `sftp://host/packs`, `file:///mnt/packs`;
        credentials come from where the store's own tools look for them.

    Raises
    ------
    ValueError
        If nothing here speaks its protocol; the message says what to install.

    Examples
    --------
    >>> RemotePacks("memory://packs").folders()
    set()
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        try:
            self._fs, self._root = fsspec.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise ValueError(f"cannot copy packs to {url}: {error}") from error

    def __reduce__(self) -> tuple[Any, ...]:  # workers connect by themselves
        return RemotePacks, (self.url,)

    def check(self) -> None:
        """Write and remove a file, before any work is done.

        Raises
        ------
        RemoteError
            If that cannot be done.
        """
        probe = f"{self._root}/.looper-batch"
        with self._explained():
            self._fs.makedirs(self._root, exist_ok=True)
            self._fs.pipe_file(probe, b"")
            self._fs.rm_file(probe)

    def claim(self, owner: str) -> None:
        """Mark the place as one batch's.

        Raises
        ------
        ValueError
            If it is another's.
        RemoteError
            If it cannot be marked.
        """
        mark = f"{self._root}/{OWNER}"
        with self._explained():
            found = self._fs.cat_file(mark).decode() if self._fs.exists(mark) else None
            if found is None:
                self._fs.pipe_file(mark, owner.encode())
        if found not in (None, owner):
            raise ValueError(
                f"{self.url} has the packs of another batch: name another place, or go on in that batch's own folder"
            )

    def put(self, pack: Path) -> None:
        """Copy a pack; one that is there by this name is replaced.

        Raises
        ------
        RemoteError
            If it cannot be copied.
        """
        target = f"{self._root}/{pack.name}"
        files = sorted(pack.iterdir(), key=lambda file: (file.name == RECORD, file.name))
        before = self.files(pack.name)
        with self._explained():
            if RECORD in before:  # it is not whole while files are exchanged
                self._fs.rm_file(f"{target}/{RECORD}")
            for name in before - {RECORD, *(file.name for file in files)}:
                self._fs.rm_file(f"{target}/{name}")
            self._fs.makedirs(target, exist_ok=True)
            for file in files:
                self._fs.put_file(str(file), f"{target}/{file.name}")

    def put_file(self, file: Path) -> None:
        """Copy a file, the manifest say, beside the packs.

        Raises
        ------
        RemoteError
            If it cannot be copied.
        """
        with self._explained():
            self._fs.put_file(str(file), f"{self._root}/{file.name}")

    def folders(self) -> set[str]:
        """Names of all that stands below the URL."""
        return self._names(self._root)

    def files(self, folder: str) -> set[str]:
        """Names of the files of a pack; none where there is no pack."""
        return self._names(f"{self._root}/{folder}")

    def sha256(self, folder: str, name: str) -> str:
        """Of a file that is there."""
        digest = hashlib.sha256()
        with self._explained(), self._fs.open(f"{self._root}/{folder}/{name}", "rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
        return digest.hexdigest()

    def record(self, folder: str) -> Record | None:
        """The record of a whole pack; None where there is none."""
        try:
            return Record.from_json(self._fs.cat_file(f"{self._root}/{folder}/{RECORD}"))
        except (OSError, ValueError):
            return None

    def _names(self, place: str) -> set[str]:
        with self._explained():
            try:
                self._fs.invalidate_cache()
                return {PurePosixPath(name).name for name in self._fs.ls(place, detail=False)}
            except FileNotFoundError:
                return set()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Whatever a store's own library raises, as an error that names the URL."""
        try:
            yield
        except Exception as error:
            raise RemoteError(f"cannot use {self.url}: {error or type(error).__name__}") from error
