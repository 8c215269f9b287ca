import subprocess

import numpy as np
import pytest
import soundfile

from looper.recordings import ffmpeg, read


def tone(rate, channels=1):
    t = np.arange(2 * rate) / rate
    wave = 0.4 * np.sin(2 * np.pi * 440 * t)
    return wave if channels == 1 else np.stack([wave, 0.5 * wave], 1)


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (44100, 2), (192000, 1)])
def test_libsndfile_formats_come_as_they_are(tmp_path, rate, channels):
    soundfile.write(tmp_path / "x.flac", tone(rate, channels), rate)
    samples, found = read(tmp_path / "x.flac")
    assert found == rate and samples.dtype == np.float32
    np.testing.assert_allclose(samples, tone(rate, channels), atol=1e-4)


@pytest.mark.parametrize("channels", [1, 2])
def test_what_libsndfile_does_not_know_is_read_by_ffmpeg(tmp_path, channels):
    soundfile.write(tmp_path / "x.wav", tone(44100, channels), 44100)
    command = [ffmpeg(), "-v", "error", "-i", str(tmp_path / "x.wav"), "-c:a", "aac", str(tmp_path / "x.m4a")]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    samples, rate = read(tmp_path / "x.m4a")
    assert rate == 44100 and samples.shape[1:] == (() if channels == 1 else (2,))
    middle = samples[20_000:60_000].reshape(-1, channels)[:, 0]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert np.argmax(spectrum) * 44100 / len(middle) == pytest.approx(440, abs=2)
    assert np.abs(middle).max() == pytest.approx(0.4, rel=0.05)


@pytest.mark.parametrize("content", [b"", b"RIFF", b"no audio at all" * 100])
def test_what_is_no_recording_is_refused_by_name(tmp_path, content):
    (tmp_path / "x.wav").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.wav is not a recording"):
        read(tmp_path / "x.wav")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no such file: .*gone\.wav"):
        read(tmp_path / "gone.wav")
