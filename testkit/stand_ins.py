"""Stand-in checkpoints, each made once and kept between runs.

Making one takes seconds, for the vocabulary and the loader's own way through audiocraft; a copy takes none. What is
kept lies in a folder named by a digest of all that has a hand in it, so that a change of it is never missed.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from looper.runtime import paths
from testkit import checkpoints
from testkit.checkpoints import TINY, Shape

KEPT = paths.PROJECT / ".cache" / "stand-ins"
SOURCES = ("testkit/checkpoints.py", "testkit/stand_ins.py", "looper/checkpoints/*.py", "requirements.lock")


def publish(folder: Path, shape: Shape = TINY, **kwargs) -> Path:
    """As `testkit.checkpoints.publish`."""
    return _copied(
        folder, repr(("published", shape, kwargs)), lambda to: checkpoints.publish(to, shape, **kwargs)
    )


def weights(folder: Path, shape: Shape = TINY, **kwargs) -> Path:
    """As `testkit.checkpoints.weights`, without the published files beside it."""
    # a model's name, in its manifest, is its folder's
    name = repr(("weights", folder.name, shape, kwargs))
    return _copied(
        folder, name, lambda to: checkpoints.weights(to / folder.name, shape, **kwargs), folder.name
    )


def _copied(folder: Path, name: str, make: Callable[[Path], object], part: str = ".") -> Path:
    kept = KEPT / _digest() / hashlib.sha256(name.encode()).hexdigest()[:16]
    with _alone():
        if not kept.is_dir():
            kept.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=KEPT) as scratch:
                make(Path(scratch) / "made")
                (Path(scratch) / "made").rename(kept)
    return Path(shutil.copytree(kept / part, folder, dirs_exist_ok=True))


@contextmanager
def _alone() -> Iterator[None]:
    """One process at a time; what other code made is forgotten."""
    KEPT.mkdir(parents=True, exist_ok=True)
    with (KEPT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for other in KEPT.iterdir():
            if other.is_dir() and other.name != _digest():
                shutil.rmtree(other, ignore_errors=True)
        yield


@cache
def _digest() -> str:
    total = hashlib.sha256()
    for pattern in SOURCES:
        for path in sorted(paths.PROJECT.glob(pattern)):
            total.update(path.read_bytes())
    for package in ("audiocraft", "torch", "safetensors", "sentencepiece"):
        with suppress(importlib.metadata.PackageNotFoundError):
            total.update(f"{package} {importlib.metadata.version(package)}".encode())
    return total.hexdigest()[:16]
