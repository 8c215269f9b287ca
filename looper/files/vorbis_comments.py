"""More Vorbis comments in a FLAC or Ogg Vorbis file than libsndfile writes: BPM, KEY, LOOPSTART, LOOPLENGTH.

References
----------
https://xiph.org/vorbis/doc/v-comment.html (comments), RFC 9639 section 8 (FLAC's blocks), RFC 3533 section 6 (Ogg's
pages).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

_COMMENT_BLOCK, _LAST = 4, 0x80
_PAGE = struct.Struct("<4sBBqIIIB")
_CONTINUED = 0x01
_MOST_SEGMENTS = 255


def extended(block: bytes, texts: Mapping[str, str]) -> bytes:
    r"""A block of comments with `texts` after those that it has.

    Examples
    --------
    >>> extended(b"\0\0\0\0" + b"\0\0\0\0", {"BPM": "124"})
    b'\x00\x00\x00\x00\x01\x00\x00\x00\x07\x00\x00\x00BPM=124'
    """
    at = 4 + struct.unpack_from("<I", block)[0]  # after the name of the encoder
    count = struct.unpack_from("<I", block, at)[0]
    end = at + 4
    for _ in range(count):
        end += 4 + struct.unpack_from("<I", block, end)[0]
    more = b"".join(
        struct.pack("<I", len(line)) + line
        for line in (f"{name}={text}".encode() for name, text in texts.items())
    )
    return block[:at] + struct.pack("<I", count + len(texts)) + block[at + 4 : end] + more + block[end:]


def into_flac(data: bytes, texts: Mapping[str, str]) -> bytes:
    """A FLAC file, with a comment block as libsndfile writes one, and `texts` in it.

    Examples
    --------
    >>> import io, soundfile
    >>> file = io.BytesIO()
    >>> soundfile.write(file, [0.0] * 1000, 32_000, format="FLAC")
    >>> b"BPM=124" in into_flac(file.getvalue(), {"BPM": "124"})
    True
    """
    at, out, head = 4, [data[:4]], 0
    while not head & _LAST:
        head, size = data[at], int.from_bytes(data[at + 1 : at + 4], "big")
        body = data[at + 4 : at + 4 + size]
        if head & ~_LAST == _COMMENT_BLOCK:
            body = extended(body, texts)
        out.append(bytes([head]) + len(body).to_bytes(3, "big") + body)
        at += 4 + size
    return b"".join([*out, data[at:]])


@dataclass(frozen=True)
class _Page:
    """One page of an Ogg stream: flags, position, number of the stream and of the page, segments."""

    flags: int
    position: int
    stream: int
    number: int
    segments: tuple[bytes, ...]

    @property
    def encoded(self) -> bytes:
        """The page with its checksum."""
        table = bytes(map(len, self.segments))
        head = _PAGE.pack(b"OggS", 0, self.flags, self.position, self.stream, self.number, 0, len(table))
        page = head + table + b"".join(self.segments)
        return page[:22] + struct.pack("<I", _checksum(page)) + page[26:]


def _pages(data: bytes) -> Iterator[tuple[_Page, int]]:
    """Each page and where it ends."""
    at = 0
    while at < len(data):
        _, _, flags, position, stream, number, _, count = _PAGE.unpack_from(data, at)
        at += _PAGE.size
        sizes, at = data[at : at + count], at + count
        segments = []
        for size in sizes:
            segments.append(data[at : at + size])
            at += size
        yield _Page(flags, position, stream, number, tuple(segments)), at


@lru_cache(maxsize=1)
def _crc_table() -> tuple[int, ...]:
    """Ogg's polynomial, highest bit first."""
    table = []
    for byte in range(256):
        value = byte << 24
        for _ in range(8):
            value = (value << 1 ^ 0x04C11DB7 if value & 0x80000000 else value << 1) & 0xFFFFFFFF
        table.append(value)
    return tuple(table)


def _checksum(page: bytes) -> int:
    table, value = _crc_table(), 0
    for byte in page:
        value = (value << 8 & 0xFFFFFFFF) ^ table[value >> 24 ^ byte]
    return value


def _segments(packet: bytes) -> list[bytes]:
    """A packet laced: pieces of 255 bytes, and a shorter one, be it empty, that ends it."""
    return [packet[first : first + 255] for first in range(0, len(packet) + 1, 255)]


def into_ogg(data: bytes, texts: Mapping[str, str]) -> bytes:
    """An Ogg Vorbis file with `texts` among its comments; pages are numbered anew where their count changes.

    Examples
    --------
    >>> import io, soundfile
    >>> file = io.BytesIO()
    >>> soundfile.write(file, [0.0] * 1000, 32_000, format="OGG")
    >>> b"BPM=124" in into_ogg(file.getvalue(), {"BPM": "124"})
    True
    """
    pages = _pages(data)
    first, start = next(pages)
    laced: list[bytes] = []
    rest, last = start, first
    while sum(len(segment) < 255 for segment in laced) < 2:  # comments and codebooks end a page together
        last, rest = next(pages)
        laced += last.segments
    ends = next(k for k, segment in enumerate(laced) if len(segment) < 255) + 1
    packet = b"".join(laced[:ends])  # 7 bytes of name, the block, a framing bit
    laced = [*_segments(packet[:7] + extended(packet[7:-1], texts) + packet[-1:]), *laced[ends:]]
    heads = _paged(laced, first)
    if len(heads) == last.number:
        tail = data[rest:]
    else:
        shift = len(heads) - last.number
        tail = b"".join(replace(page, number=page.number + shift).encoded for page, _ in pages)
    return data[:start] + b"".join(page.encoded for page in heads) + tail


def _paged(laced: list[bytes], first: _Page) -> list[_Page]:
    """Segments on as few pages as hold them, numbered after `first`; on no page that ends no packet is a position."""
    pages = []
    for number, start in enumerate(range(0, len(laced), _MOST_SEGMENTS), 1):
        segments = tuple(laced[start : start + _MOST_SEGMENTS])
        goes_on = start > 0 and len(laced[start - 1]) == 255
        ended = any(len(segment) < 255 for segment in segments)
        flags = _CONTINUED if goes_on else 0
        pages.append(_Page(flags, 0 if ended else -1, first.stream, number, segments))
    return pages
