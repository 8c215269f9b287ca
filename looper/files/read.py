"""Recordings as arrays: by libsndfile, what that does not know (m4a, aac, wma ...) by ffmpeg; and arrays for pydub."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import tempfile
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    pass

LONGEST_SECONDS = 3600
FFMPEG_SECONDS = 300  # an hour of music takes it a few


def read(file: pathlib.Path) -> tuple[np.ndarray, int]:
    """Samples float32 [T] or [T, C] within -1..1, and the sample rate.

    Raises
    ------
    ValueError
        If there is no such file, it is no recording, it has over two channels, it lasts over an hour, or only
        ffmpeg could read it and that is not installed or does not come to an end.

    Examples
    --------
    >>> read(pathlib.Path("missing.wav"))
    Traceback (most recent call last):
    ...
    ValueError: no such file: missing.wav
    """
    if file.is_dir():
        raise ValueError(f"{file} is a folder: name one recording")
    if not file.exists():
        raise ValueError(f"no such file: {file}")
    if not file.is_file():  # a device or a pipe may have no end
        raise ValueError(f"{file} is no regular file: name one recording")
    samples, sample_rate = _by_libsndfile(file, file) or _by_ffmpeg(file)
    if samples.ndim == 2 and samples.shape[1] > 2:
        raise ValueError(f"{file} has {samples.shape[1]} channels: mix it down to mono or stereo first")
    return samples, sample_rate


def _by_libsndfile(sound: pathlib.Path, file: pathlib.Path) -> tuple[np.ndarray, int] | None:
    """What libsndfile reads from `sound`, None where it can't; errors name `file`."""
    import soundfile

    try:
        with soundfile.SoundFile(sound) as opened:
            if opened.frames > LONGEST_SECONDS * opened.samplerate:
                raise ValueError(
                    f"{file} lasts {opened.frames / opened.samplerate:.0f} s: cut out an hour at most first"
                )
            return opened.read(dtype="float32"), opened.samplerate
    except (soundfile.LibsndfileError, TypeError):  # TypeError: what ends in .raw has no header
        return None


def _by_ffmpeg(file: pathlib.Path) -> tuple[np.ndarray, int]:
    with tempfile.TemporaryDirectory(prefix="looper-ffmpeg-") as scratch:
        # Sony Wave64: WAV ends at 4 GiB
        sound, said = pathlib.Path(scratch) / "sound.w64", pathlib.Path(scratch) / "said.txt"
        _run_ffmpeg(file, sound, said)
        if read := _by_libsndfile(sound, file):
            return read
        words = said.read_text(errors="replace").strip().splitlines()
    why = "".join(c if c.isprintable() else " " for c in words[-1])[:200] if words else "no sound came of it"
    raise ValueError(f"{file} is not a recording that libsndfile or ffmpeg can read: {why}")


def _run_ffmpeg(file: pathlib.Path, sound: pathlib.Path, said: pathlib.Path) -> None:
    """Let ffmpeg write the first audio track of `file` to `sound`, and what it complains of to `said`."""
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        raise ValueError(
            f"{file} is not a recording that libsndfile can read (WAV, FLAC, OGG, MP3, AIFF): install ffmpeg, "
            "which reads more, or convert it to WAV or FLAC first"
        )
    command = [
        *(ffmpeg, "-nostdin", "-v", "error"),
        *("-protocol_whitelist", "file", "-i", f"file:{file}"),  # a playlist may not reach for the network
        *("-map", "0:a:0", "-t", str(LONGEST_SECONDS + 1), "-c:a", "pcm_f32le", "-f", "w64", str(sound)),
    ]
    try:
        # not through pipes: a child of ffmpeg's could hold one open after its end
        with said.open("wb") as words:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=words,
                timeout=FFMPEG_SECONDS,
            )
    except subprocess.TimeoutExpired:
        raise ValueError(
            f"ffmpeg was still reading {file} after {FFMPEG_SECONDS} s and was stopped: convert it to WAV or FLAC first"
        ) from None
    except OSError as error:
        raise ValueError(f"{file} needs ffmpeg, and {ffmpeg} cannot be run: {error.strerror}") from error
    if done.returncode:
        sound.unlink(missing_ok=True)  # it may hold half of the music
