"""File names and metadata text that are safe wherever they land."""

from __future__ import annotations

import re
import unicodedata

SLUG_LENGTH = 40
TEXT_LENGTH = 500

_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{k}" for port in ("com", "lpt") for k in range(10))}


def slug(text: str) -> str:
    """Lower-case ASCII letters, digits and single hyphens, at most 40; "loop" when nothing is left.

    Accents are dropped ("Café" becomes "cafe"); other scripts and signs have no ASCII and go.

    Examples
    --------
    >>> slug("Café del Mar, 128 bpm!")
    'cafe-del-mar-128-bpm'
    """
    # a slug of 40 needs no more than the start of a 10,000-character prompt
    ascii_text = unicodedata.normalize("NFKD", text[:1000]).encode("ascii", "ignore").decode()
    words = re.findall(r"[a-z0-9]+", ascii_text.lower())
    short = "-".join(words)[: SLUG_LENGTH + 1]
    if len(short) > SLUG_LENGTH:
        short = short.rpartition("-")[0] or short[:SLUG_LENGTH]
    return "loop" if not short or short in _RESERVED else short


def numbered(name: str, number: int) -> str:
    """`name` as it is for the first, "name-2" for the second file that would be called so.

    Examples
    --------
    >>> numbered("jam", 1), numbered("jam", 2)
    ('jam', 'jam-2')
    """
    return name if number == 1 else f"{name}-{number}"


def displayable(text: str) -> str:
    r"""`text`, such as a path, with control characters and bytes that are not UTF-8 written out, to be shown and sent.

    Examples
    --------
    >>> displayable("caf\udce9\n.wav")
    'caf\\xe9\\n.wav'
    """
    readable = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    written = lambda c: c.encode("unicode_escape").decode() if unicodedata.category(c) == "Cc" else c
    return "".join(map(written, readable))


def tempo(bpm: float) -> str:
    """`bpm` with all the digits that tell it from any other: 124, 93.7, 128.00001.

    Examples
    --------
    >>> tempo(124.0), tempo(93.7)
    ('124', '93.7')
    """
    return repr(float(bpm)).removesuffix(".0")


def plain(text: object, limit: int = TEXT_LENGTH) -> str:
    r"""`text` on one line for metadata: no control or direction-changing characters, at most `limit` long.

    Examples
    --------
    >>> plain("two\nlines")
    'two lines'
    """
    line = unicodedata.normalize("NFC", " ".join(str(text)[: 4 * limit].split()))
    kept = "".join(
        c for c in line if unicodedata.category(c) not in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    )
    return kept if len(kept) <= limit else kept[: limit - 1].rstrip() + "…"
