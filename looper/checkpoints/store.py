"""Model folders on disk: find them and check them.

A folder ``weights/<name>/`` holds ``lm.safetensors``, ``codec.safetensors``, ``config.yaml``, for
text models a T5 encoder in ``t5/``, and ``manifest.json`` with the size and sha256 of every file.
Nothing here imports torch: looking at weights must stay quick.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from looper.checkpoints.config import LARGEST_TEXT
from looper.checkpoints.manifest import MANIFEST
from looper.checkpoints.sources import WeightsError, fetchable, weights_root
from looper.runtime import paths


def find(name_or_folder: str | os.PathLike[str]) -> Path:
    """Resolve a model name ("tiny", "medium", "melody" ...) or a folder to a model folder.

    Parameters
    ----------
    name_or_folder : str or path
        A folder that holds a manifest, or a name under the weights root, or of what comes with looper.

    Returns
    -------
    pathlib.Path
        The folder; it has a manifest, whose files are not checked yet (see `verify`).

    Raises
    ------
    WeightsError
        If there is no such model.
    """
    given = str(name_or_folder)
    for folder in (Path(given).expanduser(), weights_root() / given, paths.WEIGHTS / given):
        with suppress(OSError):  # a name that no file can have
            if given and (folder / MANIFEST).is_file():
                return folder
    if given in fetchable():
        raise WeightsError(
            f"no weights for {given!r} in {weights_root() / given}: run `looper weights get {given}`"
        )
    known = ", ".join(sorted({*list_models(), *fetchable()})) or "none"
    raise WeightsError(
        f"unknown model {given!r:.200}: neither a folder with a {MANIFEST} nor one of: {known}. "
        "Set LOOPER_WEIGHTS if the weights live elsewhere."
    )


def takes_melody(folder: Path) -> bool:
    """Whether the config of a model folder asks for melodies; loading it checks the rest."""
    file = folder / "config.yaml"
    try:
        if not file.is_file():  # a pipe or a device may have no end
            return True
        with file.open() as config:
            return "chroma_stem" in config.read(LARGEST_TEXT)
    except (OSError, UnicodeDecodeError):
        return True  # what is wrong with it is said when it is loaded


def list_models(root: Path | None = None) -> list[str]:
    """Names of the model folders under the weights root; if nobody named one, of what comes with looper too."""
    roots = [root or weights_root()]
    if root is None and not os.environ.get("LOOPER_WEIGHTS"):
        roots.append(paths.WEIGHTS)
    return sorted({manifest.parent.name for place in roots for manifest in place.glob(f"*/{MANIFEST}")})
