"""The manifest as a Parquet table, for whoever asks questions of many packs."""

from __future__ import annotations

import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

from looper.batch.manifest import read_manifest
from looper.batch.record import Record
from looper.files.atomic import deliver


def export_parquet(out: str | Path, path: str | Path) -> int:
    """Write the records of a batch's folder to a Parquet file, a row a request; tell how many.

    Columns are the fields of `Record`; those of its request stand flat as `request.prompt` and so on, and
    `files` is two lists, `files.name` and `files.sha256`.

    Raises
    ------
    ModuleNotFoundError
        If pyarrow is not installed.
    FileNotFoundError, ValueError
        If there is no manifest, or it is damaged.
    OSError
        If the file cannot be written; what stood there before stays.
    """
    need_pyarrow()
    import pyarrow
    from pyarrow import parquet

    records = read_manifest(out)
    file = io.BytesIO()
    rows = [_row(record) for record in records]
    names = {name: None for row in rows for name in row}  # an older record lacks some
    table = pyarrow.table({name: [row.get(name) for row in rows] for name in names})
    parquet.write_table(table, file)
    deliver({Path(path): file.getvalue()})
    return len(records)


def need_pyarrow() -> None:
    """Raise ModuleNotFoundError, naming the command that brings it, where pyarrow is not installed."""
    try:
        import pyarrow  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("Parquet needs pyarrow: `python -m pip install pyarrow`") from error


def _row(record: Record) -> dict[str, Any]:
    facts = asdict(record)
    request, files = facts.pop("request"), facts.pop("files")
    facts |= {f"request.{name}": value for name, value in request.items()}
    return {**facts, "files.name": list(files), "files.sha256": list(files.values())}
