import os
import resource
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from imageio_ffmpeg import get_ffmpeg_exe

from looper.files import read as read_module
from looper.files.read import read


def tone(rate, channels=1, seconds=2):
    t = np.arange(seconds * rate) / rate
    wave = 0.4 * np.sin(2 * np.pi * 440 * t)
    return wave if channels == 1 else np.stack([wave, *[0.5 * wave] * (channels - 1)], 1)


@pytest.fixture
def bin_folder(tmp_path, monkeypatch):
    """The only folder on PATH, and a temp folder of our own to look into."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (tmp_path / "temp").mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temp"))
    yield folder
    assert not list((tmp_path / "temp").iterdir()), "temp files left"


@pytest.fixture
def ffmpeg(bin_folder):
    (bin_folder / "ffmpeg").symlink_to(get_ffmpeg_exe())


@pytest.fixture
def m4a(tmp_path):
    """An m4a that libsndfile does not know."""

    def make(channels=1, seconds=2):
        soundfile.write(tmp_path / "in.wav", tone(44100, channels, seconds), 44100)
        command = [
            get_ffmpeg_exe(),
            "-v",
            "error",
            "-i",
            tmp_path / "in.wav",
            "-c:a",
            "aac",
            tmp_path / "x.m4a",
        ]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        return tmp_path / "x.m4a"

    return make


def fake(folder, script):
    """An ffmpeg that does what `script` says; $out is the file it should write."""
    path = folder / "ffmpeg"
    path.write_text(f"#!/bin/bash\nPATH=/usr/bin:/bin\nfor out; do :; done\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (44100, 2), (192000, 1)])
def test_libsndfile_formats_come_as_they_are(tmp_path, bin_folder, rate, channels):
    soundfile.write(tmp_path / "x.flac", tone(rate, channels), rate)
    samples, found = read(tmp_path / "x.flac")
    assert found == rate and samples.dtype == np.float32
    np.testing.assert_allclose(samples, tone(rate, channels), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("name", ["x.m4a", "-i x.m4a", "http:x.m4a", "concat:x|y.m4a", "ü %d.m4a"])
def test_what_libsndfile_does_not_know_is_read_by_ffmpeg(m4a, ffmpeg, monkeypatch, channels, name):
    file = m4a(channels)
    monkeypatch.chdir(file.parent)
    file = file.rename(name)
    samples, rate = read(file)
    assert rate == 44100 and samples.dtype == np.float32
    assert samples.shape[1:] == (() if channels == 1 else (2,))
    middle = samples[20_000:60_000].reshape(-1, channels)[:, 0]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert np.argmax(spectrum) * 44100 / len(middle) == pytest.approx(440, abs=2)
    assert np.abs(middle).max() == pytest.approx(0.4, rel=0.05)


@pytest.mark.parametrize("content", [b"", b"RIFF", b"no audio at all" * 100])
def test_what_is_no_recording_is_refused_by_name(tmp_path, ffmpeg, content):
    (tmp_path / "x.wav").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.wav is not a recording that libsndfile or ffmpeg can read: \w"):
        read(tmp_path / "x.wav")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no such file: .*gone\.wav"):
        read(tmp_path / "gone.wav")


@pytest.mark.slow
def test_too_many_channels_are_refused_whoever_reads_them(m4a, ffmpeg):
    with pytest.raises(ValueError, match=r"x\.m4a has 6 channels: mix it down"):
        read(m4a(6))


def test_too_long_a_recording_is_refused_by_its_own_name(m4a, ffmpeg, monkeypatch):
    monkeypatch.setattr(read_module, "LONGEST_SECONDS", 2)
    with pytest.raises(ValueError, match=r"x\.m4a lasts 3 s: cut out"):
        read(m4a(seconds=6))


PLAYLISTS = {
    "HLS": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:4,\n{}\n#EXT-X-ENDLIST\n",
    "DASH": '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT4S" '
    'profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet mimeType="audio/mp4">'
    '<Representation id="1" bandwidth="9"><BaseURL>{}</BaseURL></Representation></AdaptationSet></Period></MPD>',
    "concat": "ffconcat version 1.0\nfile '{}'\n",
}


@pytest.mark.slow
@pytest.mark.parametrize(  # what the page hands over has no ending
    ("kind", "name"), [("HLS", "x"), ("HLS", "x.m3u8"), ("DASH", "x"), ("concat", "x")]
)
def test_a_playlist_reaches_nothing_else(tmp_path, m4a, ffmpeg, kind, name):
    """Neither the network nor other files: whoever sends one to the page would be given what it names."""
    secret = m4a()
    assert read(secret)[1]
    for named in ("http://127.0.0.1:9/secret.m4a", f"file://{secret}", secret.name):
        (tmp_path / name).write_text(PLAYLISTS[kind].format(named))
        with pytest.raises(ValueError, match=rf"{name} is not a recording"):
            read(tmp_path / name)


# --- ffmpeg at fault -------------------------------------------------------------------------------


def test_without_ffmpeg_it_is_said_what_to_do(m4a, bin_folder):
    with pytest.raises(ValueError, match=r"x\.m4a is not .* libsndfile .*install ffmpeg.*convert it to WAV"):
        read(m4a())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'no such codec' >&2; exit 1", "can read: no such codec"),
        ("exit 0", "can read: no sound came of it"),
        ("kill -SEGV $$", "can read: no sound came of it"),
        ('head -c 100000 /dev/zero > "$out"', "can read: no sound came of it"),
        ('printf "riff" > "$out"; echo done', "can read: no sound came of it"),
        (r"printf '\033[2Jevil\007\n' >&2; exit 1", r"can read:  \[2Jevil $"),
        ("head -c 1000000 /dev/urandom >&2; exit 1", "can read: "),
        (r"printf 'first\nsecond\nlast\n' >&2; exit 1", "can read: last$"),
        ("printf 'x%.0s' {1..300} >&2; exit 1", "can read: x{200}$"),
    ],
    ids=[
        "fails",
        "does nothing",
        "crashes",
        "writes zeros",
        "writes half a header",
        "escapes",
        "babbles",
        "says more",
        "says too much",
    ],
)
def test_an_ffmpeg_that_fails_or_writes_garbage_is_an_error(m4a, bin_folder, script, words):
    file = m4a()
    fake(bin_folder, script)
    with pytest.raises(ValueError, match=words) as caught:
        read(file)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500


def test_an_ffmpeg_that_fails_after_half_the_music_gives_none_of_it(m4a, bin_folder):
    file = m4a()
    fake(bin_folder, f'{get_ffmpeg_exe()} "$@"; echo "broken pipe" >&2; exit 1')
    with pytest.raises(ValueError, match="broken pipe"):
        read(file)


def test_an_ffmpeg_that_cannot_be_run_is_named(m4a, bin_folder):
    file = m4a()
    (bin_folder / "ffmpeg").write_bytes(b"\x7fELF" + bytes(100))
    (bin_folder / "ffmpeg").chmod(0o755)
    with pytest.raises(ValueError, match=r"x\.m4a needs ffmpeg, and .*/bin/ffmpeg cannot be run"):
        read(file)


def gone(pid):
    """Whether a process ends; one that nobody has asked about since counts as ended."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


