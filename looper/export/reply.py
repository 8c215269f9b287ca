"""What a prediction's reply holds: the address of each loop, a data URI or a URL, by its name."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

MOST_REPLY_BYTES = 2**30  # 20 loops of 20 s are 34 MB
MOST_LOOPS = 100
SAVE_AS_IT_CAME = "save the server's answer as it came, for example with `curl ... > reply.json`"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True)
class RemoteLoop:
    """One loop of a reply.

    Attributes
    ----------
    name : str
        Its key in the reply, such as "variation_01": letters, digits, hyphens and underscores alone.
    uri : str
        Where its file is: a data URI or an http(s) URL.
    """

    name: str
    uri: str

    @property
    def number(self) -> int:
        """The variation's number, from 1; 0 where the name has none."""
        found = re.search(r"(\d+)$", self.name)
        return int(found[1]) if found else 0


def read_reply(text: str | bytes) -> list[RemoteLoop]:
    """The loops of a reply: Cog's or Replicate's prediction object, or what `cog predict` prints.

    Parameters
    ----------
    text : str or bytes
        JSON: {"output": {"variation_01": "data:...", "variation_02": null, ...}}, or the inner object alone.

    Returns
    -------
    list of RemoteLoop
        At least one; outputs that are null are left out.

    Raises
    ------
    ValueError
        If it is no such thing, the prediction failed or is not over yet, saying what to do.

    Examples
    --------
    >>> read_reply('{"output": {"variation_01": "https://example.org/1.wav", "variation_02": null}}')
    [RemoteLoop(name='variation_01', uri='https://example.org/1.wav')]
    """
    output = _output(_parse(text))
    loops = [_loop(name, uri) for name, uri in output.items() if uri is not None]
    if not loops:
        raise ValueError("there are no loops in this reply: all of its outputs are null")
    if len(loops) > MOST_LOOPS:
        raise ValueError(
            f"this reply holds {len(loops)} files, and at most {MOST_LOOPS} are unpacked: split it"
        )
    return loops


def _parse(text: str | bytes) -> Any:
    if not text.strip():
        raise ValueError(f"the reply is empty: {SAVE_AS_IT_CAME}")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ValueError(f"this is no JSON ({why:.120}): {SAVE_AS_IT_CAME}") from None


def _output(reply: Any) -> dict[str, Any]:
    """The object of loops within `reply`, or a complaint about what it says instead."""
    if not isinstance(reply, dict):
        raise ValueError(f"this reply is no JSON object but {_kind(reply)}: {SAVE_AS_IT_CAME}")
    status = reply.get("status")
    if status in ("failed", "canceled", "aborted"):
        said = f": {_short(reply['error'])}" if reply.get("error") else ""
        raise ValueError(
            f"the prediction {'failed' if status == 'failed' else 'was canceled'}{said}; ask for it again"
        )
    if status in ("starting", "processing"):
        raise ValueError(
            f"the prediction is not over yet (status {status}): fetch its reply again when it has succeeded"
        )
    if "detail" in reply and "output" not in reply:
        raise ValueError(
            f"the server refused the request: {_short(reply['detail'])}; correct its input and ask again"
        )
    output = reply.get("output", reply)
    if not isinstance(output, dict):
        raise ValueError(
            f"the reply's output is no object of loops but {_kind(output)}: is it another model's?"
        )
    return output


def _loop(name: str, uri: Any) -> RemoteLoop:
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"the reply names a file {_short(name)!r}, which no file here may be called: names have letters, digits, "
            "hyphens and underscores alone. Nothing was written; do not trust where this reply comes from"
        )
    if not isinstance(uri, str) or not uri.startswith(("data:", "http://", "https://")):
        raise ValueError(
            f"{name} is neither a data URI nor an http(s) URL but {_short(uri)!r}: this is not the reply of a "
            f"prediction; {SAVE_AS_IT_CAME}"
        )
    return RemoteLoop(name, uri)


def _kind(value: Any) -> str:
    names = {type(None): "null", list: "a list", str: "a text", bool: "a truth value", dict: "an object"}
    return names.get(type(value), "a number")


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    line = "".join(c if c.isprintable() else " " for c in text)
    return line if len(line) <= 300 else f"{line[:299]}…"
