"""Files that would do harm where anything in them were run."""

from __future__ import annotations

from pathlib import Path


class Malicious:
    """Opened carelessly, its pickle makes the file `target`."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))
