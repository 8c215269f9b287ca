"""A folder or a pack's zip as a flat list of loops that the player may read, and nothing else."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from urllib.parse import quote

TYPES = {".wav": "audio/wav", ".mp3": "audio/mpeg", ".flac": "audio/flac", ".ogg": "audio/ogg"}
LARGEST_FILE = 64 * 2**20


class Shelf:
    """The loops of one folder or zip.

    A file can be read only if it stands in the listing: an audio file that lies directly in the folder, so no
    path, link or other file leads out of it.

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
        if not path.is_dir() and not (path.is_file() and zipfile.is_zipfile(path)):
            raise FileNotFoundError(f"no folder or pack at {path}: name a folder of loops or a pack's .zip")
        self.name = path.resolve().name
        self.path = path

    def _root(self) -> Path | zipfile.Path:
        if self.path.is_dir():
            return self.path
        root = zipfile.Path(self.path)
        inside = list(root.iterdir())
        return inside[0] if len(inside) == 1 and inside[0].is_dir() else root

    def _files(self) -> dict[str, Path | zipfile.Path]:
        def plain(entry: Path | zipfile.Path) -> bool:
            if isinstance(entry, zipfile.Path):
                return entry.is_file() and entry.root.getinfo(entry.at).file_size <= LARGEST_FILE
            return entry.is_file() and not entry.is_symlink() and entry.stat().st_size <= LARGEST_FILE

        return {entry.name: entry for entry in self._root().iterdir() if plain(entry)}

    def listing(self) -> dict:
        """Name, loops in order of name, and what pack.json says (None without one)."""
        files = self._files()
        loops = [
            {"name": name, "url": f"/loops/{quote(name, safe='')}"}
            for name in sorted(files)
            if Path(name).suffix.lower() in TYPES
        ]
        try:
            pack = json.loads(files["pack.json"].read_bytes())
        except (KeyError, ValueError):
            pack = None
        return {"name": self.name, "loops": loops, "pack": pack if isinstance(pack, dict) else None}

    def read(self, name: str) -> tuple[bytes, str] | None:
        """Bytes and media type of a listed loop, or None."""
        entry = self._files().get(name)
        kind = TYPES.get(Path(name).suffix.lower())
        return (entry.read_bytes(), kind) if entry is not None and kind else None
