"""Recordings as arrays: by libsndfile, what that does not know (m4a, aac, wma ...) by ffmpeg.

A header may claim what it likes: nothing is allocated for it before it is checked here.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import tempfile
from typing import IO, TYPE_CHECKING

import numpy as np

from looper.runtime import children

if TYPE_CHECKING:
    import soundfile

LONGEST_SECONDS = 3600
MOST_CHANNELS = 2
HIGHEST_RATE = 400_000  # Hz
MOST_SAMPLES = LONGEST_SECONDS * 48_000 * MOST_CHANNELS  # over all channels: 1.4 GB as float32
LARGEST_FILE = 4 * MOST_SAMPLES + 2**22  # bytes that ffmpeg may write: enough to see that it is too much
BLOCK = 2**20  # frames read at once where a header may claim more than the file holds
FFMPEG_SECONDS = 300  # an hour of music takes it a few
# What ffmpeg may take a file for: nothing that names other files, as playlists do, and no program, as a VapourSynth script
FORMATS = (
    "aac,ac3,adx,aiff,amr,ape,asf,asf_o,ast,au,avi,avr,boa,brstm,caf,dsf,dts,dtshd,dv,eac3,ea,flac,flv,gsm,iff,ircam,"
    "live_flv,loas,matroska,mlp,mov,mp3,mp4,mpc,mpc8,mpeg,mpegts,mxf,nistsphere,nut,oga,ogg,oma,paf,pvf,qcp,rm,rso,sds,"
    "sln,smjpeg,sox,svx,swf,tak,tta,truehd,voc,vqf,w64,wav,webm,wsd,wtv,wv,xwma"
)


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
    # as bytes: soundfile itself cannot encode names that are not UTF-8
    return _by_libsndfile(os.fsencode(file), file) or _by_ffmpeg(file)


def _by_libsndfile(sound: bytes | int, file: pathlib.Path) -> tuple[np.ndarray, int] | None:
    """What libsndfile reads from a path or an open file, None where it can't; errors name `file`."""
    import soundfile

    try:
        with soundfile.SoundFile(sound, closefd=False) as opened:
            _check_claims(opened, file)
            return _all_of(opened), opened.samplerate
    except (soundfile.LibsndfileError, TypeError):  # TypeError: what ends in .raw has no header
        return None


def _check_claims(opened: soundfile.SoundFile, file: pathlib.Path) -> None:
    """Refuse what the header claims where that is too much to be read, before any of it is."""
    rate, frames, channels = opened.samplerate, opened.frames, opened.channels
    if channels > MOST_CHANNELS:
        raise ValueError(f"{file} has {channels} channels: mix it down to mono or stereo first")
    if rate > HIGHEST_RATE:  # libsndfile opens none below 1 Hz
        raise ValueError(f"{file} claims {rate} Hz: convert it to 48 kHz first")
    if frames > LONGEST_SECONDS * rate:
        raise ValueError(f"{file} lasts {frames / rate:.0f} s: cut out an hour at most first")
    if frames * channels > MOST_SAMPLES:
        raise ValueError(f"{file} lasts {frames / rate:.0f} s at {rate} Hz: convert it to 48 kHz first")


def _all_of(opened: soundfile.SoundFile) -> np.ndarray:
    """What the file really holds; the rest of what its header claims is address space, never touched."""
    shape = (opened.frames,) if opened.channels == 1 else (opened.frames, opened.channels)
    samples, done = np.empty(shape, np.float32), 0
    while got := len(opened.read(out=samples[done : done + BLOCK])):
        done += got
    return samples[:done]


def _by_ffmpeg(file: pathlib.Path) -> tuple[np.ndarray, int]:
    # files without a name: whatever ends us, nothing of them is left
    with tempfile.TemporaryFile() as sound, tempfile.TemporaryFile() as said:
        _run_ffmpeg(file, sound, said)
        sound.seek(0)
        if read := _by_libsndfile(sound.fileno(), file):
            return read
        said.seek(0)
        words = said.read().decode(errors="replace").strip().splitlines()
    why = "".join(c if c.isprintable() else " " for c in words[-1])[:200] if words else "no sound came of it"
    raise ValueError(f"{file} is not a recording that libsndfile or ffmpeg can read: {why}")


def _run_ffmpeg(file: pathlib.Path, sound: IO[bytes], said: IO[bytes]) -> None:
    """Let ffmpeg write the first audio track of `file` to `sound`, and what it complains of to `said`."""
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        raise ValueError(
            f"{file} is not a recording that libsndfile can read (WAV, FLAC, OGG, MP3, AIFF): install ffmpeg, "
            "which reads more, or convert it to WAV or FLAC first"
        )
    command = [
        *(ffmpeg, "-nostdin", "-y", "-v", "error"),
        *("-protocol_whitelist", "file", "-format_whitelist", FORMATS, "-i", f"file:{file}"),
        *("-map", "0:a:0", "-t", str(LONGEST_SECONDS + 1), "-fs", str(LARGEST_FILE)),
        *("-c:a", "pcm_f32le", "-f", "w64", f"/dev/fd/{sound.fileno()}"),  # Sony Wave64: WAV ends at 4 GiB
    ]
    try:
        # not through pipes: a child of ffmpeg's could hold one open after its end
        code = children.run(command, said, FFMPEG_SECONDS, [sound.fileno()])
    except subprocess.TimeoutExpired:
        raise ValueError(
            f"ffmpeg was still reading {file} after {FFMPEG_SECONDS} s and was stopped: convert it to WAV or FLAC first"
        ) from None
    except OSError as error:
        raise ValueError(f"{file} needs ffmpeg, and {ffmpeg} cannot be run: {error.strerror}") from error
    if code:
        sound.truncate(0)  # it may hold half of the music
