"""JSON from outside, taken only where it can be passed on: `json` alone reads more than it may write."""

from __future__ import annotations

import json

DEEPEST = 50


def loads(text: bytes) -> object:
    """Parse `text` as JSON (RFC 8259) that can be written again.

    Raises
    ------
    ValueError
        In words: no JSON, a number that is not finite (NaN, 1e999), half a character (a lone surrogate), or
        nested deeper than 50 levels.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(f"it is nested deeper than {DEEPEST} levels") from None
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [inner for outer in level for inner in _inside(outer)]
    if level:  # what is shallow here may still be too deep for the stack that writes it
        raise ValueError(f"it is nested deeper than {DEEPEST} levels")
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("it holds half a character (a lone surrogate)") from None
    except ValueError:
        raise ValueError("it holds a number that is not finite") from None
    return value


def _inside(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
