"""Download one file so that an interruption costs nothing: what is there is kept and gone on from.

huggingface_hub starts every broken download again from nothing (its partial files have names of their own
for each process), so the bytes are fetched here, by HTTP range requests.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from looper.checkpoints.manifest import sha256
from looper.checkpoints.sources import WeightsError

if TYPE_CHECKING:
    import httpx

TIMEOUT = 30.0  # seconds without a byte
TRIES = 4  # in a row that bring nothing
SLOW_SECONDS, SLOWEST = 300.0, 1000.0  # a connection that brings fewer bytes a second than that, for so long
LARGEST_UNKNOWN = 2**34  # bytes of a file whose size neither the pin nor the hub tells
PAUSE = 2.0  # seconds before the second of them; the pauses after it grow


@dataclass(frozen=True)
class Wanted:
    """A file of a repository on the hub.

    Attributes
    ----------
    repository, revision, name : str
    url : str
    size : int or None
        Bytes, as pinned or as the hub says.
    sha256 : str or None
        As pinned, or as the hub says; it says nothing about small text files.
    """

    repository: str
    revision: str
    name: str
    url: str
    size: int | None
    sha256: str | None

    def __str__(self) -> str:
        return f"{self.repository}/{self.name}"


def download(
    wanted: Wanted, path: Path, client: httpx.Client, progress: Callable[[str], None]
) -> dict[str, int | str]:
    """Bring `wanted` to `path`, going on from what is there; return its size and sha256.

    What turns out damaged is fetched once more from its first byte; nothing is fetched a third time.

    Raises
    ------
    WeightsError
        If the file that was served is not the wanted one; nothing is left at `path` then.
    httpx.HTTPError
        If the connection cannot be had or kept; what came stays at `path`.
    """
    kept = path.stat().st_size if path.is_file() else 0
    if kept and (wanted.sha256 is None or kept > (wanted.size or kept)):
        path.unlink()  # too long, or nothing would tell whether the pieces fit together
        kept = 0
    for resumed in [True, False] if kept else [False]:
        _complete(wanted, path, client, progress)
        if found := _checked(wanted, path):
            return found
        path.unlink()
        if resumed:
            progress(f"{wanted}: what was kept of it is damaged; fetching it again")
    raise WeightsError(f"{wanted} at {wanted.revision} is not the pinned file: refusing it")


def _checked(wanted: Wanted, path: Path) -> dict[str, int | str] | None:
    """Size and sha256 of the file at `path`; None where it is not the wanted one."""
    size = path.stat().st_size
    if wanted.size not in (None, size):
        return None
    digest = sha256(path)
    return {"size": size, "sha256": digest} if wanted.sha256 in (None, digest) else None


def _complete(wanted: Wanted, path: Path, client: httpx.Client, progress: Callable[[str], None]) -> None:
    """Append to `path` until it has the wanted size, over as many connections as that takes."""
    import httpx

    failed = 0
    while True:
        before = path.stat().st_size if path.is_file() else 0
        if before and before == wanted.size:
            return
        try:
            _receive(wanted, path, client, progress)
            return
        except httpx.TransportError as error:
            came = (path.stat().st_size if path.is_file() else 0) - before
            failed = 0 if came > 0 else failed + 1
            if failed >= TRIES:
                raise
            progress(f"{wanted}: the connection broke off ({error}); going on")
            time.sleep(PAUSE * failed)


def _receive(wanted: Wanted, path: Path, client: httpx.Client, progress: Callable[[str], None]) -> None:
    """Append to `path` what one connection brings."""
    at = path.stat().st_size if path.is_file() else 0
    head = {"Accept-Encoding": "identity", **({"Range": f"bytes={at}-"} if at else {})}
    with client.stream("GET", wanted.url, headers=head) as response:
        fits = response.headers.get("Content-Range", "").startswith(f"bytes {at}-")
        if at and response.status_code in (206, 416) and not fits:  # not the file that was begun
            path.unlink()
            return _receive(wanted, path, client, progress)
        response.raise_for_status()
        _check_origin(wanted, response)
        if at and response.status_code == 206:
            progress(f"{wanted}: going on at {at / 1e6:.0f} MB")
        else:
            at = 0
        with path.open("ab" if at else "wb") as file:
            begun, first = time.monotonic(), at
            for chunk in response.iter_raw():  # as it comes: what unpacks may have no end
                file.write(chunk)
                _tell(wanted, at, at := at + len(chunk), progress)
                if at > (LARGEST_UNKNOWN if wanted.size is None else wanted.size):
                    return None  # it is another file, whatever its hash, and may have no end
                _check_pace(wanted, at - first, time.monotonic() - begun)
    return None


def _check_origin(wanted: Wanted, response: httpx.Response) -> None:
    """Refuse what did not come over TLS all the way, and what would have to be unpacked."""
    packed = response.headers.get("Content-Encoding", "identity")
    if packed.lower() != "identity":
        raise WeightsError(
            f"{wanted} came packed ({packed:.40}) although it was asked for plain: refusing it"
        )
    ways = [str(one.url) for one in (*response.history, response)]
    if wanted.url.startswith("https:") and not all(way.startswith("https:") for way in ways):
        raise WeightsError(f"{wanted} was to come over an open connection ({ways[-1]:.200}): refusing it")


def _check_pace(wanted: Wanted, came: int, seconds: float) -> None:
    """Leave a connection that brings a byte now and then, and so never times out."""
    import httpx

    if seconds > SLOW_SECONDS and came < SLOWEST * seconds:
        raise httpx.RequestError(f"{wanted} comes too slowly: {came / seconds:.0f} bytes a second")


def _tell(wanted: Wanted, before: int, now: int, progress: Callable[[str], None]) -> None:
    """Say each tenth of a large file."""
    if (
        wanted.size
        and wanted.size > 50e6
        and (tenths := 10 * now // wanted.size) > 10 * before // wanted.size
    ):
        progress(f"{wanted}: {10 * tenths} % of {wanted.size / 1e6:.0f} MB")
