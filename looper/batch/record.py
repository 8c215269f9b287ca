"""What became of one request."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from looper.batch.requests import BatchLine

RECORD = "record.json"
"""The file in a pack that holds its record."""

Status = Literal["ok", "failed", "lost"]


@dataclass(frozen=True)
class Record:
    """What became of one request; with the model's files it is enough to make its files again.

    Attributes
    ----------
    id : str
        What was asked for, as `BatchLine.id`.
    line : int
        Its number in the requests file.
    status : str
        "ok"; "failed", with the reason in `error`; or "lost": it killed its worker each time.
    tries : int
        Workers it was given to.
    request : dict
        Fields of `LoopRequest`, the seed drawn.
    model, model_sha256 : str
        Name of the weights, and the sha256 of their manifest.json, which names all files by theirs.
    bars : float
        Of each loop.
    rate : int or None
        Samples a second that were asked for.
    bpm_measured, confidence : list of float
        Of each variation before the stretch.
    folder : str
        Of the pack, below the output folder.
    files : dict
        sha256 by file name within `folder`.
    seconds : float
        Wall time of the work.
    host, version : str
        The machine, and looper's version.
    """

    id: str
    line: int
    status: Status
    request: dict[str, Any]
    model: str
    format: str
    error: str | None = None
    tries: int = 1
    model_sha256: str | None = None
    bars: float | None = None
    rate: int | None = None
    bpm_measured: list[float] = field(default_factory=list)
    confidence: list[float] = field(default_factory=list)
    folder: str | None = None
    files: dict[str, str] = field(default_factory=dict)
    seconds: float | None = None
    host: str | None = None
    version: str | None = None

    @classmethod
    def of(cls, line: BatchLine, status: Status, **facts: Any) -> Record:
        """A record of `line`."""
        request = asdict(line.request)
        return cls(line.id, line.number, status, request, line.model, line.format, rate=line.rate, **facts)

    @classmethod
    def from_json(cls, text: str | bytes) -> Record:
        """Read one.

        Raises
        ------
        ValueError
            If it is none.
        """
        try:
            facts = json.loads(text)
            known = {f.name for f in fields(cls)}
            return cls(**{name: value for name, value in facts.items() if name in known})
        except (TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"not a record: {error}") from error

    def to_json(self) -> str:
        """It as one line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)