@pytest.mark.slow
@pytest.mark.parametrize("hangs", ["exec sleep 600", "sleep 9 & wait", "trap '' TERM; exec sleep 600"])
def test_an_ffmpeg_that_hangs_is_stopped(m4a, bin_folder, tmp_path, monkeypatch, hangs):
    file = m4a()
    fake(bin_folder, f'echo $$ > {tmp_path}/pid; echo half > "$out"; {hangs}')
    monkeypatch.setattr(read_module, "FFMPEG_SECONDS", 0.5)
    with pytest.raises(ValueError, match=r"ffmpeg was still reading .*x\.m4a after 0.5 s and was stopped"):
        read(file)
    assert gone(int((tmp_path / "pid").read_text()))


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGHUP, signal.SIGTERM])
def test_ffmpeg_ends_with_us_whatever_ends_us_and_leaves_no_file(m4a, bin_folder, tmp_path, how):
    file = m4a()
    fake(bin_folder, f"echo $$ > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; exec sleep 600")
    program = f"import pathlib; from looper.files.read import read; read(pathlib.Path({str(file)!r}))"
    reading = subprocess.Popen(
        [sys.executable, "-c", program],
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(tmp_path / "temp")},
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "pid").exists():
        assert reading.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    reading.send_signal(how)
    reading.wait()
    assert gone(int((tmp_path / "pid").read_text()))


