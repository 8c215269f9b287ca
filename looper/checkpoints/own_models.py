"""Models that are not ours to name: a folder on this disk or a repository of the hub, under a name of one's own.

Two formats are known: audiocraft's export (`state_dict.bin`, `compression_state_dict.bin`) and Hugging Face's (see
`huggingface`). What comes from the hub is of one revision, which stands in the model's manifest.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from looper.checkpoints.convert import PUBLISHED, T5_FILES, NoCodecError, convert, replace_folder
from looper.checkpoints.fetch import UnfinishedError, alone, download_all, folder_name
from looper.checkpoints.huggingface import INDEX, WHOLE, convert_huggingface, is_huggingface
from looper.checkpoints.manifest import MANIFEST, verify
from looper.checkpoints.sources import WeightsError, fetchable, weights_root

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_WANTED = re.compile(r"model(-\d+-of-\d+)?\.safetensors")


def add_model(
    source: str | os.PathLike[str],
    name: str | None = None,
    root: Path | None = None,
    *,
    t5: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    progress: Callable[[str], None] = print,
) -> Path:
    """Convert a model from a folder or from a repository of the hub, and check it.

    Parameters
    ----------
    source : str or path
        A folder, or "owner/name" of a repository.
    name : str, optional
        What to call it; the last part of `source` by default.
    root : path, optional
        Weights root; default as `looper.checkpoints.store.weights_root`.
    t5 : path, optional
        The text encoder of an audiocraft export, which has none of its own: a model folder or a T5 folder. By
        default that of medium or large, where they are here.
    revision : str, optional
        Commit of the repository; its newest by default.
    progress : callable
        Takes a line about each thing done.

    Returns
    -------
    pathlib.Path
        The model folder.

    Raises
    ------
    WeightsError
        If the name is taken, the model is of another kind, or something is missing or cannot be fetched.
    """
    root = Path(root) if root is not None else weights_root()
    _free_name(name or Path(source).name, root)
    try:
        with alone(root, progress):
            out = root / _free_name(name or Path(source).name, root)  # another may have taken it meanwhile
            if Path(source).is_dir():
                return _from_folder(
                    Path(source), out, t5, {"source": {"folder": str(Path(source).name)}}, progress
                )
            return _from_hub(str(source), out, t5, revision, progress)
    except OSError as error:
        raise WeightsError(f"cannot read {source}, or write to {root}: {error.strerror or error}") from error


def _free_name(name: str, root: Path) -> str:
    if not _NAME.fullmatch(name):
        raise WeightsError(
            f"a model cannot be called {name!r:.80}: letters, digits, dots, hyphens and underscores, with --name"
        )
    if name in (*fetchable(), "tiny"):
        raise WeightsError(f"{name!r} is a model of its own: choose another name with --name")
    if (root / name).exists():
        raise WeightsError(f"{name!r} is here already: choose another --name, or remove {root / name}")
    return name


def _from_folder(
    source: Path,
    out: Path,
    t5: str | os.PathLike[str] | None,
    about: Mapping[str, Any],
    progress: Callable[[str], None],
    weights: Path | None = None,
) -> Path:
    progress(f"converting {source.name}")
    if (source / MANIFEST).is_file():
        raise WeightsError(f"{source} is a model folder already: name it by its path, or copy it to {out}")
    if is_huggingface(source):
        made = convert_huggingface(source, out, about)
    elif all((source / file).is_file() for file in PUBLISHED.values()):
        root = weights if weights is not None else out.parent
        made = _from_export(source, out, _text_encoder(str(source), [source / "t5"], t5, root), about, root)
    else:
        raise WeightsError(
            f"{source} holds no model: neither {' and '.join(PUBLISHED.values())} (audiocraft's export) nor "
            f"config.json with {WHOLE} (Hugging Face's format)"
        )
    verify(made)
    return made


def _from_export(source: Path, out: Path, t5: Path, about: Mapping[str, Any], root: Path) -> Path:
    """Convert an audiocraft export; the codec that it may only name is that of a fetched model, which all share."""
    codecs = (root / name for name in fetchable())
    codec = next((folder for folder in codecs if (folder / "codec.safetensors").is_file()), None)
    try:
        return convert(source, t5, out, dict(about), codec)
    except NoCodecError as error:  # what was downloaded is good
        raise UnfinishedError(f"{error}: run `looper weights get medium` first, whose codec it is") from error


def _text_encoder(source: str, own: list[Path], t5: str | os.PathLike[str] | None, root: Path) -> Path:
    """The T5 folder for an audiocraft export: the one named, its `own`, or that of a fetched model."""
    named = [] if t5 is None else [Path(t5), Path(t5) / "t5"]
    for place in named or [*own, *(root / name / "t5" for name in fetchable())]:
        if (place / "config.json").is_file():
            return place
    if named:
        raise WeightsError(
            f"no text encoder in {t5}: --t5 names a model folder or a T5 folder with a config.json"
        )
    raise WeightsError(
        f"{source} has no text encoder of its own: run `looper weights get medium` first, or name a T5 folder with --t5"
    )


def _from_hub(
    repository: str,
    out: Path,
    t5: str | os.PathLike[str] | None,
    revision: str | None,
    progress: Callable[[str], None],
) -> Path:
    if not _REPOSITORY.fullmatch(repository):
        known = ", ".join(fetchable())
        raise WeightsError(
            f"no model {repository!r:.80}: neither one of {known}, nor a folder, nor a repository as owner/name"
        )
    scratch = out.parent / f".fetch-{out.name}"
    try:
        pins = {repository: _pin(repository, revision)}
        if (
            set(PUBLISHED.values()) <= pins[repository]["files"].keys()
        ):  # before gigabytes are fetched in vain
            t5 = _text_encoder(repository, [], t5, out.parent)
        used = download_all(out.name, pins, scratch, progress)
        fetched = scratch / folder_name(repository, used[repository]["revision"])
        made = _from_folder(
            fetched, scratch / "made" / out.name, t5, {"source": used}, progress, weights=out.parent
        )
    except WeightsError as error:
        if not isinstance(error, UnfinishedError):
            shutil.rmtree(scratch, ignore_errors=True)
        raise
    replace_folder(made, out)
    shutil.rmtree(scratch)
    return out


def _pin(repository: str, revision: str | None) -> dict[str, Any]:
    """The files of a repository that make a model, at a revision."""
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        info = HfApi(endpoint=os.environ.get("HF_ENDPOINT")).model_info(repository, revision=revision)
    except (HfHubHTTPError, OfflineModeIsEnabled, httpx.HTTPError) as error:
        raise UnfinishedError(f"could not ask the hub for {repository}: {error}") from error
    there = {sibling.rfilename for sibling in info.siblings or []}
    if set(PUBLISHED.values()) <= there:
        wanted = {*PUBLISHED.values()}
    else:
        wanted = {name for name in there if _WANTED.fullmatch(name) or name in (*T5_FILES, INDEX)}
    if not any(name.endswith((".bin", ".safetensors")) for name in wanted):
        raise WeightsError(
            f"{repository} has no weights that can be read: neither {' and '.join(PUBLISHED.values())} nor {WHOLE}; "
            "pickles of Hugging Face's format are not opened"
        )
    return {"revision": str(info.sha), "files": {name: {} for name in sorted(wanted)}}
