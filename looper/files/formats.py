"""The audio formats that are written and served, each in one row."""

from __future__ import annotations

from dataclasses import dataclass

from looper.runtime.validation import FieldError, whole

RATES = (32_000, 44_100, 48_000)  # Hz: the model's own, and those that samples are sold at


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


def check_rate(rate: object) -> int:
    """`rate` as an int, if it is one of `RATES`.

    Raises
    ------
    FieldError
        If it is not.

    Examples
    --------
    >>> check_rate(96_000)
    Traceback (most recent call last):
    ...
    looper.runtime.validation.FieldError: rate must be 32000, 44100 or 48000, got 96000
    """
    hertz = whole("rate", rate)
    if hertz not in RATES:
        raise FieldError("rate", f"must be 32000, 44100 or 48000, got {hertz:.20g}")
    return hertz
