"""How loops become files; nothing here is slow to import."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FileStyle:
    """How loops become files.

    Attributes
    ----------
    format : str
        "wav", "mp3", "flac" or "ogg".
    subtype : str or None
        "PCM_16", "PCM_24" or "FLOAT"; None for what is usual.
    names : str
        "plain" or "splice"; see `looper.export.names`.
    """

    format: str = "wav"
    subtype: str | None = None
    names: str = "plain"
