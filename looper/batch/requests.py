"""Requests by the line, all checked before any work begins; `looper.batch.rows` says what a line may hold."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from looper.batch.rows import decode, refuse_unknown, rows
from looper.files.formats import AUDIO_FORMATS, check_rate
from looper.request import LoopRequest
from looper.runtime.validation import FieldError, finite

MODEL, FORMAT = "medium", "wav"
ID_LENGTH = 16  # hexadecimal digits: among a million requests two share them once in 10**7 times


@dataclass(frozen=True)
class BatchLine:
    """One line of a batch: what to make, with which model, as what files.

    Attributes
    ----------
    number : int
        The line's number in its file, from 1.
    request : LoopRequest
    model : str
        Name or folder of the weights.
    format : str
        "wav", "mp3", "flac" or "ogg".
    rate : int or None
        Samples a second of the files; None for the model's own.
    """

    number: int
    request: LoopRequest
    model: str = MODEL
    format: str = FORMAT
    rate: int | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """What is asked for, without the line's number."""
        asked = {name: value for name, value in asdict(self.request).items() if value is not None}
        rate = {} if self.rate is None else {"rate": self.rate}  # without one, ids are as they always were
        return {**asked, "model": self.model, "format": self.format, **rate}

    @cached_property
    def id(self) -> str:
        """What is asked for as 16 hexadecimal digits: the same request has the same on every machine."""
        return _digest(json.dumps(self.fields, sort_keys=True))[:ID_LENGTH]


@dataclass(frozen=True)
class BadLine:
    """A line that cannot be made, and why."""

    number: int
    reason: str

    def __str__(self) -> str:
        return f"line {self.number}: {self.reason}"


class BadLinesError(ValueError):
    """Lines that cannot be made; the message names each with its number and reason.

    Attributes
    ----------
    lines : list of BadLine
    """

    def __init__(self, lines: list[BadLine]) -> None:
        count = "1 line is bad" if len(lines) == 1 else f"{len(lines)} lines are bad"
        super().__init__(f"{count}, nothing was made:\n" + "\n".join(map(str, lines)))
        self.lines = lines


def read_requests(
    source: str | Path | Iterable[Mapping[str, Any] | LoopRequest],
    *,
    model: str = MODEL,
    format: str = FORMAT,
) -> list[BatchLine]:
    r"""Read and check all requests of a file, or of an iterable of dictionaries or `LoopRequest`.

    Parameters
    ----------
    source : path or iterable
        A CSV or JSON Lines file.
    model, format : str
        For lines that name none.

    Raises
    ------
    BadLinesError
        Naming every bad line with its reason.
    ValueError
        If there is no line at all, or the header of a CSV has a column that is no field.

    Examples
    --------
    >>> [line] = read_requests([{"prompt": "house", "bpm": 124, "seed": 1}], model="tiny")
    >>> line.request.bpm, line.model
    (124.0, 'tiny')
    """
    if isinstance(source, (str, Path)):
        if not Path(source).exists() or Path(source).is_dir():
            kind = IsADirectoryError if Path(source).is_dir() else FileNotFoundError
            raise kind(f"no such file: {source}: name a CSV or JSON Lines file with a request a line")
        return read_text(decode(Path(source).read_bytes(), str(source)), model=model, format=format)
    return _checked(enumerate(map(_as_mapping, source), 1), model, format)


def read_text(text: str, *, model: str = MODEL, format: str = FORMAT) -> list[BatchLine]:
    """Read and check all requests of CSV or JSON Lines, such as standard input; see `read_requests`."""
    return _checked(rows(text), model, format)


def draw_seeds(lines: Iterable[BatchLine], secret: str) -> list[BatchLine]:
    """Give each line without a seed one that `secret` decides, so that a resumed batch draws the same.

    Equal lines get seeds of their own, in their order.
    """
    seen: Counter[str] = Counter()
    return [_seeded(line, secret, seen) if line.request.seed == -1 else line for line in lines]


def _seeded(line: BatchLine, secret: str, seen: Counter[str]) -> BatchLine:
    seen[line.id] += 1
    drawn = int(_digest(f"{secret} {line.id} {seen[line.id]}")[:8], 16) % 2**31
    return replace(line, request=replace(line.request, seed=drawn))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _as_mapping(item: Mapping[str, Any] | LoopRequest) -> Mapping[str, Any]:
    return asdict(item) if isinstance(item, LoopRequest) else item


def _checked(numbered: Iterable[tuple[int, Any]], model: str, format: str) -> list[BatchLine]:
    lines, bad = [], []
    for number, row in numbered:
        try:
            lines.append(_line(number, _said(row), model, format))
        except ValueError as error:
            bad.append(BadLine(number, str(error)))
    if bad:
        raise BadLinesError(bad)
    if not lines:
        raise ValueError("there is no request: write one a line, below a header such as 'prompt,bpm'")
    return lines


def _said(row: Any) -> dict[str, Any]:
    """The fields of a row that say something."""
    if isinstance(row, ValueError):  # what its reader found
        raise row
    if not isinstance(row, Mapping):
        raise ValueError(f'must be an object such as {{"prompt": "house"}}, got {type(row).__name__}')
    refuse_unknown(row)
    asked = {name: value for name, value in row.items() if value is not None}
    if "guidance" in asked and "cfg_coef" in asked:
        raise ValueError("guidance and cfg_coef do not go together: leave one out")
    return asked


def _line(number: int, asked: dict[str, Any], model: str, format: str) -> BatchLine:
    model, format = _word(asked, "model", model), _word(asked, "format", format)
    if format not in AUDIO_FORMATS:
        raise FieldError("format", f"must be one of {', '.join(AUDIO_FORMATS)}, got {format!r:.80}")
    if "prompt" not in asked:
        raise FieldError("prompt", "is missing: describe the music you want")
    if (guidance := asked.pop("guidance", None)) is not None:
        asked["cfg_coef"] = finite("guidance", guidance)
    rate = asked.pop("rate", None)
    return BatchLine(number, LoopRequest(**asked), model, format, None if rate is None else check_rate(rate))


def _word(asked: dict[str, Any], name: str, default: str) -> str:
    value = asked.pop(name, default)
    if not isinstance(value, str) or not value:
        raise FieldError(name, f"must be text, got {value!r:.80}")
    return value
