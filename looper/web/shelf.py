"""A folder of packs in the player, as `looper batch` makes them: one is open, the others are a choice away."""

from __future__ import annotations

import itertools
import os
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from looper.files.formats import MEDIA_TYPES
from looper.web.library import LoopLibrary

MOST_PACKS = 10_000  # that are offered
LOOKED_AT = 100_000  # entries of the folder
OPEN_PACKS = 32  # libraries that are kept


class PackShelf:
    """What `looper serve PATH` plays: each pack of a folder of packs, or else all loops of a folder or zip.

    A folder of packs has no loops of its own, and two folders or more with a pack.json. It may grow while it is
    served. Safe to ask from several threads.

    Parameters
    ----------
    path : str or Path
        A folder or a zip.

    Raises
    ------
    FileNotFoundError
        If `path` is neither.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._whole = LoopLibrary(path)
        self._library = lru_cache(OPEN_PACKS)(LoopLibrary)

    def packs(self) -> list[str]:
        """Names of the packs, in order; none where this is no folder of packs."""
        found: list[str] = []
        with suppress(OSError), os.scandir(self.path) as entries:
            for entry in itertools.islice(entries, LOOKED_AT):
                if Path(entry.name).suffix.lower() in MEDIA_TYPES and not entry.name.startswith("."):
                    return []
                if self._is_pack(entry.name):
                    found.append(entry.name)
        return sorted(found)[:MOST_PACKS] if len(found) > 1 else []

    def _is_pack(self, name: str) -> bool:
        """Whether a folder of this name, and no link or path that leads elsewhere, is a pack."""
        folder = self.path / name
        plain = name == Path(name).name and not name.startswith(".")
        return plain and not folder.is_symlink() and (folder / "pack.json").is_file()

    def listing(self, pack: str | None = None) -> dict[str, Any]:
        """The loops of a pack as `LoopLibrary.listing` has them, with `packs`, all there are, and `open`, its name.

        Parameters
        ----------
        pack : str, optional
            Which; the first where it is not given or not there any more.

        Raises
        ------
        OSError
            If the folder or zip is gone or half written.
        """
        packs = self.packs()
        if not packs:
            return {**self._whole.listing(), "packs": [], "open": None}
        name = pack if pack in packs else packs[0]
        listing = self._library(self.path / name).listing()
        for loop in listing["loops"]:
            loop["url"] += f"?pack={quote(name, safe='')}"
        return {**listing, "packs": packs, "open": name}

    def read(self, name: str, pack: str | None = None) -> tuple[bytes, str] | None:
        """Bytes and media type of a listed loop, or None; see `LoopLibrary.read`."""
        if pack is None:
            return self._whole.read(name)
        if not self._is_pack(pack):
            return None
        return self._library(self.path / pack).read(name)
