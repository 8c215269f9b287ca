"""Fetch published models from the Hugging Face hub, pinned, and convert them.

``weights/sources.json`` names each repository's revision and, per file, size and sha256. What it does
not know yet (null) is recorded from the first fetch, and every later one must match: where it knows no revision,
the first fetch takes the newest, and says so. Where published files may only name MusicGen's shared codec, the model
names the repository that has it.

Downloads and half-made folders lie in ``.fetch-<name>`` beside the model folder and outlive an
interruption: the next fetch goes on from there, and removes them when it is done.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from looper.checkpoints.convert import PUBLISHED, convert, replace_folder
from looper.checkpoints.download import TIMEOUT, Wanted, download
from looper.checkpoints.manifest import read_manifest, verify
from looper.checkpoints.sources import SOURCES, WeightsError, fetchable, read_sources, weights_root

LOCK = ".fetch.lock"


class UnfinishedError(WeightsError):
    """The fetch could not be ended for now; what came is kept for the next one."""


def fetch(
    name: str,
    root: Path | None = None,
    revision: str | None = None,
    progress: Callable[[str], None] = print,
) -> Path:
    """Fetch a published model, check it, convert it to a model folder and verify that.

    A folder that is whole and of the pinned revision is left as it is, without asking the hub. Fetches
    into one root go one after the other, whichever processes they are in.

    Parameters
    ----------
    name : str
        As in `looper.checkpoints.sources.fetchable`: "medium", "melody", "stereo-large" ...
    root : path, optional
        Weights root; default as `looper.checkpoints.store.weights_root`.
    revision : str, optional
        Commit of the model's repository, instead of the pinned one; its files are not held against
        the pins, nor recorded.
    progress : callable
        Takes a line about each thing done.

    Returns
    -------
    pathlib.Path
        The model folder. A folder that was there is replaced only when the new one is complete.

    Raises
    ------
    WeightsError
        If the model is unknown, the hub can't be reached, the disk has no room or cannot be written
        to, or a file is not the pinned one.
    """
    root = Path(root) if root is not None else weights_root()
    if name not in fetchable():
        raise WeightsError(f"unknown model {name!r}: `looper weights get` knows {', '.join(fetchable())}")
    try:
        with alone(root, progress):
            return _fetch(name, root, revision, progress)
    except OSError as error:
        raise WeightsError(
            f"cannot write to {root}: {error.strerror or error}; make room there, or set LOOPER_WEIGHTS "
            "to a folder that can be written to, and run the command again"
        ) from error


def _fetch(name: str, root: Path, revision: str | None, progress: Callable[[str], None]) -> Path:
    out = root / name
    sources = read_sources(root)
    repositories = sources["models"][name]
    pins = _pins(sources, name, revision)
    if _is_here(out, pins):
        progress(f"{name} is here already, in {out}")
        return out
    for repository, pin in pins.items():
        if pin["revision"] is None:
            progress(
                f"no revision of {repository} is pinned yet: its newest is taken, recorded and held to from then on"
            )
    scratch = root / f".fetch-{name}"
    try:
        used = download_all(name, pins, scratch, progress)
        progress(f"converting to {out}")
        parts = {
            part: scratch / folder_name(repo, used[repo]["revision"]) for part, repo in repositories.items()
        }
        made = convert(
            parts["published"], parts["t5"], scratch / "made" / name, {"source": used}, parts.get("codec")
        )
        verify(made)
    except WeightsError as error:
        if not isinstance(error, UnfinishedError):  # what is refused once will be again
            shutil.rmtree(scratch, ignore_errors=True)
        raise
    replace_folder(made, out)
    if revision is None:
        _record(sources["repositories"], used)
        _write(root / SOURCES, json.dumps(sources, indent=2) + "\n")
    shutil.rmtree(scratch)
    progress(f"{name} is ready in {out}")
    return out


def _pins(sources: dict[str, Any], name: str, revision: str | None) -> dict[str, Any]:
    """What to fetch of each repository of a model, and which files are right; another revision's are not known."""
    repositories = sources["models"][name]
    pins = {
        repository: _pin(part, sources["repositories"][repository])
        for part, repository in repositories.items()
    }
    if revision:
        published = repositories["published"]
        pins[published] = {"revision": revision, "files": {file: {} for file in pins[published]["files"]}}
    return pins


def _pin(part: str, pin: dict[str, Any]) -> dict[str, Any]:
    """What to fetch of a repository for a part of a model: for a codec that file alone."""
    if part != "codec":
        return pin
    return {**pin, "files": {PUBLISHED["codec"]: pin["files"][PUBLISHED["codec"]]}}


def _record(pins: dict[str, Any], used: dict[str, Any]) -> None:
    """Fill in the pins what was not known, or not so, before."""
    for repository, entry in used.items():
        files = {**pins[repository]["files"], **entry["files"]}
        pins[repository] = {**entry, "files": files}


