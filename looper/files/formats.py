"""The audio formats that are written and served, each in one row."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AudioFormat:
    """One file format.

    Attributes
    ----------
    name : str
        As users name it, and the file's suffix without its dot.
    media_type : str
        As HTTP names it.
    subtypes : tuple of str
        Sample formats that a user may choose from, libsndfile's names; empty where there is no choice.
    """

    name: str
    media_type: str
    subtypes: tuple[str, ...] = ()


AUDIO_FORMATS = {
    audio_format.name: audio_format
    for audio_format in (
        AudioFormat("wav", "audio/wav", ("PCM_16", "PCM_24", "FLOAT")),
        AudioFormat("mp3", "audio/mpeg"),
        AudioFormat("flac", "audio/flac", ("PCM_16", "PCM_24")),
        AudioFormat("ogg", "audio/ogg"),
    )
}
MEDIA_TYPES = {f".{name}": audio_format.media_type for name, audio_format in AUDIO_FORMATS.items()}
"""Media types by suffix."""
