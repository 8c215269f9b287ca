"""A folder or a pack's zip as a flat list of loops that the player may read, and nothing else."""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
import threading
import weakref
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from looper.files.formats import MEDIA_TYPES
from looper.files.text import displayable
from looper.web import strict_json

LARGEST_FILE = 64 * 2**20
LARGEST_DESCRIPTION = 2**20
MOST_LOOPS = 100  # as the page has it
DEEPEST = 8  # folders within folders
LOOKED_AT = 100_000  # files and folders of a folder: somebody may serve a whole home

# RuntimeError: encrypted; ValueError: a name that is no text
_BROKEN = (zipfile.BadZipFile, RuntimeError, ValueError, zlib.error, EOFError)


class Found(NamedTuple):
    """Loops by name, the description that goes with them, and how many loops there would be."""

    loops: dict[str, Path | zipfile.ZipInfo]
    pack: Path | zipfile.ZipInfo | None
    total: int


class LoopLibrary:
    """The loops of one folder or zip: those at the least depth that has any.

    A file can be read only if it stands in the listing: an audio file of the folder that is reached over no
    link, so nothing leads out of it. A zip is never unpacked to disk, and an entry gives no more bytes than it
    says it has. Hidden files and `__MACOSX`, where a Mac keeps its notes on files, are passed over.

    Parameters
    ----------
    path : str or Path
        A folder or a zip, which may change while it is served. Safe to ask from several threads.

    Raises
    ------
    FileNotFoundError
        If `path` is neither.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.name = displayable(self.path.resolve().name) or str(path)
        self._lock = threading.Lock()
        self._archive: tuple[tuple[int, ...], zipfile.ZipFile, Found] | None = None
        self._close: Callable[[], object] = lambda: None
        try:
            self._find()
        except OSError as error:
            raise FileNotFoundError(
                f"no folder or pack at {path}: name a folder of loops or a pack's .zip"
            ) from error

    def _find(self) -> Found:
        """What there is now; a zip is looked through again only when it has changed."""
        try:
            if self.path.is_dir():
                return _choose(_in_folder(self.path))
            now = self.path.stat()
            if not stat.S_ISREG(now.st_mode):  # to open a pipe would wait for ever
                raise OSError("neither a folder nor a file")
            stamp = (now.st_ino, now.st_size, now.st_mtime_ns)
            if self._archive is None or self._archive[0] != stamp:
                self._forget()
                archive = zipfile.ZipFile(self.path)
                self._close = weakref.finalize(self, archive.close)  # once: here, or with the library
                self._archive = (stamp, archive, _choose(_in_zip(archive)))
            return self._archive[2]
        except (OSError, *_BROKEN) as error:
            self._forget()
            raise OSError(
                f"{self.name} cannot be read: it was moved or deleted, or is being written."
            ) from error

    def _forget(self) -> None:
        self._close()
        self._archive = None

    def _bytes(self, name: str, place: Path | zipfile.ZipInfo) -> bytes:
        try:
            if isinstance(place, Path):
                return _read_below(self.path, place)
            if place.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise zipfile.BadZipFile("packed in an unusual way")  # those inflate all that comes
            assert self._archive is not None
            with self._archive[1].open(place) as file:
                return file.read(place.file_size)  # without a size it would inflate all that comes
        except OSError as error:
            raise ValueError(f"{name} cannot be read from {self.name}: {error.strerror or error}") from error
        except _BROKEN as error:
            raise ValueError(f"{name} cannot be read from {self.name}: {error}") from error

    def listing(self) -> dict[str, Any]:
        """Name, loops in order of name, what pack.json says (None without a good one), and a note.

        The note is a sentence where the folder or zip has no loops or more than are shown, else None.

        Raises
        ------
        OSError
            If the folder or zip is gone or half written.
        """
        with self._lock:
            found = self._find()
            pack = None
            if found.pack is not None:
                with contextlib.suppress(ValueError):
                    pack = strict_json.loads(self._bytes("pack.json", found.pack))
        note = None
        if not found.total:
            note = f"No loops in {self.name}: looking for .wav, .mp3, .flac and .ogg files."
        elif found.total > len(found.loops):
            note = f"{found.total} loops in {self.name}: the first {len(found.loops)} by name are shown."
        loops = [{"name": name, "url": f"/loops/{quote(name, safe='')}"} for name in found.loops]
        return {
            "name": self.name,
            "loops": loops,
            "pack": pack if isinstance(pack, dict) else None,
            "note": note,
        }

    def read(self, name: str) -> tuple[bytes, str] | None:
        """Bytes and media type of a listed loop, or None.

        Raises
        ------
        ValueError
            If the file may not be read, or the zip's entry is damaged, encrypted or packed in an unusual way.
        OSError
            If the folder or zip is gone or half written.
        """
        with self._lock:
            place = self._find().loops.get(name)
            return (self._bytes(name, place), MEDIA_TYPES[_suffix(name)]) if place is not None else None


def _read_below(folder: Path, place: Path) -> bytes:
    """The file `place` below `folder`; no link is followed on the way, whatever was swapped in since it was listed.

    Raises
    ------
    OSError
        If there is no regular file any more.
    ValueError
        If it is larger than what is served.
    """
    *above, name = place.relative_to(folder).parts
    with contextlib.ExitStack() as stack:

        def opened(part: str | Path, flags: int, at: int | None = None) -> int:
            handle = os.open(part, flags | os.O_RDONLY | os.O_CLOEXEC, dir_fd=at)
            stack.callback(os.close, handle)
            return handle

        here = opened(folder, os.O_DIRECTORY)  # the user's own choice may be a link
        for part in above:
            here = opened(part, os.O_DIRECTORY | os.O_NOFOLLOW, here)
        handle = opened(name, os.O_NOFOLLOW | os.O_NONBLOCK, here)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError("no file any more")
        with open(handle, "rb", closefd=False) as file:
            content = file.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise ValueError(f"larger than {LARGEST_FILE // 2**20} MiB")
    return content


def _suffix(name: str) -> str:
    return Path(name).suffix.lower()


def _hidden(name: str) -> bool:
    return name in ("", "__MACOSX") or name.startswith(".")  # with "." and "..", that lead elsewhere


def _fits(name: str, size: int) -> bool:
    return size <= (LARGEST_DESCRIPTION if name == "pack.json" else LARGEST_FILE)


def _in_zip(archive: zipfile.ZipFile) -> dict[tuple[str, ...], zipfile.ZipInfo]:
    """Files of a zip by their paths."""
    # asked of an entry without a name, is_dir() is an IndexError
    entries = [entry for entry in archive.infolist() if entry.filename]
    paths = {tuple(entry.filename.split("/")): entry for entry in entries if not entry.is_dir()}
    return {
        parts: entry
        for parts, entry in paths.items()
        if len(parts) <= DEEPEST and not any(map(_hidden, parts)) and _fits(parts[-1], entry.file_size)
    }


def _in_folder(folder: Path) -> dict[tuple[str, ...], Path]:
    """Loops and descriptions of a folder by their paths, down to the first level that has loops."""
    found: dict[tuple[str, ...], Path] = {}
    depth = DEEPEST
    for parts, entry in itertools.islice(_walk(folder), LOOKED_AT):
        if len(parts) > depth:
            break
        name = parts[-1]
        with contextlib.suppress(OSError):  # gone meanwhile
            if (name == "pack.json" or _suffix(name) in MEDIA_TYPES) and entry.is_file(follow_symlinks=False):
                if not _fits(name, entry.stat(follow_symlinks=False).st_size):
                    continue
                found[parts] = Path(entry.path)
                depth = len(parts) if name != "pack.json" else depth
    return found


def _walk(folder: Path) -> Iterator[tuple[tuple[str, ...], os.DirEntry[str]]]:
    """Everything below `folder` that is not hidden, level by level; links are not followed."""
    ahead: deque[tuple[tuple[str, ...], str | Path]] = deque([((), folder)])
    while ahead:
        above, here = ahead.popleft()
        try:
            entries = os.scandir(here)
        except OSError:
            if above:
                continue  # a folder within, that may not be looked into
            raise
        with entries:
            for entry in entries:
                if _hidden(entry.name):
                    continue
                parts = (*above, displayable(entry.name))
                yield parts, entry
                if len(parts) < DEEPEST and entry.is_dir(follow_symlinks=False):
                    ahead.append((parts, entry.path))


def _choose(files: Mapping[tuple[str, ...], Path | zipfile.ZipInfo]) -> Found:
    """Loops at the least depth, named from the folder that they share, and the pack.json nearest above."""
    sounds = [parts for parts in files if _suffix(parts[-1]) in MEDIA_TYPES]
    depth = min(map(len, sounds), default=0)
    sounds = sorted(parts for parts in sounds if len(parts) == depth)
    ends = (
        zip(sounds[0][:-1], sounds[-1][:-1], strict=True) if sounds else ()
    )  # sorted: what these share, all do
    shared = tuple(one for one, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], ends))
    above = [(*shared[:k], "pack.json") for k in range(len(shared), -1, -1)]
    pack = next((files[parts] for parts in above if parts in files), None)
    loops = {"/".join(parts[len(shared) :]): files[parts] for parts in sounds[:MOST_LOOPS]}
    return Found(loops, pack, len(sounds))
