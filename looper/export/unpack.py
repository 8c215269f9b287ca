"""From a prediction's reply to files: the loops decoded or downloaded, checked and named as `looper make` names them."""

from __future__ import annotations

import base64
import binascii
import re
import urllib.parse
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from looper.export.names import stem
from looper.export.reply import SAVE_AS_IT_CAME, RemoteLoop, read_reply
from looper.files.atomic import deliver_new
from looper.files.text import numbered

if TYPE_CHECKING:
    import httpx
    import soundfile

MOST_FILE_BYTES = 2**28  # 20 s as WAV are 1.3 MB
MOST_BYTES = 2**31
TIMEOUT = 30.0  # seconds without a byte

_SUFFIXES = {"WAV": "wav", "WAVEX": "wav", "MP3": "mp3", "MPEG": "mp3", "FLAC": "flac", "OGG": "ogg"}
_COMMENT = re.compile(  # as `Loop.tags` writes it; the prompt may hold anything
    r"prompt: (?P<prompt>.*); seed: (?P<seed>\d{1,10}); variation: \d+; .*; bpm: (?P<bpm>\d{1,3}(\.\d{1,17})?); "
    r"bars: (?P<bars>\d{1,3}(\.\d{1,6})?); beats_per_bar: (?P<metre>[1-9]\d?)(?:; key: (?P<key>[A-G]b?(?:min|maj)))?"
)


def unpack(reply: str | bytes, folder: str | Path) -> list[Path]:
    """Write the loops of a reply into `folder`, all of them or none.

    Parameters
    ----------
    reply : str or bytes
        As `looper.export.reply.read_reply` takes it.
    folder : path
        Made if it is not there. A file is called as `looper make` would call it where its own tags say how it
        was made, else by its key in the reply; whatever the reply says, it lies in `folder`. Where another file has
        one of the names, all get a number: "variation_01-2.wav".

    Returns
    -------
    list of Path
        The files in the reply's order.

    Raises
    ------
    ValueError
        If the reply is none of a finished prediction, or one of its loops is broken.
    OSError
        If a URL cannot be reached, or the folder cannot be written to.
    """
    loops = read_reply(reply)
    with ExitStack() as stack:
        contents, client, total = [], None, 0
        for loop in loops:
            if loop.uri.startswith("data:"):
                content = _decode(loop)
            else:
                client = client or stack.enter_context(_client())
                content = _download(loop, client)
            total += len(content)
            if total > MOST_BYTES:
                raise ValueError(
                    f"the files of this reply are over {MOST_BYTES / 1e9:.1f} GB: no set of loops is"
                )
            contents.append(content)
    names = [Path(name) for name in _names(loops, contents)]
    named = lambda number: [Path(folder) / f"{numbered(name.stem, number)}{name.suffix}" for name in names]
    return deliver_new(named, contents)


def _decode(loop: RemoteLoop) -> bytes:
    """The bytes of a data URI."""
    head, comma, body = loop.uri.partition(",")
    if not comma or not head.endswith(";base64"):
        raise ValueError(f"{loop.name} is a broken data URI (no base64 in it): {SAVE_AS_IT_CAME}")
    if len(body) > MOST_FILE_BYTES * 4 // 3:
        raise ValueError(_too_large(loop))
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{loop.name} is a broken data URI ({error}): {SAVE_AS_IT_CAME}") from None


def _client() -> httpx.Client:
    import httpx

    return httpx.Client(timeout=TIMEOUT, follow_redirects=True, headers={"accept-encoding": "identity"})


def _download(loop: RemoteLoop, client: httpx.Client) -> bytes:
    """The bytes behind a URL."""
    import httpx

    where = _shown(loop.uri)
    try:
        with client.stream("GET", loop.uri) as response:
            if response.status_code >= 400:
                raise OSError(
                    f"{loop.name}: {where} answers {response.status_code} {response.reason_phrase}: such links last "
                    "for an hour on Replicate; make the prediction again, then unpack its reply at once"
                )
            content = bytearray()
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > MOST_FILE_BYTES:
                    raise ValueError(_too_large(loop))
            return bytes(content)
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        why = str(error) or type(error).__name__
        raise OSError(
            f"{loop.name}: {where} cannot be reached ({why:.200}): check the network and the address, then run the "
            "command again"
        ) from error


def _shown(url: str) -> str:
    """`url` without what may be secret in it, to be printed."""
    try:
        parts = urllib.parse.urlsplit(url)
        bare = urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    except ValueError:
        bare = url
    return "".join(c for c in bare if c.isprintable())[:200]


def _too_large(loop: RemoteLoop) -> str:
    return f"{loop.name} is over {MOST_FILE_BYTES / 1e6:.0f} MB, and no loop is: refusing it"


def _names(loops: Sequence[RemoteLoop], contents: Sequence[bytes]) -> list[str]:
    """One name a file, in any case of letters; two loops with the same tags keep their keys in the reply."""
    names = [_name(loop, content) for loop, content in zip(loops, contents, strict=True)]
    taken = [name.lower() for name in names]
    names = [
        name if taken.count(name.lower()) == 1 else f"{loop.name}{Path(name).suffix}"
        for loop, name in zip(loops, names, strict=True)
    ]
    seen: Counter[str] = Counter()
    for k, name in enumerate(names):
        while seen[names[k].lower()]:  # "a" and "A" are one file on some disks
            seen[name.lower()] += 1
            names[k] = f"{numbered(Path(name).stem, seen[name.lower()])}{Path(name).suffix}"
        seen[names[k].lower()] += 1
    return names


def _name(loop: RemoteLoop, content: bytes) -> str:
    """As `looper make` would call it if its tags tell, else its name in the reply."""
    import soundfile

    try:
        with soundfile.SoundFile(BytesIO(content)) as opened:
            suffix = _suffix(loop, opened)
            said = _COMMENT.fullmatch(opened.comment)
            short = suffix == "wav" and len(content) < 8 + int.from_bytes(content[4:8], "little")
    except (soundfile.LibsndfileError, TypeError):
        raise ValueError(f"{loop.name} is no WAV, MP3, FLAC or Ogg file: {SAVE_AS_IT_CAME}") from None
    if short:
        raise ValueError(f"{loop.name} is cut short: {SAVE_AS_IT_CAME}")
    return f"{_stem(said) + f'_{loop.number:02d}' if said and loop.number else loop.name}.{suffix}"


def _suffix(loop: RemoteLoop, opened: soundfile.SoundFile) -> str:
    if opened.format not in _SUFFIXES or not opened.frames:
        raise ValueError(
            f"{loop.name} holds {opened.format} with {opened.frames} samples, which is no loop of this model"
        )
    return _SUFFIXES[opened.format]


def _stem(said: re.Match[str]) -> str:
    beats_per_bar = int(said["metre"])
    return stem(
        said["prompt"],
        float(said["bpm"]),
        round(float(said["bars"]) * beats_per_bar),
        beats_per_bar,
        key=said["key"],
        seed=int(said["seed"]),
    )
