"""Rows of CSV or JSON Lines as fields by name, with the numbers of their lines.

A CSV file has a header; JSON Lines have one object a line; the first character says which it is. Fields are
those of `looper.request.LoopRequest`, and

- `guidance`: another name for `cfg_coef`, as the command line has it
- `model`: a name or folder of weights; `format`: wav, mp3, flac or ogg
- `rate`: samples a second of the files: 32000, 44100 or 48000

An empty CSV cell, a field left out and JSON's null stand for the default. Blank lines are passed over.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from typing import Any

from looper.request import LoopRequest
from looper.runtime.validation import FieldError

_REQUEST = tuple(field.name for field in fields(LoopRequest))
_TEXT = ("prompt", "model", "format", "key")
_WHOLE = ("variations", "beats_per_bar", "top_k", "seed", "bars", "rate")
FIELDS = (*_REQUEST, "guidance", "model", "format", "rate")


def decode(data: bytes, name: str) -> str:
    """Text of the file called `name`, or a complaint that says where it is no UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{name} is not UTF-8 (line {number}): save it as UTF-8, in a spreadsheet as 'CSV UTF-8'"
        ) from None


def rows(text: str) -> Iterator[tuple[int, Any]]:
    """Number and fields of each row; in the place of a row that cannot be read, a ValueError that says why.

    Raises
    ------
    ValueError
        If the header of a CSV has a column that is no field.
    """
    return _json_rows(text) if text.lstrip().startswith("{") else _csv_rows(text)


def refuse_unknown(names: Iterable[object]) -> None:
    """Raise ValueError for a name that is no field."""
    for name in names:
        if name not in FIELDS:
            raise ValueError(f"{name!r:.80} is no field: there are {', '.join(FIELDS)}")


def _json_rows(text: str) -> Iterator[tuple[int, Any]]:
    """Number and object of each line; a ValueError in its place where it is none."""
    for number, line in enumerate(text.split("\n"), 1):  # splitlines() would cut at U+2028 within a string
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                yield number, ValueError(f"is not JSON: {error}")


def _csv_rows(text: str) -> Iterator[tuple[int, Any]]:
    """Number and fields of each row, by the line it starts on."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    for number, cells in _numbered(reader):
        if isinstance(cells, ValueError):
            yield number, cells
        elif not any(cell.strip() for cell in cells):
            continue
        elif header is None:
            header = _header(cells)
        else:
            yield number, _fields(header, cells)


def _numbered(reader: Any) -> Iterator[tuple[int, list[str] | ValueError]]:
    while True:
        number = reader.line_num + 1
        try:
            yield number, next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield number, ValueError(f"is not CSV: {error}")


def _header(cells: list[str]) -> list[str]:
    names = [cell.strip().lower() for cell in cells]
    if len(names) == 1 and re.search(r"[;\t]", names[0]):
        raise ValueError(
            "the header must name the columns, with commas between them: save it as CSV with commas"
        )
    if names[0].startswith("["):
        raise ValueError("this is a JSON list: write each of its objects on a line of its own")
    try:
        refuse_unknown(names)
    except ValueError as error:
        raise ValueError(f"the header must name the columns: {error}") from None
    if len(set(names)) < len(names):
        raise ValueError("the header names a column twice")
    return names


def _fields(header: list[str], cells: list[str]) -> dict[str, Any] | ValueError:
    if len(cells) > len(header):
        return ValueError(
            f"has {len(cells)} cells, and the header {len(header)}: put a prompt with commas in quotes"
        )
    try:
        return {name: _value(name, cell) for name, cell in zip(header, cells, strict=False) if cell.strip()}
    except ValueError as error:
        return error


def _value(name: str, cell: str) -> str | int | float:
    if name in _TEXT:
        return cell.strip()
    try:
        return _NUMBER[name in _WHOLE](cell)
    except ValueError:
        kind = "a whole number" if name in _WHOLE else "a number"
        raise FieldError(name, f"must be {kind}, got {cell.strip()!r:.80}") from None


def _whole_number(cell: str) -> int | float:
    """An int of any size, or a float such as 1e3 that `LoopRequest` looks at."""
    try:
        return int(cell)
    except ValueError:
        return float(cell)


_NUMBER: tuple[Callable[[str], float], Callable[[str], int | float]] = (float, _whole_number)
