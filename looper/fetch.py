"""Fetch published models from the Hugging Face hub, pinned, and convert them.

``weights/sources.json`` names each repository's revision and, per file, size and sha256. What it does
not know yet (null) is recorded from the first fetch, and every later one must match.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from looper.convert import convert
from looper.weights import SOURCES, WeightsError, fetchable, read_sources, sha256, verify, weights_root

if TYPE_CHECKING:
    from huggingface_hub import HfApi


def fetch(
    name: str,
    root: Path | None = None,
    revision: str | None = None,
    progress: Callable[[str], None] = print,
) -> Path:
    """Fetch a published model, check it, convert it to a model folder and verify that.

    Parameters
    ----------
    name : str
        "medium" or "large".
    root : path, optional
        Weights root; default as `looper.weights.weights_root`.
    revision : str, optional
        Commit of the model's repository, instead of the pinned one; its files are not held against
        the pins, nor recorded.
    progress : callable
        Takes a line about each thing done; huggingface_hub draws its own bars for the downloads.

    Returns
    -------
    pathlib.Path
        The model folder. A folder that was there is replaced only when the new one is complete.

    Raises
    ------
    WeightsError
        If the model is unknown, the hub can't be reached, or a file is not the pinned one.
    """
    root = Path(root) if root is not None else weights_root()
    if name not in fetchable():
        raise WeightsError(f"unknown model {name!r}: `looper weights get` knows {', '.join(fetchable())}")
    sources = read_sources(root)
    repositories = sources["models"][name]
    root.mkdir(parents=True, exist_ok=True)
    used = {}
    with tempfile.TemporaryDirectory(dir=root, prefix=f".{name}-fetch-") as scratch:
        for part, repository in repositories.items():
            pin = sources["repositories"][repository]
            if revision and part == "published":
                pin = {"revision": revision, "files": {file: {} for file in pin["files"]}}
            used[repository] = _download(repository, pin, Path(scratch) / part, progress)
        progress(f"converting to {root / name}")
        out = convert(Path(scratch) / "published", Path(scratch) / "t5", root / name, {"source": used})
    verify(out)
    if revision is None:
        sources["repositories"].update(used)
        (root / SOURCES).write_text(json.dumps(sources, indent=2) + "\n")
    progress(f"{name} is ready in {out}")
    return out


def _download(
    repository: str, pin: dict[str, Any], folder: Path, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Download a repository's pinned files to `folder`; return the pin with nothing left unknown."""
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    try:
        info = api.model_info(repository, revision=pin["revision"], files_metadata=True)
        if pin["revision"] and info.sha != pin["revision"]:
            raise WeightsError(f"{repository}: the hub gave revision {info.sha}, not {pin['revision']}")
        hub = {sibling.rfilename: sibling for sibling in info.siblings or []}
        files = {}
        for file, known in pin["files"].items():
            if file not in hub:
                raise WeightsError(f"{repository} at {info.sha} has no {file}")
            lfs = hub[file].lfs
            expected = known.get("sha256") or (lfs.sha256 if lfs else None)
            progress(f"fetching {repository}/{file}")
            files[file] = _download_file(api, repository, file, str(info.sha), folder)
            wrong = expected is not None and files[file]["sha256"] != expected
            if wrong or known.get("size") not in (None, files[file]["size"]):
                raise WeightsError(f"{repository}/{file} at {info.sha} is not the pinned file: refusing it")
    except (HfHubHTTPError, httpx.HTTPError, OSError) as error:
        raise WeightsError(
            f"could not fetch {repository}: {error}. Check the network, then run the command again"
        ) from error
    return {"revision": info.sha, "files": files}


def _download_file(api: HfApi, repository: str, file: str, revision: str, folder: Path) -> dict[str, Any]:
    path = Path(api.hf_hub_download(repository, file, revision=revision, local_dir=folder))
    return {"size": path.stat().st_size, "sha256": sha256(path)}
