"""The chunks that tell a sampler or a DAW what a WAV file is: a loop of so many beats.

Appended after the audio: `smpl` (loop points), `acid` (beats, metre, tempo), `cue ` with labels (one
per bar) and LIST/INFO (text). Layouts: Microsoft RIFF MCI new multimedia standards 1994 for `smpl`,
`cue ` and LIST; `acid` as read by libsndfile and Sony ACID.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

_ACID_LOOP = 0  # bit 0 set would mean a one-shot
_ACID_ROOT_SET = 0x02
_ACID_STRETCH = 0x04


def chunk(name: bytes, payload: bytes) -> bytes:
    r"""Make a RIFF chunk, padded to an even length as the format asks.

    Examples
    --------
    >>> chunk(b"note", b"abc")
    b'note\x03\x00\x00\x00abc\x00'
    """
    return name + struct.pack("<I", len(payload)) + payload + b"\0" * (len(payload) % 2)


def smpl(n: int, sample_rate: int) -> bytes:
    """Loop the whole file for ever; the last sample named is the last one played.

    Examples
    --------
    >>> smpl(64_000, 32_000)[:4], len(smpl(64_000, 32_000))
    (b'smpl', 68)
    """
    header = struct.pack("<9I", 0, 0, round(1e9 / sample_rate), 60, 0, 0, 0, 1, 0)
    return chunk(b"smpl", header + struct.pack("<6I", 0, 0, 0, n - 1, 0, 0))


def acid(beats: int, bpm: float, beats_per_bar: int, root: int | None = None) -> bytes:
    """Beats, metre and tempo; `root` is the key's MIDI note when it is known.

    Examples
    --------
    >>> acid(16, 124.0, 4)[:4], len(acid(16, 124.0, 4))
    (b'acid', 32)
    """
    flags = _ACID_LOOP | _ACID_STRETCH | (_ACID_ROOT_SET if root is not None else 0)
    note = 60 if root is None else root
    return chunk(b"acid", struct.pack("<IHHfIHHf", flags, note, 0x8000, 0.0, beats, 4, beats_per_bar, bpm))


def cues(starts: Sequence[int]) -> bytes:
    """Set a cue point at each sample of `starts`, labelled "bar 1", "bar 2" ...

    Examples
    --------
    >>> b"bar 2" in cues([0, 62_000])
    True
    """
    points = b"".join(
        struct.pack("<II4sIII", k, start, b"data", 0, 0, start) for k, start in enumerate(starts, 1)
    )
    labels = b"".join(
        chunk(b"labl", struct.pack("<I", k) + f"bar {k}".encode() + b"\0") for k in range(1, len(starts) + 1)
    )
    return chunk(b"cue ", struct.pack("<I", len(starts)) + points) + chunk(b"LIST", b"adtl" + labels)


def info(texts: Mapping[str, str]) -> bytes:
    r"""LIST/INFO with one UTF-8 text for each four-letter name, such as INAM or ICMT.

    Examples
    --------
    >>> info({"INAM": "deep house", "ICMT": ""})
    b'LIST\x18\x00\x00\x00INFOINAM\x0b\x00\x00\x00deep house\x00\x00'
    """
    entries = b"".join(chunk(name.encode(), text.encode() + b"\0") for name, text in texts.items() if text)
    return chunk(b"LIST", b"INFO" + entries)


def append(wav: bytes, chunks: Sequence[bytes]) -> bytes:
    r"""`wav` with `chunks` after its audio and the RIFF size put right.

    Examples
    --------
    >>> wav = append(b"RIFF\x04\0\0\0WAVE", [chunk(b"note", b"ab")])
    >>> len(wav) - 8 == int.from_bytes(wav[4:8], "little")
    True
    """
    body = wav + b"\0" * (len(wav) % 2) + b"".join(chunks)
    return body[:4] + struct.pack("<I", len(body) - 8) + body[8:]
