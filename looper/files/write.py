"""Samples and their tags as one audio file, written whole or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import soundfile as sf

from looper.files import mp3, vorbis_comments, wav_chunks
from looper.files.atomic import deliver
from looper.files.formats import AUDIO_FORMATS
from looper.files.text import tempo

_SOFTWARE = "musicgen-looper"
_OGG_BLOCK = 65536
_DITHER_SEED = 0x0D17


@dataclass(frozen=True)
class Tags:
    """What a file says of itself.

    Attributes
    ----------
    title, comment : str
        Text on one line.
    bpm : float
        Tempo.
    beats, beats_per_bar : int
        Length and metre.
    root_note : int or None
        MIDI note of the key's root, 60 to 71, where the key is known.
    key : str or None
        The key as ID3v2 spells it: "Am", "Eb".

    Examples
    --------
    >>> Tags(title="house", comment="seed: 1", bpm=124, beats=16, beats_per_bar=4).key is None
    True
    """

    title: str
    comment: str
    bpm: float
    beats: int
    beats_per_bar: int
    root_note: int | None = None
    key: str | None = None


def dithered(samples: np.ndarray, bits: int = 16) -> np.ndarray:
    """Round `samples` [n] or [n, C] to integers, with triangular dither of two steps.

    The noise comes from a fixed seed, so that the same loop is the same file. Silence stays silent.

    Returns
    -------
    np.ndarray
        int16 for 16 bits, else int32 left-justified as soundfile wants it; clipped at full scale.

    Examples
    --------
    >>> dithered(np.array([0.0, 1.0], np.float32)).tolist()
    [0, 32767]
    """
    scale = 2.0 ** (bits - 1)
    noise = np.random.default_rng(_DITHER_SEED).random((2, *samples.shape))
    rounded = np.round(samples.astype(float) * scale + (noise[0] - noise[1]) * (samples != 0))
    clipped = np.clip(rounded, -scale, scale - 1)
    return clipped.astype(np.int16) if bits == 16 else clipped.astype(np.int32) << (32 - bits)


def _wav(samples: np.ndarray, sample_rate: int, tags: Tags, subtype: str) -> bytes:
    data = {
        "PCM_16": lambda: dithered(samples, 16),
        "PCM_24": lambda: dithered(samples, 24),
        "FLOAT": lambda: samples.astype(np.float32),
    }[subtype]()
    buffer = BytesIO()
    sf.write(buffer, data, sample_rate, format="WAV", subtype=subtype)
    bar = 60 / tags.bpm * tags.beats_per_bar * sample_rate
    starts = [round(k * bar) for k in range(max(1, tags.beats // tags.beats_per_bar))]
    texts = {"INAM": tags.title, "ISFT": _SOFTWARE, "ICMT": tags.comment}
    return wav_chunks.append(
        buffer.getvalue(),
        [
            wav_chunks.smpl(len(samples), sample_rate),
            wav_chunks.acid(tags.beats, tags.bpm, tags.beats_per_bar, tags.root_note),
            wav_chunks.cues(starts),
            wav_chunks.info(texts),
        ],
    )


def _libsndfile(samples: np.ndarray, sample_rate: int, tags: Tags, container: str, subtype: str) -> bytes:
    """FLAC or Ogg Vorbis with title, software, comment, tempo, key and loop points."""
    buffer = BytesIO()
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with sf.SoundFile(buffer, "w", sample_rate, channels, subtype, format=container) as file:
        file.title, file.software, file.comment = tags.title, _SOFTWARE, tags.comment
        data = samples if subtype == "VORBIS" else dithered(samples, int(subtype[-2:]))
        # libsndfile's Vorbis encoder overflows its stack on very long writes
        for first in range(0, len(data), _OGG_BLOCK):
            file.write(data[first : first + _OGG_BLOCK])
    texts = {"BPM": tempo(tags.bpm), **({"KEY": tags.key} if tags.key else {})}
    texts |= {"LOOPSTART": "0", "LOOPLENGTH": str(len(samples))}
    insert = vorbis_comments.into_flac if container == "FLAC" else vorbis_comments.into_ogg
    return insert(buffer.getvalue(), texts)


def _mp3(samples: np.ndarray, sample_rate: int, tags: Tags) -> bytes:
    texts = {"TIT2": tags.title, "TBPM": tempo(tags.bpm), "TSSE": _SOFTWARE}
    texts |= {"TKEY": tags.key} if tags.key else {}
    return mp3.encode(dithered(samples), sample_rate, {**texts, "COMM": tags.comment})


def encode(samples: np.ndarray, sample_rate: int, tags: Tags, format: str, subtype: str = "PCM_16") -> bytes:
    """Return the whole file as bytes.

    Parameters
    ----------
    samples : np.ndarray
        float [n] or [n, C] within -1..1.
    sample_rate : int
        Hz.
    tags : Tags
    format : str
        "wav", "mp3", "flac" or "ogg".
    subtype : str
        "PCM_16" (dithered), "PCM_24" or "FLOAT"; of use for wav, and the first two for flac.

    Raises
    ------
    ValueError
        If the format cannot hold the samples.
    RuntimeError
        If this machine cannot write MP3.

    Examples
    --------
    >>> tags = Tags(title="house", comment="seed: 1", bpm=120, beats=4, beats_per_bar=4)
    >>> encode(np.zeros(64_000, np.float32), 32_000, tags, "wav")[:4]
    b'RIFF'
    """
    if format not in AUDIO_FORMATS:
        raise ValueError(f"format must be one of {', '.join(AUDIO_FORMATS)}, got {format!r}")
    allowed = AUDIO_FORMATS[format].subtypes or AUDIO_FORMATS["wav"].subtypes
    if subtype not in allowed:
        raise ValueError(f"{format} cannot be {subtype}; choose PCM_16 or PCM_24")
    if not np.isfinite(samples).all():
        raise ValueError("the loop holds NaN or infinity and is not written")
    if format == "mp3":
        return _mp3(samples, sample_rate, tags)
    if format == "wav":
        return _wav(samples, sample_rate, tags, subtype)
    return _libsndfile(samples, sample_rate, tags, format.upper(), "VORBIS" if format == "ogg" else subtype)


def write(
    path: str | Path,
    samples: np.ndarray,
    sample_rate: int,
    tags: Tags,
    *,
    format: str | None = None,
    subtype: str | None = None,
) -> Path:
    """Write one file, which appears under its name only when it is whole.

    Parameters
    ----------
    path : str or Path
        Target; its folder is made when missing, a file of that name is replaced.
    samples, sample_rate, tags
        As `encode`.
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
        If the format is unknown or cannot hold the samples.
    RuntimeError
        If this machine cannot write MP3.
    OSError
        If the disk is full or the folder cannot be written; nothing is left behind then.

    Examples
    --------
    >>> import tempfile
    >>> tags = Tags(title="house", comment="seed: 1", bpm=120, beats=4, beats_per_bar=4)
    >>> with tempfile.TemporaryDirectory() as here:
    ...     write(Path(here) / "x.flac", np.zeros(64_000, np.float32), 32_000, tags).suffix
    '.flac'
    """
    path = Path(path)
    chosen = format or path.suffix.lower().removeprefix(".")
    deliver({path: encode(samples, sample_rate, tags, chosen, subtype or "PCM_16")})
    return path
