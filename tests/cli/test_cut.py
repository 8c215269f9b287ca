"""Cutting without a tempo, many recordings at once, and what is told of a recording."""

import json

import numpy as np
import pytest
import soundfile

from testkit.command_line import run
from testkit.fakes import drum_track


@pytest.fixture
def jams(tmp_path):
    """A folder of three recordings, one without a beat, and what is none."""
    folder = tmp_path / "jams"
    folder.mkdir()
    soundfile.write(folder / "a.wav", drum_track(118, 12), 32_000)
    soundfile.write(folder / "b.flac", np.stack([drum_track(93.7, 12)] * 2, 1), 32_000)
    soundfile.write(folder / "c.wav", np.zeros(320_000), 32_000)
    (folder / "notes.txt").write_text("not audio")
    return folder


@pytest.mark.slow
def test_without_a_tempo_the_likeliest_is_cut_and_all_are_told(tmp_path, jams):
    done = run("cut", jams / "a.wav", "--bars", 2, "--out", tmp_path / "o", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["bpm"] == 118.0 and soundfile.info(told["file"]).frames == round(8 * 60 / 118 * 32_000)
    assert told["tempi"][0]["bpm"] == pytest.approx(118, rel=1e-3) and len(told["tempi"]) > 1
    assert "tempo found: 118.0" in done.stderr and "--bpm decides otherwise" in done.stderr
    decided = run("cut", jams / "a.wav", "--bpm", 59, "--out", tmp_path / "p", "--json")
    assert json.loads(decided.stdout)["bpm"] == 59 and "tempi" not in json.loads(decided.stdout)


@pytest.mark.slow
def test_a_folder_is_cut_file_by_file_and_what_cannot_be_is_named(tmp_path, jams):
    done = run("cut", jams, "--out", tmp_path / "o", "--json")
    assert done.returncode == 1
    first, second, silent = json.loads(done.stdout)
    assert (first["bpm"], second["bpm"]) == (118.0, pytest.approx(93.7, abs=0.02))
    assert soundfile.info(second["file"]).channels == 2
    assert silent["error"].endswith("c.wav: say its tempo with --bpm") and "no beat was found" in done.stderr
    assert len(list((tmp_path / "o").iterdir())) == 2
    table = run("cut", jams / "a.wav", jams / "missing.wav", "--bpm", 120, "--out", tmp_path / "p")
    assert table.returncode == 1 and "no such file" in table.stderr and "a_120bpm_4bars.wav" in table.stdout


def test_what_a_mac_keeps_beside_its_files_is_no_recording_of_a_folder(tmp_path, jams):
    (jams / "c.wav").unlink()
    (jams / "b.flac").unlink()
    (jams / "._a.wav").write_bytes(b"\0\5\x16\7")
    done = run("cut", jams, "--bpm", 118, "--out", tmp_path / "o")
    assert done.returncode == 0 and "._a" not in done.stderr


@pytest.mark.slow
def test_a_name_does_not_write_to_the_terminal(tmp_path, jams):
    nasty = jams / "\x1b[2Jred\n.wav"
    nasty.write_text("not audio")
    for files in ([nasty], [nasty, jams / "missing.wav"]):
        said = run("cut", *files, "--bpm", 118, "--out", tmp_path / "o").stderr
        assert "\x1b[2J" not in said and r"\x1b[2Jred" in said


@pytest.mark.slow
def test_a_loop_cut_once_more_is_not_named_twice(tmp_path, jams):
    first = json.loads(run("cut", jams / "a.wav", "--bpm", 118, "--out", tmp_path, "--json").stdout)["file"]
    again = run("cut", first, "--bpm", 120, "--bars", 2, "--out", tmp_path / "o", "--json")
    assert json.loads(again.stdout)["file"].endswith("o/a_120bpm_2bars.wav")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("{jams}", "--plot", "{jams}/x.png"), "--plot draws one recording"),
        (("{empty}",), "no recordings in"),
        (("{jams}/c.wav",), "no beat was found in"),
        (("{jams}", "--bars", "5"), "--bars must be 1, 2, 4, 8"),
        (("{jams}/a.wav", "--bars", "3", "--max-duration", "2"), "--bars cannot be 3 in at most 2 s"),
    ],
)
def test_what_cannot_be_cut_without_a_tempo_is_a_sentence_and_leaves_nothing(tmp_path, jams, words, said):
    (tmp_path / "empty").mkdir()
    given = [word.format(jams=jams, empty=tmp_path / "empty") for word in words]
    done = run("cut", *given, "--out", tmp_path / "o")
    assert done.returncode == 1 and said in done.stderr.replace("\n", " "), done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "o").exists()


@pytest.mark.slow
def test_analyse_tells_tempo_beats_bar_lines_and_the_best_loop(jams):
    told = json.loads(run("analyse", jams / "b.flac", "--json").stdout)
    assert told["bpm"] == pytest.approx(93.7, rel=1e-3) and told["channels"] == 2
    beats, bar_lines = np.array(told["beats"]), np.array(told["bar_lines"])
    assert np.diff(beats) == pytest.approx(60 / 93.7, abs=2e-3)
    assert np.diff(bar_lines) == pytest.approx(4 * 60 / 93.7, abs=4e-3)
    assert told["loop_end"] - told["loop_start"] == pytest.approx(told["bars"] * 4 * 60 / 93.7, abs=5e-3)
    assert told["tempi"][0]["bpm"] == pytest.approx(93.7, rel=1e-3) and told["key"] is None
    table = run("analyse", jams / "b.flac")
    assert "93.70 BPM (" in table.stdout and "confidence" in table.stdout
    silent = run("analyse", jams / "c.wav")
    assert silent.returncode == 1 and "no beat was found in" in silent.stderr
    asked = json.loads(run("analyse", jams / "c.wav", "--bpm", 120, "--json").stdout)
    assert asked["confidence"] == 0 and asked["tempi"] == []