def test_an_interrupt_stops_ffmpeg_too(m4a, bin_folder, tmp_path):
    file, main = m4a(), threading.get_ident()
    fake(bin_folder, f"echo $$ > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; exec sleep 600")

    def interrupt():
        while not (tmp_path / "pid").exists():
            time.sleep(0.02)
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        read(file)
    thread.join()
    assert gone(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize(
    "make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "device"]
)
def test_what_may_have_no_end_is_no_recording(tmp_path, make):
    make(tmp_path / "x.wav")
    with pytest.raises(ValueError, match=r"x\.wav is no regular file"):
        read(tmp_path / "x.wav")


def flac_claiming(path, rate, channels, frames):
    """A FLAC of no audio whose STREAMINFO claims what it is told to (RFC 9639, 8.2)."""
    packed = rate << 44 | (channels - 1) << 41 | 15 << 36 | frames
    path.write_bytes(b"fLaC\x80\0\0\x22" + struct.pack(">HH6xQ16x", 4096, 4096, packed) + b"\0" * 76)
    return path


def wav_claiming(path, rate, channels, data):
    """A WAV of 64 bytes of audio that claims `data` bytes."""
    fmt = struct.pack("<HHIIHH", 1, channels, rate, rate * channels * 2 & 0xFFFFFFFF, channels * 2, 16)
    body = b"WAVEfmt " + struct.pack("<I", 16) + fmt + b"data" + struct.pack("<I", data) + b"\1\2" * 32
    path.write_bytes(b"RIFF" + struct.pack("<I", 0xFFFFFFFF) + body)
    return path


@pytest.fixture
def two_gigabytes():
    """No more address space than what is in use and 2 GB: enough for what is allowed, not for what is claimed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + 2 * 10**9, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.usefixtures("two_gigabytes", "ffmpeg")
@pytest.mark.parametrize(
    ("rate", "channels", "frames"),
    [(192_000, 8, 3600 * 192_000), (192_000, 2, 2**36 - 1), (1, 1, 3600), (655_350, 1, 2**30)],
)
def test_a_header_cannot_ask_for_more_memory_than_a_recording_may_take(tmp_path, rate, channels, frames):
    try:
        samples, _ = read(flac_claiming(tmp_path / "x.flac", rate, channels, frames))
    except ValueError as error:
        assert "x.flac" in str(error)
    else:
        assert len(samples) == 0


@pytest.mark.usefixtures("bin_folder")
@pytest.mark.parametrize(
    ("rate", "channels", "said"),
    [(48_000, 8, "8 channels"), (2**31 - 1, 1, "Hz"), (192_000, 2, "at 192000 Hz")],
)
def test_what_is_too_much_is_refused_from_its_header_before_a_sample_is_read(
    tmp_path, monkeypatch, rate, channels, said
):
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *_, **__: pytest.fail("samples were read"))
    frames = 3600 * min(rate, 192_000)
    monkeypatch.setattr(soundfile.SoundFile, "frames", property(lambda _: frames))
    with pytest.raises(ValueError, match=said):
        read(wav_claiming(tmp_path / "x.wav", rate, channels, 2**32 - 16))


@pytest.mark.usefixtures("bin_folder")
def test_a_wav_that_claims_four_gigabytes_gives_the_samples_that_it_has(tmp_path):
    samples, rate = read(wav_claiming(tmp_path / "x.wav", 44_100, 2, 2**32 - 16))
    assert rate == 44_100 and samples.shape == (16, 2)


@pytest.mark.usefixtures("bin_folder")
def test_a_name_that_is_not_utf_8_is_read_like_any_other(tmp_path):
    name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav")
    soundfile.write(tmp_path / "x.wav", tone(8000), 8000)
    (tmp_path / "x.wav").rename(name)
    assert read(Path(name))[1] == 8000


HOUR = 3600


@pytest.mark.usefixtures("bin_folder")
@pytest.mark.parametrize(
    ("rate", "channels", "frames", "said"),
    [
        (
            48_000,
            2,
            HOUR * 48_000,
            None,
        ),  # as much as is ever read: 1.4 GB of address space, none of it touched
        (48_000, 2, HOUR * 48_000 + 1, "lasts 3600 s: cut out an hour"),
        (8_000, 1, HOUR * 8_000, None),
        (8_000, 1, HOUR * 8_000 + 1, "cut out an hour"),
        (96_000, 1, HOUR * 96_000, None),
        (96_000, 2, HOUR * 48_000, None),
        (96_000, 2, HOUR * 48_000 + 1, "lasts 1800 s at 96000 Hz: convert it to 48 kHz"),
        (192_000, 1, HOUR * 96_000 + 1, "lasts 1800 s at 192000 Hz"),
        (400_000, 1, 1000, None),
        (400_001, 1, 1000, "claims 400001 Hz: convert it to 48 kHz"),
        (1, 1, 1000, None),
        (44_100, 3, 1000, "3 channels: mix it down"),
    ],
)
def test_an_hour_at_48_khz_in_stereo_is_the_most_that_is_read(
    tmp_path, monkeypatch, rate, channels, frames, said
):
    held = tone(rate, channels, 1)[:16] if rate > 16 else np.zeros(16)
    soundfile.write(tmp_path / "x.wav", held, rate, subtype="FLOAT")
    monkeypatch.setattr(soundfile.SoundFile, "frames", property(lambda _: frames))
    if said is None:
        samples, found = read(tmp_path / "x.wav")
        assert found == rate and np.array_equal(samples, held.astype(np.float32))
    else:
        with pytest.raises(ValueError, match=rf"x\.wav .*{said}"):
            read(tmp_path / "x.wav")


def test_ffmpeg_may_write_just_more_than_is_read_so_that_too_much_is_seen(tmp_path, ffmpeg, monkeypatch):
    commands = []
    monkeypatch.setattr(
        read_module.children, "run", lambda command, *_: commands.append([*map(str, command)]) or 1
    )
    (tmp_path / "x.wma").write_bytes(b"something")
    with pytest.raises(ValueError, match="no sound came of it"):
        read(tmp_path / "x.wma")
    (command,) = commands
    seconds, size = (int(command[command.index(name) + 1]) for name in ("-t", "-fs"))
    assert HOUR < seconds < HOUR + 2
    assert 4 * HOUR * 48_000 * 2 + 1e6 < size < 4 * HOUR * 48_000 * 2 + 8e6  # bytes, with a header


@pytest.mark.usefixtures("bin_folder")
@pytest.mark.parametrize("channels", [1, 2])
def test_a_recording_of_several_blocks_is_read_to_its_end(tmp_path, channels, monkeypatch):
    monkeypatch.setattr(read_module, "BLOCK", 1000)
    soundfile.write(tmp_path / "x.wav", tone(8000, channels), 8000, subtype="FLOAT")
    samples, _ = read(tmp_path / "x.wav")
    assert np.array_equal(samples, tone(8000, channels).astype(np.float32))
