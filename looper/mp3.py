"""MP3 by ffmpeg: constant bit rate, gapless to the sample, tagged."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import soundfile as sf

RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_ENCODE_SECONDS = 300
_SYNCSAFE = (21, 14, 7, 0)


def ffmpeg_path() -> str:
    """Find ffmpeg on PATH, else the one that imageio-ffmpeg brings along.

    Raises
    ------
    RuntimeError
        If there is neither.
    """
    found = shutil.which("ffmpeg")
    if found:
        return found
    try:
        from imageio_ffmpeg import get_ffmpeg_exe

        return get_ffmpeg_exe()
    except (ImportError, RuntimeError, OSError) as error:
        raise RuntimeError("MP3 needs ffmpeg and there is none: install ffmpeg, or choose wav") from error


def _bit_rate(sample_rate: int) -> str:
    """192 kb/s, or the most that MPEG-2 and MPEG-2.5 allow for low sample rates."""
    return "192k" if sample_rate >= 32000 else "160k" if sample_rate >= 16000 else "64k"


def with_comment(mp3: bytes, text: str) -> bytes:
    """Add a COMM frame, which players show, to an ID3v2.3 tag: ffmpeg writes comments as TXXX only."""
    if mp3[:4] != b"ID3\x03":
        return mp3
    payload = b"\x01eng" + "".encode("utf-16") + b"\0\0" + text.encode("utf-16")
    frame = b"COMM" + struct.pack(">IH", len(payload), 0) + payload
    # the tag's size is written in four groups of seven bits
    size = len(frame) + sum(byte << shift for byte, shift in zip(mp3[6:10], _SYNCSAFE, strict=True))
    return mp3[:6] + bytes(size >> shift & 0x7F for shift in _SYNCSAFE) + frame + mp3[10:]


def encode(data: np.ndarray, sample_rate: int, tags: Mapping[str, str]) -> bytes:
    """Encode to MP3 at 192 kb/s constant with a LAME tag, by which players drop delay and padding.

    Parameters
    ----------
    data : np.ndarray
        int16 [n] or [n, C], C at most 2.
    sample_rate : int
        Hz, one that MPEG audio knows.
    tags : Mapping[str, str]
        By ffmpeg's names ("title", "comment") or four-letter ID3v2 frames ("TBPM").

    Raises
    ------
    ValueError
        If MP3 cannot hold such audio.
    RuntimeError
        If ffmpeg is missing or fails.
    """
    if sample_rate not in RATES:
        raise ValueError(f"MP3 cannot hold {sample_rate} Hz; choose wav or flac")
    if data.ndim == 2 and data.shape[1] > 2:
        raise ValueError(f"MP3 holds one or two channels, got {data.shape[1]}; choose wav or flac")
    wav = BytesIO()
    sf.write(wav, data, sample_rate, format="WAV", subtype="PCM_16")
    named = [part for name, text in tags.items() for part in ("-metadata", f"{name}={text}")]
    with TemporaryDirectory(prefix="looper-") as folder:
        # a real file, not a pipe: the LAME tag is written last, at the front
        target = Path(folder) / "loop.mp3"
        options = ["-c:a", "libmp3lame", "-b:a", _bit_rate(sample_rate), "-id3v2_version", "3", *named]
        _run([ffmpeg_path(), "-v", "error", "-i", "pipe:0", *options, str(target)], wav.getvalue())
        content = target.read_bytes()
    return with_comment(content, tags["comment"]) if tags.get("comment") else content


def _run(command: list[str], content: bytes) -> None:
    """Run ffmpeg on `content`, or raise RuntimeError with its last words."""
    try:
        done = subprocess.run(command, input=content, capture_output=True, timeout=_ENCODE_SECONDS)
        problem = done.stderr.decode(errors="replace").strip() if done.returncode else None
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = str(error)
    if problem is not None:
        reason = problem.splitlines()[-1] if problem else "it gave no reason"
        raise RuntimeError(f"ffmpeg ({command[0]}) could not write the MP3: {reason}; choose wav")
