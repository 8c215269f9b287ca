"""Loops as files that say what they are, written whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import soundfile as sf

from looper.files import mp3, wav_chunks
from looper.files.text import plain, slug, tempo
from looper.loops.cut import Loop
from looper.loops.key import Key
from looper.runtime.threads import workers

FORMATS = ("wav", "mp3", "flac", "ogg")
SUBTYPES = ("PCM_16", "PCM_24", "FLOAT")
MOST_FILES = 100

_SOFTWARE = "musicgen-looper"
_OGG_BLOCK = 65536
_DITHER_SEED = 0x0D17


def dithered(samples: np.ndarray, bits: int = 16) -> np.ndarray:
    """Round `samples` [n] or [n, C] to integers, with triangular dither of two steps.

    The noise comes from a fixed seed, so that the same loop is the same file. Silence stays silent.

    Returns
    -------
    np.ndarray
        int16 for 16 bits, else int32 left-justified as soundfile wants it; clipped at full scale.
    """
    scale = 2.0 ** (bits - 1)
    noise = np.random.default_rng(_DITHER_SEED).random((2, *samples.shape))
    rounded = np.round(samples.astype(float) * scale + (noise[0] - noise[1]) * (samples != 0))
    clipped = np.clip(rounded, -scale, scale - 1)
    return clipped.astype(np.int16) if bits == 16 else clipped.astype(np.int32) << (32 - bits)


def _title(loop: Loop) -> str:
    return plain(loop.info.get("prompt", ""), 100) or "Loop"


def _bars(loop: Loop) -> str:
    return f"{loop.bars:g}bars" if loop.bars != 1 else "1bar"


def _comment(loop: Loop, key: Key | None) -> str:
    """prompt, seed, variation, model, bpm, bars: all that makes the loop again."""
    facts = {
        **{name: plain(value) for name, value in loop.info.items() if value is not None},
        "bpm": tempo(loop.bpm),
        "bars": f"{loop.bars:g}",
        "beats_per_bar": str(loop.beats_per_bar),
        **({"key": key.name} if key else {}),
    }
    return plain("; ".join(f"{name}: {value}" for name, value in facts.items()), 2000)


def _wav(loop: Loop, subtype: str, key: Key | None) -> bytes:
    data = {
        "PCM_16": lambda: dithered(loop.samples, 16),
        "PCM_24": lambda: dithered(loop.samples, 24),
        "FLOAT": lambda: loop.samples.astype(np.float32),
    }[subtype]()
    buffer = BytesIO()
    sf.write(buffer, data, loop.sample_rate, format="WAV", subtype=subtype)
    bar = 60 / loop.bpm * loop.beats_per_bar * loop.sample_rate
    starts = [round(k * bar) for k in range(max(1, int(loop.bars)))]
    texts = {"INAM": _title(loop), "ISFT": _SOFTWARE, "ICMT": _comment(loop, key)}
    return wav_chunks.append(
        buffer.getvalue(),
        [
            wav_chunks.smpl(len(loop.samples), loop.sample_rate),
            wav_chunks.acid(loop.beats, loop.bpm, loop.beats_per_bar, None if key is None else 60 + key.root),
            wav_chunks.cues(starts),
            wav_chunks.info(texts),
        ],
    )


def _libsndfile(loop: Loop, container: str, subtype: str, key: Key | None) -> bytes:
    """FLAC or Ogg Vorbis with title, software and comment."""
    buffer = BytesIO()
    channels = 1 if loop.samples.ndim == 1 else loop.samples.shape[1]
    with sf.SoundFile(buffer, "w", loop.sample_rate, channels, subtype, format=container) as file:
        file.title, file.software, file.comment = _title(loop), _SOFTWARE, _comment(loop, key)
        data = loop.samples if subtype == "VORBIS" else dithered(loop.samples, int(subtype[-2:]))
        # libsndfile's Vorbis encoder overflows its stack on very long writes
        for first in range(0, len(data), _OGG_BLOCK):
            file.write(data[first : first + _OGG_BLOCK])
    return buffer.getvalue()


def _mp3(loop: Loop, key: Key | None) -> bytes:
    texts = {"TIT2": _title(loop), "TBPM": tempo(loop.bpm), "TSSE": _SOFTWARE}
    texts |= {"TKEY": key.id3} if key else {}
    return mp3.encode(dithered(loop.samples), loop.sample_rate, {**texts, "COMM": _comment(loop, key)})


def encode(loop: Loop, format: str, subtype: str = "PCM_16") -> bytes:
    """Return the whole file as bytes.

    Parameters
    ----------
    loop : Loop
        What to write.
    format : str
        "wav", "mp3", "flac" or "ogg".
    subtype : str
        "PCM_16" (dithered), "PCM_24" or "FLOAT"; of use for wav, and the first two for flac.

    Raises
    ------
    ValueError
        If the format cannot hold the loop.
    RuntimeError
        If this machine cannot write MP3.
    """
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
    if subtype not in SUBTYPES or (format == "flac" and subtype == "FLOAT"):
        raise ValueError(f"{format} cannot be {subtype}; choose PCM_16 or PCM_24")
    if not np.isfinite(loop.samples).all():
        raise ValueError("the loop holds NaN or infinity and is not written")
    key = loop.key
    if format == "mp3":
        return _mp3(loop, key)
    if format == "wav":
        return _wav(loop, subtype, key)
    return _libsndfile(loop, format.upper(), "VORBIS" if format == "ogg" else subtype, key)


@contextmanager
def _whole(path: Path, content: bytes) -> Iterator[Path]:
    """Make a temporary file beside `path` holding `content`, gone at the end unless it was renamed."""
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def made(folder: Path) -> Iterator[None]:
    """Make `folder` for what is written within; where that fails, what was made for it goes again."""
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:  # an interrupt too
        for place in new:
            with suppress(OSError):  # never made, or somebody else's files are in it
                place.rmdir()
        raise


def cannot_write(folder: Path, why: str, number: int | None) -> OSError:
    """Name the folder that the user chose, the reason and the remedy."""
    return OSError(number, f"cannot write to {folder}: {why}; free space there or choose another folder")


def _deliver(contents: dict[Path, bytes]) -> None:
    """Write all files or none."""
    folder = next(iter(contents)).parent
    try:
        with made(folder), ExitStack() as stack:
            for path in contents:
                if path.is_dir():
                    raise IsADirectoryError(errno.EISDIR, f"{path.name} is a folder")
            ready = {path: stack.enter_context(_whole(path, content)) for path, content in contents.items()}
            new = [path for path in ready if not path.exists()]
            try:
                for path, temporary in ready.items():
                    temporary.replace(path)
            except BaseException:  # an interrupt too
                for path in new:
                    path.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise cannot_write(folder, error.strerror or str(error), error.errno) from error


def write(loop: Loop, path: str | Path, *, format: str | None = None, subtype: str | None = None) -> Path:
    """Write one loop; the file appears under its name only when it is whole.

    Parameters
    ----------
    loop : Loop
        What to write.
    path : str or Path
        Target; its folder is made when missing, a file of that name is replaced.
    format : str, optional
        "wav", "mp3", "flac" or "ogg"; from the suffix of `path` when not given.
    subtype : str, optional
        "PCM_16" (the default), "PCM_24" or "FLOAT".

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    ValueError
        If the format is unknown or cannot hold the loop.
    RuntimeError
        If this machine cannot write MP3.
    OSError
        If the disk is full or the folder cannot be written; nothing is left behind then.
    """
    path = Path(path)
    content = encode(loop, format or path.suffix.lower().removeprefix("."), subtype or "PCM_16")
    _deliver({path: content})
    return path


def file_name(loop: Loop, variation: int, format: str) -> str:
    """Name a file so that it sorts and says it all: deep-house-warm-chords_124bpm_4bars_Amin_s42_01.wav.

    Prompt, tempo, bars, key (when clear), seed (when known) and the variation from 1 on.
    """
    key, seed = loop.key, loop.info.get("seed")
    parts = [
        slug(str(loop.info.get("prompt", ""))),
        f"{tempo(loop.bpm)}bpm",
        _bars(loop) if loop.bars >= 1 else f"{loop.beats}beat{'s' * (loop.beats > 1)}",
        *([key.name] if key else []),
        *([f"s{int(str(seed))}"] if seed is not None else []),
        f"{variation:02d}",
    ]
    return f"{'_'.join(parts)}.{format}"


def write_all(
    loops: Sequence[Loop], folder: str | Path, format: str = "wav", *, subtype: str | None = None
) -> list[Path]:
    """Write the loops of one request into `folder`, all of them or none.

    Raises
    ------
    ValueError, RuntimeError, OSError
        As `write`; also for more than 100 loops.
    """
    if not loops:
        return []
    if len(loops) > MOST_FILES:
        raise ValueError(f"at most {MOST_FILES} files are written at once, got {len(loops)}; split them")

    def one(loop: Loop, variation: int) -> tuple[Path, bytes]:
        return Path(folder) / file_name(loop, variation, format), encode(loop, format, subtype or "PCM_16")

    with workers() as pool:
        contents = dict(pool.map(one, loops, range(1, len(loops) + 1)))
    _deliver(contents)
    return list(contents)
