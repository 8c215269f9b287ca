"""Where models lie and where published ones come from: the weights root and its ``sources.json``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from looper.runtime import paths

SOURCES = "sources.json"


def weights_root() -> Path:
    """Folder of the models: ``$LOOPER_WEIGHTS``, else the checkout's ``weights/``, else the user's data folder.

    Raises
    ------
    WeightsError
        If it is there and no folder.
    """
    root = Path(os.environ.get("LOOPER_WEIGHTS") or paths.fetched_weights()).expanduser()
    if root.exists() and not root.is_dir():
        raise WeightsError(f"{root} is not a folder: set LOOPER_WEIGHTS to the one that holds the models")
    return root


def read_sources(root: Path | None = None) -> dict[str, Any]:
    """Read where published models come from: ``models``, and ``repositories`` with their pins."""
    for folder in (root or weights_root(), paths.WEIGHTS):
        if (path := folder / SOURCES).is_file():
            try:
                sources: dict[str, Any] = json.loads(path.read_text())
                if sources["models"].keys() and sources["repositories"].keys():
                    return sources
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise WeightsError(f"{path} is damaged ({error}): get it back from the repository") from error
    return {"models": {}, "repositories": {}}


def fetchable() -> list[str]:
    """Names of the models that `looper weights get` knows."""
    return sorted(read_sources()["models"])


class WeightsError(RuntimeError):
    """A model folder is missing, broken or unsupported; the message names it and the remedy.

    Examples
    --------
    >>> from looper.checkpoints.store import find
    >>> find("nothing")
    Traceback (most recent call last):
    ...
    looper.checkpoints.sources.WeightsError: unknown model 'nothing'...
    """


def remedy(folder: str | os.PathLike[str]) -> str:
    """Say what puts a broken model folder right."""
    name = Path(folder).name
    if name == "tiny":
        return "install looper again" if paths.INSTALLED else "mend it with `git checkout -- weights/tiny`"
    if name in fetchable():
        return f"mend it with `looper weights get {name}`"
    return "export or copy the folder again"
