"""A model folder's manifest: every file with its size and sha256, and the check of both.

Nothing here imports torch: looking at weights must stay quick.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from looper.checkpoints.sources import WeightsError, remedy

MANIFEST = "manifest.json"
LONGEST_NAME = 255  # bytes, as file systems have it
REQUIRED = ("lm.safetensors", "codec.safetensors", "config.yaml")
WEIGHTS_SUFFIX = (
    ".safetensors"  # a format that can be read before it is trusted: a table of names, and numbers
)
TEXT = "t5"  # the text encoder's folder
TEXT_REQUIRED = (f"{TEXT}/model.safetensors", f"{TEXT}/config.json")

_BLOCK = 1 << 20


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Read ``manifest.json``.

    Raises
    ------
    WeightsError
        If it is missing or not a manifest.
    """
    path = Path(folder) / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
        for name, entry in manifest["files"].items():
            _check_entry(name, entry)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}; {remedy(folder)}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{path} is not a manifest ({error}); {remedy(folder)}") from error
    return manifest


def _check_entry(name: str, entry: object) -> None:
    """Raise ValueError for what no file can have."""
    if not name or not name.isprintable() or len(os.fsencode(name)) > LONGEST_NAME:
        raise ValueError(f"{name!r:.80} is no file's name")
    if not isinstance(entry, dict) or not {"sha256", "size"} <= set(entry):
        raise ValueError(f"{name!r:.80} lacks sha256 or size")


def verify(folder: str | os.PathLike[str]) -> None:
    """Check every file of a model folder against its manifest: first the sizes, then the sha256.

    Raises
    ------
    WeightsError
        Naming the first file that is missing, not listed, or of another size or content.
    """
    with verifying(folder):
        pass


@contextmanager
def verifying(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Check a model folder as `verify` does, the weights' sha256 while the block runs.

    All but the weights is checked before the block begins, and everything before it ends: what was loaded in
    it may be used only after it. A file that is not the manifest's is what is told, whatever else
    went wrong in the block because of it; and what was written to, replaced or moved meanwhile is told
    too: the block may have read something else than was checked.
    """
    folder = Path(folder)
    before = _stamps(folder, ())
    files = read_manifest(folder)["files"]
    _check_list(folder, files)
    _check_sizes(folder, files)
    before |= _stamps(folder, files)
    large = [name for name in files if name.endswith(WEIGHTS_SUFFIX)]
    for name in files:
        if name not in large:
            _check_content(folder, name, sha256(folder / name), files)
    stop = threading.Event()
    pool = ThreadPoolExecutor(max_workers=len(large) or 1, thread_name_prefix="sha256")
    sums = {name: pool.submit(sha256, folder / name, stop) for name in large}
    try:
        try:
            yield
        except Exception:
            _check_contents(folder, sums, files)
            _check_unchanged(before)
            raise
        _check_contents(folder, sums, files)
        _check_unchanged(before)
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _check_sizes(folder: Path, files: dict[str, Any]) -> None:
    for name, entry in files.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise WeightsError(f"{folder / MANIFEST} lists {name}, which lies outside the folder")
        if not path.is_file():
            raise WeightsError(f"{path} is missing; {remedy(folder)}")
        if path.stat().st_size != entry["size"]:
            raise WeightsError(
                f"{path} has {path.stat().st_size} bytes, not {entry['size']!r:.40}; {remedy(folder)}"
            )


_Stamp = tuple[int, int, int, int, int] | None  # None: it is not there


def _stamps(folder: Path, names: Iterable[str]) -> dict[Path, _Stamp]:
    """What becomes another when a file of `names`, the manifest or a folder around them is written to or moved."""
    files = [folder / name for name in (MANIFEST, *names)]
    around = {place for file in files for place in file.parents if place.is_relative_to(folder)}
    return {place: _stamp(place) for place in (*files, *around)}


def _stamp(path: Path) -> _Stamp:
    try:
        found = path.stat()
    except OSError:
        return None
    # no program sets ctime: it tells of a file that was exchanged and put back with its old times, too
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _check_unchanged(before: dict[Path, _Stamp]) -> None:
    for path, stamp in before.items():
        if _stamp(path) != stamp:
            raise WeightsError(f"{path} changed while it was loaded: load it again when nothing writes there")


def _check_contents(folder: Path, sums: dict[str, Future[str]], files: dict[str, Any]) -> None:
    for name, found in sums.items():
        _check_content(folder, name, found.result(), files)


def _check_content(folder: Path, name: str, found: str, files: dict[str, Any]) -> None:
    if found != files[name]["sha256"]:
        raise WeightsError(f"{folder / name} is corrupt: its sha256 is not the manifest's; {remedy(folder)}")


def _check_list(folder: Path, files: dict[str, Any]) -> None:
    """Raise for a needed file that is not listed, and for one that is not and would be read all the same."""
    text = [
        path.relative_to(folder).as_posix()
        for path in sorted((folder / TEXT).rglob("*"))
        if not path.is_dir() and not path.name.startswith(".")
    ]
    has_text = bool(text) or any(Path(name).parts[:1] == (TEXT,) for name in files)
    for required in REQUIRED + TEXT_REQUIRED * has_text:
        if required not in files:
            raise WeightsError(f"{folder / MANIFEST} does not list {required}; {remedy(folder)}")
    for name in text:
        if name not in files:
            raise WeightsError(
                f"{folder / MANIFEST} does not list {name!r:.300}, which lies there: remove that file"
            )


def sha256(path: Path, stop: threading.Event | None = None) -> str:
    """Hex sha256 of a file; "" where `stop` was set meanwhile."""
    digest, block = hashlib.sha256(), memoryview(bytearray(_BLOCK))
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(block):
            digest.update(block[:size])
            if stop and stop.is_set():
                return ""
    return digest.hexdigest()


def write_manifest(folder: Path, model: str, **about: Any) -> None:
    """List every file of `folder` with size and sha256 in its ``manifest.json``."""
    files = {
        str(path.relative_to(folder)): {"sha256": sha256(path), "size": path.stat().st_size}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (MANIFEST, "README.md")
    }
    text = json.dumps({"model": model, **about, "files": files}, indent=2) + "\n"
    (folder / MANIFEST).write_text(text)
