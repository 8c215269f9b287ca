"""Musical keys by name: as people write them, as file names and tags have them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from looper.runtime.validation import FieldError

NOTES = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
_SHARP_MINORS = {1: "C#", 6: "F#", 8: "G#"}
_STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_SIGNS = {"": 0, "#": 1, "♯": 1, "sharp": 1, "b": -1, "♭": -1, "flat": -1}
_WRITTEN = re.compile(
    r"\s*([A-G])(?:[\s-]*(#|♯|♭|sharp|flat)|(b))?[\s-]*(major|maj|minor|min|m)?\s*", re.IGNORECASE | re.ASCII
)


@dataclass(frozen=True)
class Key:
    """A key; `root` is 0 for C to 11 for B.

    Examples
    --------
    >>> Key(9, minor=True).name, Key(9, minor=True).id3, Key(9, minor=True).words
    ('Amin', 'Am', 'A minor')
    """

    root: int
    minor: bool

    @property
    def name(self) -> str:
        """As in file names: "Amin", "Ebmaj"."""
        return NOTES[self.root] + ("min" if self.minor else "maj")

    @property
    def id3(self) -> str:
        """As ID3v2 spells TKEY: "Am", "Eb"."""
        return NOTES[self.root] + ("m" if self.minor else "")

    @property
    def words(self) -> str:
        """As in a sentence, and as a model reads it, spelt as musicians do: "A minor", "Eb major", "F# minor"."""
        note = _SHARP_MINORS.get(self.root, NOTES[self.root]) if self.minor else NOTES[self.root]
        return f"{note} {'minor' if self.minor else 'major'}"


def parse_key(text: object) -> Key:
    """The key that `text` names: "A minor", "Am", "F# major", "B flat", "Ebmin"; a note alone is major.

    Raises
    ------
    FieldError
        If it names none.

    Examples
    --------
    >>> parse_key("f sharp minor").words
    'F# minor'
    """
    found = _WRITTEN.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise FieldError(
            "key",
            f"must be a note and major or minor, such as 'A minor', 'F# major' or 'Ebm', got {text!r:.80}",
        )
    note, sign, flat, mode = (part or "" for part in found.groups())
    root = (_STEPS[note.upper()] + _SIGNS[(sign or flat).lower()]) % 12
    return Key(root, minor=mode == "m" or mode.lower().startswith("min"))
