"""MP3: constant bit rate, gapless to the sample, tagged.

The encoder is the LAME inside libsndfile. ffmpeg's muxer writes a wrong padding into the LAME tag
when the length leaves 1 to 46 samples over a multiple of 1152 (4 % of tempi), and players then add
up to 46 samples to the loop; libsndfile's is right at every length, and needs no second program.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from io import BytesIO

import numpy as np
import soundfile as sf

RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
BIT_RATE = 192_000

_MPEG1_MOST = 320_000


def id3(texts: Mapping[str, str]) -> bytes:
    """Make an ID3v2.3 tag of text frames and, by the name COMM, a comment.

    References
    ----------
    https://id3.org/id3v2.3.0: sections 3.1 (header), 4.2 (text frames), 4.11 (comments).

    Examples
    --------
    >>> id3({"TBPM": "124"})[:3]
    b'ID3'
    """
    frames = b""
    for name, text in texts.items():
        written = text.encode("utf-16")
        # a comment also names its language and has a description, here empty
        start = b"\x01eng" + "".encode("utf-16") + b"\0\0" if name == "COMM" else b"\x01"
        frames += name.encode() + struct.pack(">IH", len(start + written), 0) + start + written
    # the tag's size is written in groups of seven bits, so that no player takes it for a sync word
    size = bytes(len(frames) >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x03\x00\x00" + size + frames


def encode(data: np.ndarray, sample_rate: int, texts: Mapping[str, str]) -> bytes:
    """Encode at 192 kb/s (below 32 kHz the most MPEG-2 allows), with `texts` as ID3 frames.

    Parameters
    ----------
    data : np.ndarray
        int16 [n] or [n, C], C at most 2.
    sample_rate : int
        Hz, one that MPEG audio knows.
    texts : Mapping[str, str]
        By ID3v2 frame: TIT2, TBPM, TKEY, COMM ...

    Raises
    ------
    ValueError
        If MP3 cannot hold such audio.
    RuntimeError
        If this machine's libsndfile was built without MP3.

    Examples
    --------
    >>> len(encode(np.zeros(32_000, np.int16), 32_000, {})) > 20_000
    True
    """
    if sample_rate not in RATES:
        raise ValueError(f"MP3 cannot hold {sample_rate} Hz; choose wav or flac")
    channels = 1 if data.ndim == 1 else data.shape[1]
    if channels > 2:
        raise ValueError(f"MP3 holds one or two channels, got {channels}; choose wav or flac")
    if "MP3" not in sf.available_formats():
        raise RuntimeError(
            f"libsndfile {sf.__libsndfile_version__} was built without MP3: "
            "install soundfile's own wheel with pip, or choose wav"
        )
    # given stereo integers, libsndfile 1.2.2 encodes noise; floating point is right
    data = data.astype(np.float32) / 32768
    level = 1 - BIT_RATE / _MPEG1_MOST if sample_rate >= 32000 else 0.0
    buffer = BytesIO()
    sf.write(
        buffer,
        data,
        sample_rate,
        "MPEG_LAYER_III",
        format="MP3",
        bitrate_mode="CONSTANT",
        compression_level=level,
    )
    return id3(texts) + buffer.getvalue()
