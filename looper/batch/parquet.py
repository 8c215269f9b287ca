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
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("Parquet needs pyarrow: `python -m pip install pyarrow`") from error
    records = read_manifest(out)
    file = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist([_row(record) for record in records]), file)
    deliver({Path(path): file.getvalue()})
    return len(records)


def _row(record: Record) -> dict[str, Any]:
    facts = asdict(record)
    request, files = facts.pop("request"), facts.pop("files")
    facts |= {f"request.{name}": value for name, value in request.items()}
    return {**facts, "files.name": list(files), "files.sha256": list(files.values())}