@contextmanager
def alone(root: Path, progress: Callable[[str], None]) -> Iterator[None]:
    """Hold the root's lock; the system drops it with the process, however that ends."""
    from filelock import FileLock, Timeout

    root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(root / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress(f"another fetch into {root} is under way: waiting for it to end")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _is_here(folder: Path, pins: dict[str, Any]) -> bool:
    """Whether `folder` is whole and was made from the pinned files."""
    try:
        source = read_manifest(folder).get("source")
        if not isinstance(source, dict) or not all(_agrees(source.get(r), pin) for r, pin in pins.items()):
            return False
        verify(folder)
    except WeightsError:
        return False
    return True


def _agrees(made_from: Any, pin: Any) -> bool:
    """Whether all that `pin` knows is so in `made_from`; null is what it does not know."""
    if isinstance(pin, dict):
        return isinstance(made_from, dict) and all(_agrees(made_from.get(k), v) for k, v in pin.items())
    return pin is None or made_from == pin


def download_all(
    name: str, pins: dict[str, Any], scratch: Path, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Download all repositories' pinned files; return the pins with nothing left unknown."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # it has no __all__

    used: dict[str, Any] = {}
    repository = ""
    try:
        wanted = []
        for repository, pin in pins.items():
            wanted += _ask(repository, pin)
        folders = {w: scratch / folder_name(w.repository, w.revision) for w in wanted}
        _tidy(scratch, {folder.name for folder in folders.values()})
        _need_room(name, wanted, folders, scratch)
        with httpx.Client(headers=build_hf_headers(), timeout=TIMEOUT, follow_redirects=True) as client:
            for want in wanted:
                repository, path = want.repository, folders[want] / want.name
                path.parent.mkdir(parents=True, exist_ok=True)
                progress(f"fetching {want}")
                entry = used.setdefault(repository, {"revision": want.revision, "files": {}})
                entry["files"][want.name] = download(want, path, client, progress)
    except (HfHubHTTPError, OfflineModeIsEnabled, httpx.HTTPError) as error:
        raise UnfinishedError(
            f"could not fetch {repository}: {error}. Check the network, then run the command again: "
            "it goes on from what it has"
        ) from error
    return used


def _ask(repository: str, pin: dict[str, Any]) -> list[Wanted]:
    """What the hub says of a repository's pinned files, the pins having the last word."""
    from huggingface_hub import HfApi, hf_hub_url

    endpoint = os.environ.get("HF_ENDPOINT")
    try:
        info = HfApi(endpoint=endpoint).model_info(
            repository, revision=pin["revision"], files_metadata=True, timeout=TIMEOUT
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise WeightsError(
            f"{repository}: what the hub says of it makes no sense ({error!r:.200})"
        ) from error
    if not re.fullmatch(r"[0-9a-f]{40}", str(info.sha)):  # it becomes a folder's name
        raise WeightsError(f"{repository}: the hub gave {info.sha!r:.100}, which is no revision")
    if pin["revision"] and info.sha != pin["revision"]:
        raise WeightsError(f"{repository}: the hub gave revision {info.sha}, not {pin['revision']}")
    hub = {sibling.rfilename: sibling for sibling in info.siblings or []}
    wanted = []
    for file, known in pin["files"].items():
        if file not in hub:
            raise WeightsError(f"{repository} at {info.sha} has no {file}")
        says = hub[file]
        wanted.append(
            Wanted(
                repository,
                str(info.sha),
                file,
                hf_hub_url(repository, file, revision=info.sha, endpoint=endpoint),
                known.get("size") or says.size,
                known.get("sha256") or (says.lfs.sha256 if says.lfs else None),
            )
        )
    return wanted


def folder_name(repository: str, revision: str) -> str:
    """The folder that a revision of a repository is downloaded to."""
    return f"{repository.replace('/', '--')}@{revision}"


def _tidy(scratch: Path, keep: set[str]) -> None:
    """Remove what an interrupted fetch left that this one cannot use."""
    for path in scratch.iterdir() if scratch.is_dir() else ():
        if path.name not in keep:
            shutil.rmtree(path)


def _need_room(name: str, wanted: list[Wanted], folders: dict[Wanted, Path], scratch: Path) -> None:
    """Refuse early what the disk can't hold: the rest of the downloads, and as much again converted."""
    total = sum(w.size or 0 for w in wanted)
    kept = sum(path.stat().st_size for w in wanted if (path := folders[w] / w.name).is_file())
    needed, free = 2 * total - min(kept, total), shutil.disk_usage(scratch.parent).free
    if needed > free:
        raise UnfinishedError(
            f"{name} needs {needed / 1e9:.1f} GB free in {scratch.parent} (download and conversion), "
            f"{free / 1e9:.1f} GB are: make room, or set LOOPER_WEIGHTS to a folder on another disk"
        )


def _write(path: Path, text: str) -> None:
    """Write a whole file or none."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    new.replace(path)
