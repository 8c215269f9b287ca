"""Output files, and when they go."""

from __future__ import annotations

import os
import pathlib
import shutil
import tempfile

_SCRATCH = "musicgen-looper-"


class Scratch:
    """One folder of output files a prediction, removed when the next one starts: nobody else deletes them."""

    def __init__(self, root: pathlib.Path | None = None) -> None:
        self.parent = pathlib.Path(root or tempfile.gettempdir())
        self.root = self.parent / f"{_SCRATCH}{os.getpid()}"

    def sweep(self) -> None:
        """Remove this process's files, and those of processes that are gone."""
        for folder in self.parent.glob(_SCRATCH + "*"):
            pid = folder.name.removeprefix(_SCRATCH)
            if pid.isdigit() and (int(pid) == os.getpid() or not _alive(int(pid))):
                shutil.rmtree(folder, ignore_errors=True)

    def fresh(self) -> pathlib.Path:
        """Return an empty folder, the last prediction's being gone."""
        self.sweep()
        self.root.mkdir(parents=True, mode=0o700)
        return self.root


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
