import errno
import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from scipy.signal import resample_poly

from looper.pipeline.maker import LoopMaker
from testkit.command_line import process, run
from testkit.fakes import FakeGenerator, FakeMaker, drum_track


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "jam.wav"
    soundfile.write(path, drum_track(118.0, 12), 32000)
    return path


@pytest.mark.slow
def test_make_writes_exact_loops_and_says_so_in_json(tmp_path):
    picture = tmp_path / "p.png"
    wish = ("--bpm", 126, "-n", 2, "--max-duration", 2, "--model", "tiny", "--seed", 1)
    done = run("make", "techno", *wish, "--out", tmp_path, "--json", "--plot", picture)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["seed"] == 1 and told["model"] == "tiny" and len(told["loops"]) == 2
    for loop in told["loops"]:
        assert soundfile.info(loop["file"]).frames == round(4 * 60 / 126 * 32000) == loop["samples"]
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_pack_is_a_folder_with_a_description_and_a_zip(tmp_path, monkeypatch):
    import zipfile

    wish = ("-n", 2, "--max-duration", 2, "--model", "tiny", "--seed", 1)
    monkeypatch.setattr(LoopMaker, "load", FakeMaker.load)
    words = ("make", "../../etc house", *wish, "--pack", "--out", tmp_path)
    assert run(*words).returncode == 0
    (archive,) = tmp_path.glob("*.zip")
    names = zipfile.ZipFile(archive).namelist()
    folder = archive.with_suffix("")
    assert sorted(folder.name + "/" + p.name for p in folder.iterdir()) == sorted(names)
    told = json.loads((folder / "pack.json").read_text())
    assert [row["file"] for row in told["loops"]] == sorted(p.name for p in folder.glob("*.wav"))
    again = run(*words)
    assert again.returncode == 1 and "is there already" in again.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([archive.name, folder.name])


MAKE = ("make", "x", "--model", "tiny", "-n", 3, "--bpm", 240, "--max-duration", 2, "--seed", 1)
INTERRUPTED = """
import os, signal
import looper.cli.main, looper.cli.delivery
from looper.pipeline.maker import LoopMaker
from testkit.fakes import FakeGenerator

press = lambda stage, *_: os.kill(os.getpid(), signal.SIGINT) if stage == "loops" else None  # Ctrl-C
LoopMaker.load = classmethod(lambda *_: LoopMaker(FakeGenerator()))
looper.cli.delivery.show_on = lambda bars: press
looper.cli.main.main()
"""


@pytest.mark.slow
def test_ctrl_c_ends_a_process_that_is_at_work_in_threads_with_130_and_nothing_written(tmp_path):
    words = (*MAKE, "--out", tmp_path / "o", "--plot", tmp_path / "p.png")
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, *map(str, words)], capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("when", "pack"),
    [("loading", ()), ("writing", ()), ("writing", ("--pack",)), ("the picture", ("--pack",))],
)
def test_ctrl_c_ends_it_with_130_and_nothing_half_written(tmp_path, monkeypatch, when, pack):
    press = lambda: os.kill(os.getpid(), signal.SIGINT)
    monkeypatch.setattr(LoopMaker, "load", lambda *_: press() if when == "loading" else FakeMaker())
    sync, write = os.fsync, pathlib.Path.write_bytes
    if when == "writing":
        monkeypatch.setattr(os, "fsync", lambda file: (sync(file), press()))
    if when == "the picture":
        monkeypatch.setattr(
            pathlib.Path, "write_bytes", lambda path, data: (write(path, data[:100]), press())
        )
    try:
        done = run(*MAKE, "--out", tmp_path / "o", *pack, "--plot", tmp_path / "p.png")
    except KeyboardInterrupt:
        pytest.fail("it got out of the command")
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    if when == "the picture":  # by then the loops are whole
        assert sorted(path.suffix for path in files) == [".json", ".wav", ".wav", ".wav", ".zip"]
    else:
        assert list(tmp_path.iterdir()) == []


EARLY = """
import os, signal, sys

when, sys.argv[1:] = sys.argv[1], ["weights", "verify", "tiny"]

class Press:  # Ctrl-C while a module is looked for
    def find_spec(self, name, path, target=None):
        if name == when:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Press())
from looper.cli.main import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("module", ["typer", "looper.checkpoints.store"])
def test_ctrl_c_while_modules_are_imported_is_as_quiet(module):
    done = subprocess.run([sys.executable, "-c", EARLY, module], capture_output=True, text=True, timeout=60)
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr


TORCHLESS = """
import sys
sys.modules["torch"] = sys.modules["librosa"] = None  # whoever imports them fails
from looper.cli.main import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--device", "nonsense"], "device must be cpu, cuda or cuda:N, got 'nonsense'"),
        (["--device", "cuda:x"], "device must be cpu, cuda or cuda:N"),
        (["--model", "nothing"], "unknown model 'nothing'"),
        (["--model", "medium"], "looper weights get medium"),
    ],
)
def test_a_device_or_model_that_cannot_be_is_refused_before_anything_slow_is_imported(tmp_path, words, said):
    wish = ["make", "x", "--model", "tiny", "--out", str(tmp_path / "o"), *words]
    done = subprocess.run(
        [sys.executable, "-c", TORCHLESS, *wish], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1 and said in done.stderr, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("pack", [(), ("--pack",)])
def test_a_full_disk_is_said_of_the_users_folder_which_is_not_left_behind(tmp_path, monkeypatch, pack):
    def full(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(LoopMaker, "load", lambda *_: LoopMaker(FakeGenerator()))
    monkeypatch.setattr(os, "fsync", full)
    out = tmp_path / "a" / "o"
    wish = ("make", "x", "--model", "tiny", "-n", 2, "--max-duration", 2, "--seed", 1, "--out", out, *pack)
    done = run(*wish)
    assert done.returncode == 1
    assert f"looper: cannot write to {out}: No space left on device; free space" in done.stderr
    assert ".pack-" not in done.stderr and "Errno" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_picture_may_go_where_the_loops_will(recording, tmp_path):
    new = tmp_path / "new"
    done = run("cut", recording, "--bpm", 120, "--out", new / "deep", "--plot", new / "p.png")
    assert done.returncode == 0, done.stderr
    assert (new / "p.png").read_bytes().startswith(b"\x89PNG")
    done = run("cut", recording, "--bpm", 120, "--out", tmp_path / "x.png", "--plot", tmp_path / "x.png")
    assert done.returncode == 1 and "cannot write the picture" in done.stderr
    assert not (tmp_path / "x.png").exists()


@pytest.mark.slow
def test_tempi_that_differ_a_little_make_files_of_their_own(recording, tmp_path):
    for bpm in ("120.00001", "120.00049"):
        assert run("cut", recording, "--bpm", bpm, "--out", tmp_path / "o").returncode == 0
    names = sorted(path.name for path in (tmp_path / "o").iterdir())
    assert [name.split("_")[1] for name in names] == ["120.00001bpm", "120.00049bpm"]


def test_a_picture_that_cannot_be_written_is_said_before_the_work(tmp_path):
    (tmp_path / "x.png").mkdir()
    done = run("make", "x", "--model", "none", "--plot", tmp_path / "x.png", "--out", tmp_path / "o")
    assert done.returncode == 1 and "cannot write the picture" in done.stderr
    done = run("make", "x", "--model", "none", "--plot", "/proc/x.png", "--out", tmp_path / "o")
    assert done.returncode == 1 and "cannot write the picture" in done.stderr.replace("\n", " ")
    assert not (tmp_path / "o").exists()


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "ogg"])
def test_cut_makes_an_exact_loop_of_a_recording(recording, tmp_path, suffix):
    done = run("cut", recording, "--bpm", 120, "--format", suffix, "--out", tmp_path / "o", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["measured_bpm"] == pytest.approx(118, rel=1e-3)
    assert soundfile.info(told["file"]).frames == round(told["bars"] * 4 * 60 / 120 * 32000)


@pytest.mark.slow
@pytest.mark.parametrize("bars", [1, 3])
def test_cut_gives_the_bars_that_were_asked_for(recording, tmp_path, bars):
    done = run("cut", recording, "--bpm", 120, "--bars", bars, "--out", tmp_path / "o", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["bars"] == bars and soundfile.info(told["file"]).frames == bars * 64_000


@pytest.mark.slow
def test_cut_keeps_stereo_and_draws_a_picture(tmp_path):
    both = np.stack([drum_track(120, 9), 0.5 * drum_track(120, 9)], axis=1)
    soundfile.write(tmp_path / "s.flac", both, 32000)
    done = run(
        "cut", tmp_path / "s.flac", "--bpm", 120, "--out", tmp_path, "--plot", tmp_path / "s.png", "--json"
    )
    assert done.returncode == 0, done.stderr
    assert soundfile.info(json.loads(done.stdout)["file"]).channels == 2
    assert (tmp_path / "s.png").stat().st_size > 10_000


@pytest.mark.slow
def test_vary_writes_variations_of_a_loop_and_the_loop_itself_where_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(LoopMaker, "load", lambda *_: LoopMaker(FakeGenerator()))
    mine = resample_poly(drum_track(120, 4), 441, 320)
    soundfile.write(tmp_path / "my loop.wav", np.stack([mine, mine], 1), 44_100)
    words = (
        "vary",
        tmp_path / "my loop.wav",
        "dusty drums",
        "--bpm",
        120,
        "--model",
        "tiny",
        "-n",
        2,
        "--seed",
        1,
    )
    done = run(*words, "--out", tmp_path / "o", "--include-source", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [pathlib.Path(loop["file"]).name[-6:] for loop in told["loops"]] == ["00.wav", "01.wav", "02.wav"]
    for loop in told["loops"]:
        info = soundfile.info(loop["file"])
        assert (info.frames, info.samplerate, info.channels) == (4 * 44_100, 44_100, 2)
    assert any("stereo and the model makes mono" in note for note in told["notes"])
    packed = (*words, "--out", tmp_path / "p", "--rate", 48_000, "--pack", "--bars", 1)
    done = run(*packed)
    (pack,) = (path for path in (tmp_path / "p").iterdir() if path.is_dir())
    assert {soundfile.info(file).frames for file in pack.glob("*.wav")} == {2 * 48_000}, done.stderr
    monkeypatch.setattr(LoopMaker, "load", lambda *_: pytest.fail("loaded"))
    again = run(*packed)
    assert again.returncode == 1 and "is there already" in again.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("samples", "words", "said"),
    [
        (np.zeros(256_000), (), "the recording is silent, and there is nothing to go on from"),
        (drum_track(120, 8), ("--bars", 3, "--max-duration", 2), "--bars cannot be 3 in at most 2 s"),
        (drum_track(120, 8), ("--bars", 6), "--bars cannot be 6: at 120 BPM there is room for 4"),
        (drum_track(40, 1), ("--bpm", 40), "pass more audio"),
        (drum_track(120, 8), ("--rate", 96_000), "--rate must be 32000, 44100 or 48000"),
    ],
)
def test_what_cannot_be_varied_is_a_sentence_before_a_model_is_loaded(
    tmp_path, monkeypatch, samples, words, said
):
    monkeypatch.setattr(LoopMaker, "load", lambda *_: pytest.fail("loaded"))
    soundfile.write(tmp_path / "x.wav", samples, 32_000)
    out = ("--model", "tiny", "--out", tmp_path / "o")
    done = run("vary", tmp_path / "x.wav", "x", "--bpm", 120, *out, *words)
    assert done.returncode == 1 and said in done.stderr.replace("\n", " "), done.stderr
    assert not (tmp_path / "o").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "channels"), [(44_100, 2), (48_000, 1), (96_000, 2), (32_000, 2)])
def test_cut_keeps_the_rate_and_the_channels_of_its_recording_unless_told(tmp_path, rate, channels):
    played = resample_poly(drum_track(118, 6), rate // 100, 320)
    soundfile.write(tmp_path / "jam.wav", np.stack([played, -0.5 * played], 1)[:, :channels], rate)
    words = ("cut", tmp_path / "jam.wav", "--bpm", 121.7, "--bars", 2, "--json", "--out")
    told = json.loads(run(*words, tmp_path / "o").stdout)
    info = soundfile.info(told["file"])
    assert (info.samplerate, info.channels, info.frames) == (rate, channels, round(8 * 60 / 121.7 * rate))
    assert told["measured_bpm"] == pytest.approx(118, rel=1e-3) and told["sample_rate"] == rate
    done = run(*words, tmp_path / "s", "--rate", 48_000, "--depth", 24, "--names", "splice")
    (shop,) = (tmp_path / "s").iterdir()
    info = soundfile.info(shop)
    assert (info.samplerate, info.channels, info.frames) == (48_000, channels, round(8 * 60 / 121.7 * 48_000))
    assert info.subtype == "PCM_24" and re.fullmatch(r"122_jam(_[A-G]b?(maj|min))?\.wav", shop.name), done


@pytest.mark.slow
def test_make_and_packs_come_at_the_rate_that_was_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(LoopMaker, "load", lambda *_: LoopMaker(FakeGenerator()))
    wish = ("techno", "--bpm", 126.5, "-n", 2, "--bars", 1, "--model", "tiny", "--seed", 1, "--json")
    for more, subtype in (((), "PCM_16"), (("--pack",), "PCM_24")):
        out = ("--rate", 44_100, "--out", tmp_path / subtype)
        done = run("make", *wish, *out, *more)
        assert done.returncode == 0, done.stderr
        for loop in json.loads(done.stdout)["loops"]:
            info = soundfile.info(loop["file"])
            assert info.frames == loop["samples"] == round(4 * 60 / 126.5 * 44_100)
            assert info.samplerate == loop["sample_rate"] == 44_100 and info.subtype == subtype


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["make", " ", "--model", "tiny"], 1, "prompt must not be empty"),
        (["make", "x", "--model", "tiny", "--bpm", "12"], 1, "--bpm must be between 40 and 300, got 12"),
        (["make", "x", "--model", "tiny", "--bpm", "fast"], 2, "Invalid value"),
        (
            ["make", "x", "--model", "tiny", "--bars", "3", "--max-duration", "2"],
            1,
            "--bars cannot be 3 in at most 2 s: they last 5.143 s at 140 BPM; ask for fewer, or allow 5.15 s",
        ),
        (["make", "x", "--model", "tiny", "--key", "H dur"], 1, "--key must be a note and major or minor"),
        (["make", "x", "--model", "tiny", "--rate", "96000"], 1, "--rate must be 32000, 44100 or 48000"),
        (["make", "x", "--model", "tiny", "--names", "mine"], 1, "--names must be one of plain, splice"),
        (["make", "x", "--model", "tiny", "--bars", "5"], 1, "--bars must be 1, 2, 4, 8 or another"),
        (["make", "x", "--model", "medium"], 1, "looper weights get medium"),
        (["make", "x", "--model", "nothing"], 1, "unknown model 'nothing'"),
        (["make", "x", "--model", "tiny", "--format", "aiff"], 1, "--format must be one of"),
        (["make", "x", "--model", "tiny", "--guidance", "999"], 1, "--guidance must be between -100 and 100"),
        (
            ["make", "x", "--model", "tiny", "--max-duration", "nan"],
            1,
            "--max-duration must be a finite number",
        ),
        (
            ["make", "x", "--model", "tiny", "--beats-per-bar", "0"],
            1,
            "--beats-per-bar must be between 1 and 16",
        ),
        (["cut", "missing.wav", "--bpm", "120"], 1, "no such file"),
        (["cut", "/dev/zero", "--bpm", "120"], 1, "/dev/zero is no regular file"),
        (["make", "x", "--model", "tiny", "--out", "o" * 300], 1, "File name too long"),
        (["weights", "get", "tiny2"], 1, "tiny2"),
        (["make", "x", "--model", "tiny", "--out", "/proc/x"], 1, "--out"),
        (["make", "x", "--model", "tiny", "--plot", "/nope/x.png"], 1, "its folder must be there"),
        (["make", "x", "--model", "tiny", "--plot", "x.txt"], 1, "must end in"),
        (["make", "x", "--model", "tiny", "--format", "flac", "--depth", "float"], 1, "does not go with"),
        (["make", "x", "--model", "tiny", "--temperature", "1e39"], 1, "between 0 and 100"),
        (["weights", "path", "w[/b]"], 1, "w[/b]"),
        (["serve", "--port", "99999"], 2, "Invalid value"),
        (["serve", "--at-once", "0"], 2, "Invalid value"),
        ([], 2, "Usage"),
    ],
)
def test_errors_are_one_sentence_with_an_exit_code(words, code, said):
    done = run(*words)
    assert done.returncode == code, done.stdout + done.stderr
    assert said in (done.stdout + done.stderr).replace("\n", " ")
    assert "Traceback" not in done.stderr


def test_a_file_that_is_no_recording_is_named(tmp_path):
    (tmp_path / "x.wav").write_text("not audio")
    done = run("cut", tmp_path / "x.wav", "--bpm", "120")
    assert done.returncode == 1 and "x.wav" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--max-duration", 0.3], "--max-duration must hold at least one beat, at 120 BPM 0.50 s, got 0.3"),
        (["--max-duration", "nan"], "--max-duration must be a finite number"),
        (["--max-duration", "inf"], "--max-duration must be a finite number"),
        (["--max-duration", "1e308"], "--max-duration must be between 0 and 3600"),
        (["--max-duration", "-1"], "--max-duration must be above 0"),
        (["--bars", 8], "--bars cannot be 8: at 120 BPM there is room for 4; ask for that, or pass a longer"),
        (["--bars", 3, "--max-duration", 2], "--bars cannot be 3 in at most 2 s: they last 6 s at 120 BPM"),
        (["--rate", 22_050], "--rate must be 32000, 44100 or 48000, got 22050"),
        (["--bars", 7], "--bars must be 1, 2, 4, 8 or another power of two, or 3 or 6, got 7"),
        (["--bpm", 12], "--bpm must be between"),
        (["--bpm", 0, "--max-duration", 5], "--bpm must be between 40 and 300, got 0"),
        (["--bpm", "inf", "--max-duration", 5], "--bpm must be a finite number"),
        (["--bpm", "nan", "--max-duration", 5], "--bpm must be a finite number"),
        (["--bpm", "-120", "--max-duration", 5], "--bpm must be between 40 and 300, got -120"),
        (["--bpm", "1e-320", "--max-duration", 5], "--bpm must be between 40 and 300"),
        (["--beats-per-bar", 0], "--beats-per-bar must be between"),
        (["--beats-per-bar", 0, "--max-duration", 5], "--beats-per-bar must be between"),
        (["--min-start", "inf"], "--min-start must be a finite number"),
    ],
)
def test_what_cannot_be_cut_is_refused(recording, tmp_path, words, said):
    done = run("cut", recording, "--bpm", 120, "--out", tmp_path / "o", *words)
    assert done.returncode == 1 and said in done.stderr.replace("\n", " "), done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "o").exists()


@pytest.mark.slow
def test_cut_never_writes_over_its_own_recording_and_says_where_the_loop_went(tmp_path):
    source = tmp_path / "deep-house-session-recording-at-my-place_120bpm_8bars.wav"
    soundfile.write(source, drum_track(120.0, 20), 32000)
    before = source.read_bytes()
    for number in (2, 2, 3):  # the same loop is the same file; another one is another
        more = ("--depth", 24) if number == 3 else ()
        done = run("cut", source, "--bpm", 120, "--max-duration", 16, "--out", tmp_path, "--json", *more)
        assert done.returncode == 0, done.stderr
        name = f"deep-house-session-recording-at-my-place_120bpm_8bars-{number}.wav"
        assert json.loads(done.stdout)["file"] == str(tmp_path / name)
        assert f"is there already and stays as it is: written as {name}" in done.stderr
    assert source.read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "locale"),
    [
        (("ドラム.wav", "ベース.wav"), "POSIX"),
        (("ドラム.wav", "ベース.wav"), None),
        (("take.wav", "take.flac"), None),
        (("x" * 40 + "-one.wav", "x" * 40 + "-two.wav"), None),
    ],
    ids=["another script, POSIX", "another script", "another suffix", "the first 40 characters"],
)
def test_recordings_whose_loops_would_have_one_name_keep_a_loop_each(tmp_path, names, locale):
    wanted, found = [], []
    for k, name in enumerate(names):
        soundfile.write(tmp_path / name, drum_track(120.0, 9) * (1, -1)[k], 32000)
        wish = ("cut", tmp_path / name, "--bpm", 120, "--out", tmp_path / "o", "--json")
        if locale is None or k == 0:
            done = run(*wish)
        else:  # of a whole process
            plain = {**os.environ, "LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
            done = process(*wish, env=plain)
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout)["file"])
        wanted.append((tmp_path / "o" / found[-1]).read_bytes())
    assert found[1] == found[0].removesuffix(".wav") + "-2.wav" and wanted[0] != wanted[1]
    assert [pathlib.Path(file).read_bytes() for file in found] == wanted


@pytest.mark.parametrize("way", ["o/../jam.png", "link.png", "hard.png"])
def test_the_picture_never_replaces_the_recording(recording, tmp_path, way):
    odd = tmp_path / "jam.png"
    odd.write_bytes(recording.read_bytes())
    (tmp_path / "link.png").symlink_to(odd)
    (tmp_path / "hard.png").hardlink_to(odd)
    done = run("cut", odd, "--bpm", 120, "--out", tmp_path / "o", "--plot", tmp_path / way)
    assert done.returncode == 1 and "--plot must not be the recording itself" in done.stderr
    assert odd.read_bytes() == recording.read_bytes()


def test_names_that_are_not_utf_8_are_cut_and_shown(recording, tmp_path):
    odd = os.fsencode(tmp_path) + b"/caf\xe9.wav"
    recording.rename(os.fsdecode(odd))
    done = run("cut", os.fsdecode(odd), "--bpm", 120, "--out", os.fsdecode(os.fsencode(tmp_path) + b"/o\xe9"))
    assert done.returncode == 0, done.stderr
    done = run("cut", os.fsdecode(odd) + "x", "--bpm", 120, "--out", tmp_path)
    assert done.returncode == 1 and "no such file" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_set_that_is_there_already_with_other_sound_is_kept(tmp_path, monkeypatch):
    class Tempered(FakeGenerator):
        def generate(self, request, progress=None):
            self.deviation = lambda key: 0.01 * (request.sampling.temperature < 1)
            return super().generate(request, progress)

    monkeypatch.setattr(LoopMaker, "load", lambda *_: LoopMaker(Tempered()))
    wish = ("make", "x", "--model", "tiny", "-n", 1, "--max-duration", 2, "--seed", 1, "--out", tmp_path)
    assert run(*wish, "--json").returncode == 0
    (first,) = tmp_path.iterdir()
    before = first.read_bytes()
    assert run(*wish, "--json").returncode == 0  # the same again is the same file
    assert list(tmp_path.iterdir()) == [first] and first.read_bytes() == before
    done = run(*wish, "--json", "--temperature", 0.5)
    assert done.returncode == 0, done.stderr
    assert any("is there already and stays as it is" in note for note in json.loads(done.stdout)["notes"])
    assert first.read_bytes() == before and len(list(tmp_path.iterdir())) == 2


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["raw", "pcm", "txt"])
def test_text_under_any_name_is_no_recording(tmp_path, suffix):
    (tmp_path / f"x.{suffix}").write_text("words " * 2000)
    done = run("cut", tmp_path / f"x.{suffix}", "--bpm", "120")
    assert done.returncode == 1 and "is not a recording" in done.stderr and "Traceback" not in done.stderr


def test_silence_is_cut_on_the_asked_grid_and_said_to_be_beatless(tmp_path):
    soundfile.write(tmp_path / "s.wav", np.zeros(8 * 32000), 32000)
    done = run("cut", tmp_path / "s.wav", "--bpm", 120, "--out", tmp_path, "--json")
    assert done.returncode == 0 and "no clear beat" in done.stderr
    assert json.loads(done.stdout)["confidence"] == 0


@pytest.mark.slow
def test_paths_with_markup_or_control_characters_are_kept_as_they_are_or_cleaned(recording, tmp_path):
    odd = tmp_path / "take [red]\n\x1b one.wav"
    odd.write_bytes(recording.read_bytes())
    done = run("cut", odd, "--bpm", 120, "--out", tmp_path / "w[b]")
    assert done.returncode == 0, done.stderr
    (written,) = (tmp_path / "w[b]").iterdir()
    assert written.name.isprintable() and "w[b]" in re.sub(r"[^\w\[\]/.-]", "", done.stdout)


def test_an_unwritable_folder_is_an_error_without_leftovers(recording, tmp_path):
    (tmp_path / "file").write_text("in the way")
    done = run("cut", recording, "--bpm", 120, "--out", tmp_path / "file" / "loops")
    assert done.returncode == 1 and "looper:" in done.stderr and "Traceback" not in done.stderr


@pytest.fixture
def in_repository(monkeypatch):
    monkeypatch.delenv("LOOPER_WEIGHTS", raising=False)


@pytest.mark.usefixtures("in_repository")
def test_weights_list_and_verify_know_the_models_and_nothing_else():
    from looper.checkpoints.sources import fetchable

    known = sorted(["tiny", *fetchable()])
    rows = json.loads(run("weights", "list", "--json").stdout)
    assert [row["name"] for row in rows] == known
    assert [row["name"] for row in rows if row["here"]] == ["tiny"]
    table = run("weights", "list").stdout
    assert re.findall(r"^\W*([\w-]+)\W+(?:here|missing)\b", table, re.M) == known
    assert "tiny: ok" in run("weights", "verify", "tiny").stdout


@pytest.mark.parametrize(
    ("root", "words", "said"),
    [
        ("empty", ["verify"], "no models in {root}"),
        ("nowhere", ["verify"], "no models in {root}"),
        ("file", ["verify"], "{root} is not a folder: set LOOPER_WEIGHTS"),
        ("file", ["list"], "{root} is not a folder: set LOOPER_WEIGHTS"),
        ("file", ["get", "medium"], "{root} is not a folder: set LOOPER_WEIGHTS"),
        ("file", ["path", "tiny"], "{root} is not a folder: set LOOPER_WEIGHTS"),
    ],
)
def test_a_place_without_models_is_an_error(tmp_path, monkeypatch, root, words, said):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LOOPER_WEIGHTS", str(tmp_path / root))
    done = run("weights", *words)
    assert done.returncode == 1 and done.stdout == "", done.stdout
    assert said.format(root=tmp_path / root) in done.stderr.replace("\n", " ")


@pytest.mark.slow
def test_processes_that_try_one_new_folder_at_once_are_not_in_each_others_way(tmp_path):
    code = (
        "import pathlib, sys; from looper.cli.options import check_outputs\n"
        "for k in range(300): check_outputs(pathlib.Path(sys.argv[1], 'a', 'b'), None)"
    )
    all_of_them = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.PIPE) for _ in "123"
    ]
    assert [process.communicate(timeout=120)[1] for process in all_of_them] == [b""] * 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["weights", "verify", "tiny"],
        ["cut", "{recording}", "--bpm", "120", "--out", "{folder}", "--json"],
        ["make", " ", "--model", "tiny"],
    ],
    ids=" ".join,
)
def test_a_process_does_what_the_other_tests_see_without_one(recording, tmp_path, words):
    given = [word.format(recording=recording, folder=tmp_path / "o") for word in words]
    done, here = process(*given), run(*given)
    assert (done.returncode, done.stdout, done.stderr) == (here.returncode, here.stdout, here.stderr)


@pytest.mark.slow
def test_importing_looper_needs_neither_torch_nor_audiocraft():
    code = (
        "import sys, looper, looper.beats.grid, looper.loops.cut, looper.files.write, looper.request, looper.cli.main;"
        "print([m for m in ('torch', 'audiocraft') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr
