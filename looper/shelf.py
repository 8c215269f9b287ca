"""A folder or a pack's zip as a flat list of loops that the player may read, and nothing else."""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path
from urllib.parse import quote

TYPES = {".wav": "audio/wav", ".mp3": "audio/mpeg", ".flac": "audio/flac", ".ogg": "audio/ogg"}
LARGEST_FILE = 64 * 2**20

# RuntimeError: encrypted, or packed in an unusual way
_BROKEN = (zipfile.BadZipFile, RuntimeError, zlib.error, EOFError)


class Shelf:
    """The loops of one folder or zip.

    A file can be read only if it stands in the listing: an audio file that lies directly in the folder, so no
    path, link or other file leads out of it. A zip is never unpacked to disk, and an entry gives no more bytes
    than it says it has.

    Parameters
    ----------
    path : str or Path
        A folder, or a zip whose loops lie at its top or in its single folder.

    Raises
    ------
    FileNotFoundError
        If `path` is neither.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        if not path.is_dir() and not _opens(path):
            raise FileNotFoundError(f"no folder or pack at {path}: name a folder of loops or a pack's .zip")
        self.name = path.resolve().name
        self.path = path

    def _names(self) -> set[str]:
        if not self.path.is_dir():
            with zipfile.ZipFile(self.path) as archive:
                return set(_inside(archive))
        plain = lambda file: file.is_file() and not file.is_symlink() and file.stat().st_size <= LARGEST_FILE
        return {file.name for file in self.path.iterdir() if plain(file)}

    def _bytes(self, name: str) -> bytes:
        """Content of a file that stands in `_names`."""
        if self.path.is_dir():
            return (self.path / name).read_bytes()
        try:
            with zipfile.ZipFile(self.path) as archive:
                entry = _inside(archive)[name]
                with archive.open(entry) as file:
                    return file.read(entry.file_size)  # without a size it would inflate all that comes
        except _BROKEN as error:
            raise ValueError(f"{name} cannot be read from {self.name}: {error}") from error

    def listing(self) -> dict:
        """Name, loops in order of name, and what pack.json says (None without one)."""
        names = self._names()
        loops = [
            {"name": name, "url": f"/loops/{quote(name, safe='')}"}
            for name in sorted(names)
            if Path(name).suffix.lower() in TYPES
        ]
        try:
            pack = json.loads(self._bytes("pack.json")) if "pack.json" in names else None
        except ValueError:
            pack = None
        return {"name": self.name, "loops": loops, "pack": pack if isinstance(pack, dict) else None}

    def read(self, name: str) -> tuple[bytes, str] | None:
        """Bytes and media type of a listed loop, or None.

        Raises
        ------
        ValueError
            If the zip's entry is damaged, encrypted or packed in an unusual way.
        """
        kind = TYPES.get(Path(name).suffix.lower())
        return (self._bytes(name), kind) if kind and name in self._names() else None


def _opens(path: Path) -> bool:
    try:
        zipfile.ZipFile(path).close()
    except (OSError, zipfile.BadZipFile):
        return False
    return True


def _inside(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Files at the top of a zip, or in the one folder that all its files lie in, by their bare names."""
    paths = {tuple(entry.filename.split("/")): entry for entry in archive.infolist() if not entry.is_dir()}
    tops = {parts[0] for parts in paths}
    depth = 2 if len(tops) == 1 and all(len(parts) > 1 for parts in paths) else 1
    return {
        parts[-1]: entry
        for parts, entry in paths.items()
        if len(parts) == depth and not {"", ".", ".."} & {*parts} and entry.file_size <= LARGEST_FILE
    }
