"""The packs of a batch held against its manifest."""

from __future__ import annotations

from pathlib import Path

from looper.batch.manifest import MANIFEST, RECORD, Record, read_manifest
from looper.checkpoints.manifest import sha256


def verify(out: str | Path) -> list[str]:
    """What is wrong with the packs in `out`, a sentence each; nothing if all is as the manifest has it.

    Looked for: records that stand there twice, files that are missing or changed, files and packs that no
    record names.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no manifest, or it is damaged; see `read_manifest`.
    """
    out = Path(out)
    records = read_manifest(out)
    wrong = _twice(records)
    for record in records:
        wrong += damage(record, out)
    return wrong + _unknown(records, out)


def damage(record: Record, out: Path) -> list[str]:
    """What is wrong with the pack of one record."""
    if record.status != "ok":
        return []
    pack = out / Path(str(record.folder)).name  # a manifest may not lead out of its folder
    wrong = []
    for name, expected in record.files.items():
        path = pack / Path(name).name
        if not path.is_file():
            wrong.append(f"{path} is missing")
        elif sha256(path) != expected:
            wrong.append(f"{path} is not as it was made: its sha256 differs")
    there = {path.name for path in pack.iterdir()} if pack.is_dir() else set()
    wrong += [f"{pack / name} is no part of this pack" for name in sorted(there - {*record.files, RECORD})]
    return wrong


def _twice(records: list[Record]) -> list[str]:
    seen: set[str] = set()
    wrong = []
    for record in records:
        if record.id in seen:
            wrong.append(f"{MANIFEST} has request {record.id} twice")
        seen.add(record.id)
    return wrong


def _unknown(records: list[Record], out: Path) -> list[str]:
    known = {record.folder for record in records if record.status == "ok"}
    packs = (path for path in sorted(out.iterdir()) if (path / RECORD).is_file())
    return [f"{path} has no record in {MANIFEST}" for path in packs if path.name not in known]
