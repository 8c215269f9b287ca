"""A model folder's manifest: every file with its size and sha256, and the check of both.

Nothing here imports torch: looking at weights must stay quick.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from looper.checkpoints.sources import WeightsError, remedy

MANIFEST = "manifest.json"
LONGEST_NAME = 255  # bytes, as file systems have it
REQUIRED = ("lm.safetensors", "codec.safetensors", "config.yaml")
TEXT = "t5"  # the text encoder's folder
TEXT_REQUIRED = (f"{TEXT}/model.safetensors", f"{TEXT}/config.json")


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Read ``manifest.json``.

    Raises
    ------
    WeightsError
        If it is missing or not a manifest.
    """
    path = Path(folder) / MANIFEST
    try:
        manifest = json.loads(path.read_text())
        for name, entry in manifest["files"].items():
            _check_entry(name, entry)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}; {remedy(folder)}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{path} is not a manifest ({error}); {remedy(folder)}") from error
    return manifest


def _check_entry(name: str, entry: object) -> None:
    """Raise ValueError for what no file can have."""
    if not name.isprintable() or len(os.fsencode(name)) > LONGEST_NAME:
        raise ValueError(f"{name!r:.80} is no file's name")
    if not isinstance(entry, dict) or not {"sha256", "size"} <= set(entry):
        raise ValueError(f"{name!r:.80} lacks sha256 or size")


def verify(folder: str | os.PathLike[str]) -> None:
    """Check every file of a model folder against its manifest: first the sizes, then the sha256.

    Raises
    ------
    WeightsError
        Naming the first file that is missing, not listed, or of another size or content.
    """
    folder = Path(folder)
    files = read_manifest(folder)["files"]
    _check_list(folder, files)
    for name, entry in files.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise WeightsError(f"{folder / MANIFEST} lists {name}, which lies outside the folder")
        if not path.is_file():
            raise WeightsError(f"{path} is missing; {remedy(folder)}")
        if path.stat().st_size != entry["size"]:
            raise WeightsError(
                f"{path} has {path.stat().st_size} bytes, not {entry['size']!r:.40}; {remedy(folder)}"
            )
    for name, entry in files.items():
        if sha256(folder / name) != entry["sha256"]:
            raise WeightsError(
                f"{folder / name} is corrupt: its sha256 is not the manifest's; {remedy(folder)}"
            )


def _check_list(folder: Path, files: dict[str, Any]) -> None:
    """Raise for a needed file that is not listed, and for one that is not and would be read all the same."""
    text = [
        path.relative_to(folder).as_posix()
        for path in sorted((folder / TEXT).rglob("*"))
        if not path.is_dir() and not path.name.startswith(".")
    ]
    has_text = bool(text) or any(Path(name).parts[:1] == (TEXT,) for name in files)
    for required in REQUIRED + TEXT_REQUIRED * has_text:
        if required not in files:
            raise WeightsError(f"{folder / MANIFEST} does not list {required}; {remedy(folder)}")
    for name in text:
        if name not in files:
            raise WeightsError(
                f"{folder / MANIFEST} does not list {name!r:.300}, which lies there: remove that file"
            )


def sha256(path: Path) -> str:
    """Hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path, model: str, **about: Any) -> None:
    """List every file of `folder` with size and sha256 in its ``manifest.json``."""
    files = {
        str(path.relative_to(folder)): {"sha256": sha256(path), "size": path.stat().st_size}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (MANIFEST, "README.md")
    }
    text = json.dumps({"model": model, **about, "files": files}, indent=2) + "\n"
    (folder / MANIFEST).write_text(text)
