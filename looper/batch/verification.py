"""The packs of a batch held against its manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from looper.batch.manifest import MANIFEST, packs_url, read_manifest
from looper.batch.record import RECORD, Record
from looper.batch.remote import RemotePacks
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
    records, url = read_manifest(out), packs_url(out)
    packs: Packs = RemotePacks(url) if url else LocalPacks(Path(out))
    wrong = _twice(records)
    for record in records:
        wrong += damage(record, packs)
    return wrong + _unknown(records, packs)


class Packs(Protocol):
    """Where packs are."""

    def folders(self) -> set[str]:
        """Names of all that stands there."""

    def files(self, folder: str) -> set[str]:
        """Names of the files of a pack; none where there is no pack."""

    def sha256(self, folder: str, name: str) -> str:
        """Of a file that is there."""


class LocalPacks:
    """The packs of a folder."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def folders(self) -> set[str]:
        """Names of all that stands in it."""
        return {path.name for path in self.out.iterdir()}

    def files(self, folder: str) -> set[str]:
        """Names of the files of a pack; none where there is no pack."""
        pack = self.out / folder
        return {path.name for path in pack.iterdir() if path.is_file()} if pack.is_dir() else set()

    def sha256(self, folder: str, name: str) -> str:
        """Of a file that is there."""
        return sha256(self.out / folder / name)


def damage(record: Record, packs: Packs) -> list[str]:
    """What is wrong with the pack of one record."""
    if record.status != "ok":
        return []
    pack = Path(str(record.folder)).name  # a manifest may not lead out of its folder
    there, wrong = packs.files(pack), []
    for name, expected in record.files.items():
        if Path(name).name not in there:
            wrong.append(f"{pack}/{name} is missing")
        elif packs.sha256(pack, Path(name).name) != expected:
            wrong.append(f"{pack}/{name} is not as it was made: its sha256 differs")
    return wrong + [
        f"{pack}/{name} is no part of this pack" for name in sorted(there - {*record.files, RECORD})
    ]


def _twice(records: list[Record]) -> list[str]:
    seen: set[str] = set()
    wrong = []
    for record in records:
        if record.id in seen:
            wrong.append(f"{MANIFEST} has request {record.id} twice")
        seen.add(record.id)
    return wrong


def _unknown(records: list[Record], packs: Packs) -> list[str]:
    known = {record.folder for record in records if record.status == "ok"}
    unknown = sorted(packs.folders() - known)
    return [f"{name} has no record in {MANIFEST}" for name in unknown if RECORD in packs.files(name)]
