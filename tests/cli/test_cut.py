"""Cutting without a tempo, many recordings at once, and what is told of a recording."""

import json

import numpy as np
import pytest
import soundfile

from looper.beats.unknown_tempo import find_tempi
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


@pytest.mark.parametrize("bpm", [61.3, 93.7, 118, 127.003, 140, 174])
def test_the_tempo_is_among_the_candidates_and_their_probabilities_add_up(bpm):
    found = find_tempi(drum_track(bpm, 12), 32_000)
    assert any(candidate.bpm == pytest.approx(bpm, rel=2e-3) for candidate in found[:3])
    octaves = [bpm * 2.0**k for k in (-1, 0, 1)]
    assert any(found[0].bpm == pytest.approx(octave, rel=2e-3) for octave in octaves)
    assert sum(candidate.confidence for candidate in found) == pytest.approx(1)
    assert [c.confidence for c in found] == sorted((c.confidence for c in found), reverse=True)


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(320_000),
        0.1 * np.random.default_rng(4).standard_normal(320_000),
        np.sin(np.arange(320_000) / 20),
    ],
    ids=["silence", "noise", "a tone"],
)
def test_what_has_no_beat_has_no_tempo(samples):
    assert find_tempi(samples, 32_000) == []


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (np.zeros(0), "empty"),
        (np.full(64_000, np.nan), "NaN"),
        (drum_track(120, 1), "too short to find its tempo"),
    ],
)
def test_what_no_tempo_can_be_found_in_is_a_sentence(samples, words):
    with pytest.raises(ValueError, match=words):
        find_tempi(samples, 32_000)


def test_without_a_tempo_the_likeliest_is_cut_and_all_are_told(tmp_path, jams):
    done = run("cut", jams / "a.wav", "--bars", 2, "--out", tmp_path / "o", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["bpm"] == 118.0 and soundfile.info(told["file"]).frames == round(8 * 60 / 118 * 32_000)
    assert told["tempi"][0]["bpm"] == pytest.approx(118, rel=1e-3) and len(told["tempi"]) > 1
    assert "tempo found: 118.0" in done.stderr and "--bpm decides otherwise" in done.stderr
    decided = run("cut", jams / "a.wav", "--bpm", 59, "--out", tmp_path / "p", "--json")
    assert json.loads(decided.stdout)["bpm"] == 59 and "tempi" not in json.loads(decided.stdout)


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


def test_a_name_does_not_write_to_the_terminal(tmp_path, jams):
    nasty = jams / "\x1b[2Jred\n.wav"
    nasty.write_text("not audio")
    for files in ([nasty], [nasty, jams / "missing.wav"]):
        said = run("cut", *files, "--bpm", 118, "--out", tmp_path / "o").stderr
        assert "\x1b[2J" not in said and r"\x1b[2Jred" in said


def test_a_loop_cut_once_more_is_not_named_twice(tmp_path, jams):
    first = json.loads(run("cut", jams / "a.wav", "--bpm", 118, "--out", tmp_path, "--json").stdout)["file"]
    again = run("cut", first, "--bpm", 120, "--bars", 2, "--out", tmp_path / "o", "--json")
    assert json.loads(again.stdout)["file"].endswith("o/a_120bpm_2bars.wav")


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


def test_a_recording_of_a_second_and_a_half_is_long_enough_to_find_its_tempo_in():
    found = find_tempi(drum_track(160, 1.5), 32_000)
    assert sum(tempo.confidence for tempo in found) == pytest.approx(1) or found == []
    with pytest.raises(ValueError, match=r"the recording lasts 1\.50 s, too short"):
        find_tempi(drum_track(160, 1.5)[:-1], 32_000)
