"""Output files, and when they go."""

from __future__ import annotations

import fcntl
import os
import pathlib
import re
import secrets
import shutil
import tempfile

_SCRATCH = "musicgen-looper-"
_OURS = re.compile(re.escape(_SCRATCH) + r"\d+(-[0-9a-f]{8})?")


class Scratch:
    """One folder of output files a prediction, removed when the next one starts: nobody else deletes them.

    A living process holds a lock on its folder, which the system lets go when the process ends. Process numbers
    would not do: containers that share a temp folder have numbers of their own.
    """

    def __init__(self, root: pathlib.Path | None = None) -> None:
        self.parent = pathlib.Path(root or tempfile.gettempdir())
        self.root = self.parent / f"{_SCRATCH}{os.getpid()}-{secrets.token_hex(4)}"
        self._lock: int | None = None

    def sweep(self) -> None:
        """Remove this process's files, and those of processes that are gone."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        for folder in self.parent.glob(_SCRATCH + "*"):
            if _OURS.fullmatch(folder.name) and (lock := _locked(folder)) is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)

    def fresh(self) -> pathlib.Path:
        """Return an empty folder, the last prediction's being gone."""
        self.sweep()
        new = self.root.with_name(
            f".{self.root.name}"
        )  # others sweep it only under its name, and then it is held
        new.mkdir(parents=True, mode=0o700, exist_ok=True)
        self._lock = _locked(new)
        new.rename(self.root)
        return self.root


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
