"""Read a recording: by libsndfile, and what that does not know (m4a, aac, wma ...) by ffmpeg through pydub."""

from __future__ import annotations

import pathlib
import shutil
import warnings

import numpy as np

LONGEST_SECONDS = 3600


def ffmpeg() -> str:
    """Path of ffmpeg: the one on PATH, else the imageio-ffmpeg wheel's."""
    import imageio_ffmpeg

    return shutil.which("ffmpeg") or imageio_ffmpeg.get_ffmpeg_exe()


def read(file: pathlib.Path) -> tuple[np.ndarray, int]:
    """Samples float32 [T] or [T, C] within -1..1, and the sample rate.

    Raises
    ------
    ValueError
        If there is no such file, it is no recording, it has over two channels, or it lasts over an hour.
    """
    if not file.is_file():
        raise ValueError(
            f"{file} is a folder: name one recording" if file.is_dir() else f"no such file: {file}"
        )
    samples, sample_rate = _by_libsndfile(file) or _by_ffmpeg(file)
    if samples.ndim == 2 and samples.shape[1] > 2:
        raise ValueError(f"{file} has {samples.shape[1]} channels: mix it down to mono or stereo first")
    return samples, sample_rate


def _by_libsndfile(file: pathlib.Path) -> tuple[np.ndarray, int] | None:
    import soundfile

    try:
        with soundfile.SoundFile(file) as sound:
            if sound.frames > LONGEST_SECONDS * sound.samplerate:
                raise ValueError(
                    f"{file} lasts {sound.frames / sound.samplerate:.0f} s: cut out an hour at most first"
                )
            return sound.read(dtype="float32"), sound.samplerate
    except (soundfile.LibsndfileError, TypeError):  # TypeError: what ends in .raw has no header
        return None


def _by_ffmpeg(file: pathlib.Path) -> tuple[np.ndarray, int]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it looks for ffmpeg on PATH alone
        from pydub import AudioSegment
    from pydub.exceptions import CouldntDecodeError

    AudioSegment.converter = ffmpeg()
    try:
        # this way asks ffmpeg alone; the other one also needs ffprobe, which the wheel lacks
        sound = AudioSegment.from_file_using_temporary_files(str(file))
    except (CouldntDecodeError, OSError, LookupError) as error:
        raise ValueError(f"{file} is not a recording that libsndfile or ffmpeg can read") from error
    samples = np.array(sound.get_array_of_samples(), np.float32) / np.float32(
        1 << (8 * sound.sample_width - 1)
    )
    return (samples.reshape(-1, sound.channels) if sound.channels > 1 else samples), sound.frame_rate
