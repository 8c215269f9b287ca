"""Output files, and when they go."""

from __future__ import annotations

import fcntl
import os
import pathlib
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_SCRATCH = "musicgen-looper-"
_OURS = re.compile(re.escape(_SCRATCH) + r"\d+(-[0-9a-f]{8})?")

KEPT_SECONDS = (
    60.0  # Cog reads files after the prediction; measured were 6.5 s, with four replies of 30 MB at once
)
MOST_BYTES = 1 << 30  # of finished predictions; beyond that they stay for less long
LEAST_SECONDS = 15.0


class Scratch:
    """A folder of output files for each prediction; nobody else deletes them.

    A prediction's files go some time after it has ended, when another one begins or ends: its reply may be in the
    making long after the next prediction has begun.

    A living process holds a lock on its folder, which the system lets go when the process ends. Process numbers
    would not do: containers that share a temp folder have numbers of their own.

    Parameters
    ----------
    root : Path, optional
        Where the process's folder is made; the temp folder by default.
    kept_seconds : float
        How long files stay.
    most_bytes : int
        Of finished predictions' files: beyond that the oldest go after `least_seconds`.
    """

    def __init__(
        self,
        root: pathlib.Path | None = None,
        kept_seconds: float = KEPT_SECONDS,
        most_bytes: int = MOST_BYTES,
        least_seconds: float = LEAST_SECONDS,
    ) -> None:
        self.parent = pathlib.Path(root or tempfile.gettempdir())
        self.root = self.parent / f"{_SCRATCH}{os.getpid()}-{secrets.token_hex(4)}"
        self.kept_seconds, self.most_bytes, self.least_seconds = kept_seconds, most_bytes, least_seconds
        self._handle: int | None = None
        self._changing = threading.Lock()
        self._ended: dict[pathlib.Path, float] = {}  # monotonic seconds, the earliest first
        self._count = 0

    def sweep(self) -> None:
        """Remove this process's files, and those of processes that are gone."""
        with self._changing:
            self._let_go()
            self._ended.clear()
            for folder in self.parent.glob(_SCRATCH + "*"):
                if _OURS.fullmatch(folder.name) and (handle := _locked(folder)) is not None:
                    shutil.rmtree(folder, ignore_errors=True)
                    os.close(handle)

    @contextmanager
    def folder(self) -> Iterator[pathlib.Path]:
        """An empty folder for one prediction, kept for a while after the block; where that raises, it goes at once."""
        with self._changing:
            self._remove_old()
            folder = self._new()
        try:
            yield folder
        except BaseException:
            self.discard(folder)
            raise
        with self._changing:
            self._ended[folder] = time.monotonic()
            self._remove_old()

    def discard(self, folder: pathlib.Path) -> None:
        """Remove a prediction's folder at once."""
        with self._changing:
            self._ended.pop(folder, None)
            shutil.rmtree(folder, ignore_errors=True)
            self._remove_if_empty()

    def _new(self) -> pathlib.Path:
        if self._handle is None or not self.root.is_dir():  # somebody may have emptied the temp folder
            self._let_go()
            self._make_root()
        self._count += 1
        folder = self.root / str(self._count)
        folder.mkdir()
        return folder

    def _make_root(self) -> None:
        new = self.root.with_name(
            f".{self.root.name}"
        )  # others sweep it only under its name, and then it is held
        new.mkdir(parents=True, mode=0o700, exist_ok=True)
        self._handle = _locked(new)
        new.rename(self.root)

    def _remove_old(self) -> None:
        """Remove what has been kept long enough, and where there is too much, what can have been read."""
        now, rest = time.monotonic(), sum(map(_size, self._ended))
        for folder, ended in list(self._ended.items()):
            size, age = _size(folder), now - ended
            if age >= self.kept_seconds or (rest > self.most_bytes and age >= self.least_seconds):
                shutil.rmtree(folder, ignore_errors=True)
                del self._ended[folder]
                rest -= size

    def _remove_if_empty(self) -> None:
        with suppress(OSError):  # there are others' files
            self.root.rmdir()
            self._let_go()

    def _let_go(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def _size(folder: pathlib.Path) -> int:
    """Bytes of the files in a folder; 0 where it is gone."""
    with suppress(OSError):
        return sum(file.stat().st_size for file in folder.iterdir())
    return 0


def _locked(folder: pathlib.Path) -> int | None:
    """A handle that holds `folder`, None where a living process has it, or it is no folder of ours."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle
