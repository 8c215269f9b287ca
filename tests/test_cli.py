import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from tests.conftest import drum_track


def run(*words, **how):
    return subprocess.run(
        [sys.executable, "-m", "looper.cli", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=280,
        **how,
    )


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "jam.wav"
    soundfile.write(path, drum_track(118.0, 12), 32000)
    return path


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


def test_a_pack_is_a_folder_with_a_description_and_a_zip(tmp_path):
    import zipfile

    wish = ("-n", 2, "--max-duration", 2, "--model", "tiny", "--seed", 1)
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


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "ogg"])
def test_cut_makes_an_exact_loop_of_a_recording(recording, tmp_path, suffix):
    done = run("cut", recording, "--bpm", 120, "--format", suffix, "--out", tmp_path / "o", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["measured_bpm"] == pytest.approx(118, rel=1e-3)
    assert soundfile.info(told["file"]).frames == round(told["bars"] * 4 * 60 / 120 * 32000)


def test_cut_keeps_stereo_and_draws_a_picture(tmp_path):
    both = np.stack([drum_track(120, 9), 0.5 * drum_track(120, 9)], axis=1)
    soundfile.write(tmp_path / "s.flac", both, 32000)
    done = run(
        "cut", tmp_path / "s.flac", "--bpm", 120, "--out", tmp_path, "--plot", tmp_path / "s.png", "--json"
    )
    assert done.returncode == 0, done.stderr
    assert soundfile.info(json.loads(done.stdout)["file"]).channels == 2
    assert (tmp_path / "s.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["make", " ", "--model", "tiny"], 1, "prompt must not be empty"),
        (["make", "x", "--model", "tiny", "--bpm", "12"], 1, "bpm must be between 40 and 300, got 12"),
        (["make", "x", "--model", "tiny", "--bpm", "fast"], 2, "not a valid"),
        (["make", "x", "--model", "medium"], 1, "looper weights get medium"),
        (["make", "x", "--model", "nothing"], 1, "unknown model 'nothing'"),
        (["make", "x", "--model", "tiny", "--format", "aiff"], 1, "format must be one of"),
        (["cut", "missing.wav", "--bpm", "120"], 1, "no such file"),
        (["weights", "get", "tiny2"], 1, "tiny2"),
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


def test_an_unwritable_folder_is_an_error_without_leftovers(recording, tmp_path):
    (tmp_path / "file").write_text("in the way")
    done = run("cut", recording, "--bpm", 120, "--out", tmp_path / "file" / "loops")
    assert done.returncode == 1 and "looper:" in done.stderr and "Traceback" not in done.stderr


def test_weights_list_and_verify_know_tiny():
    rows = json.loads(run("weights", "list", "--json").stdout)
    assert {row["name"]: row["here"] for row in rows}["tiny"] is True
    assert "tiny: ok" in run("weights", "verify", "tiny").stdout


def test_importing_looper_needs_neither_torch_nor_audiocraft():
    code = (
        "import sys, looper, looper.beats, looper.loops, looper.export, looper.request, looper.cli;"
        "print([m for m in ('torch', 'audiocraft') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr
