import json
import os
import signal
from functools import partial

import pytest

from looper.pipeline.maker import LoopMaker
from testkit.command_line import run
from testkit.fakes import FakeMaker

TABLE = "prompt,bpm,variations,max_duration,seed\n" + "".join(f"slow,{90 + k},1,2,{k}\n" for k in range(5))


@pytest.fixture
def looper(monkeypatch):
    """`looper batch`, with models that are stood in for."""
    monkeypatch.setattr(LoopMaker, "load", FakeMaker.load)
    return partial(run, "batch")


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "requests.csv"
    path.write_text(TABLE)
    return path


def manifest(out):
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_a_table_becomes_packs_and_the_summary_says_how_many(looper, tmp_path, table):
    out = tmp_path / "packs"
    done = looper(table, "--out", out, "--model", "tiny", "--verify")
    assert done.returncode == 0, done.stderr
    assert "5 packs made" in done.stdout and "all packs are as they were made" in done.stdout
    assert sorted(record["line"] for record in manifest(out)) == [2, 3, 4, 5, 6]
    damaged = next(out.rglob("*.wav"))
    damaged.write_bytes(b"")
    checked = looper("--verify", out)
    assert checked.returncode == 1 and damaged.name in checked.stderr


@pytest.mark.slow
def test_standard_input_is_read_and_a_failed_line_gives_exit_code_1(looper, tmp_path):
    lines = [{"prompt": prompt, "max_duration": 2, "model": "tiny"} for prompt in ("house", "broken", "dub")]
    done = looper("-", "--out", tmp_path, text="\n".join(map(json.dumps, lines)))
    assert done.returncode == 1
    assert "line 2: failed: the model's output stopped being finite" in done.stderr
    assert "2 packs made, 1 failed" in done.stdout
    again = looper("-", "--out", tmp_path, text="\n".join(map(json.dumps, lines)))
    assert again.returncode == 1 and "2 packs made, 1 failed" in again.stdout
    assert len(manifest(tmp_path)) == 3


def test_bad_lines_are_all_named_before_anything_is_made(looper, tmp_path, table):
    table.write_text(TABLE + "house,999,1,2,1\nhouse,120,0,2,1\n")
    done = looper(table, "--out", tmp_path / "packs", "--model", "tiny")
    assert done.returncode == 1
    assert "line 7: bpm must be between 40 and 300, got 999" in done.stderr
    assert "line 8: variations must be between 1 and 20, got 0" in done.stderr
    assert not (tmp_path / "packs").exists()


@pytest.mark.slow
def test_ctrl_c_ends_it_with_130_and_the_same_command_goes_on(looper, tmp_path, table, monkeypatch):
    out = tmp_path / "packs"
    words = (table, "--out", out, "--model", "tiny", "--in-flight", 1)
    make, calls = FakeMaker.make, []

    def pressed(self, *args):  # Ctrl-C in the midst of the third line
        calls.append(args)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return make(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(FakeMaker, "make", pressed)
        try:
            stopped = looper(*words)
        except KeyboardInterrupt:
            pytest.fail("it got out of the command")
    assert stopped.returncode == 130, stopped.stderr
    assert "the same command goes on from here" in stopped.stderr and "Traceback" not in stopped.stderr
    assert len(manifest(out)) == 2
    assert not [
        name for name in (path.name for path in out.iterdir()) if name.startswith(".") and name != ".lock"
    ]
    before = [record["id"] for record in manifest(out)]
    done = looper(*words, "--verify")
    assert done.returncode == 0, done.stderr
    assert [record["id"] for record in manifest(out)][:2] == before and len(manifest(out)) == 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--workers", 2], "--workers goes with --ray"),
        (["--ray", "local", "--device", "cpu"], "--device does not go with --ray"),
        (["--format", "aiff"], "format must be one of wav, mp3, flac, ogg"),
        (["--model", "nothing"], "unknown model 'nothing'"),
    ],
)
def test_what_does_not_go_together_is_refused_before_the_work(looper, tmp_path, table, words, said):
    done = looper(table, "--out", tmp_path / "packs", *words)
    assert done.returncode == 1 and said in done.stderr
    assert not (tmp_path / "packs").exists()


@pytest.mark.slow
def test_packs_of_a_real_model_are_those_of_make_with_pack(tmp_path):
    wish = {"prompt": "techno", "bpm": 126, "variations": 1, "max_duration": 2, "seed": 1, "model": "tiny"}
    words = ("--bpm", 126, "-n", 1, "--max-duration", 2, "--seed", 1, "--model", "tiny", "--pack")
    batch = run("batch", "-", "--out", tmp_path / "packs", text=json.dumps(wish))
    assert batch.returncode == 0, batch.stderr
    made = run("make", "techno", *words, "--out", tmp_path / "made")
    assert made.returncode == 0, made.stderr
    (pack,) = (path for path in (tmp_path / "made").iterdir() if path.is_dir())
    (record,) = manifest(tmp_path / "packs")
    same = tmp_path / "packs" / record["folder"]
    assert same.name == f"{pack.name}_{record['id']}"
    for path in pack.iterdir():
        assert (same / path.name).read_bytes() == path.read_bytes()
    assert {path.name for path in same.iterdir()} - {path.name for path in pack.iterdir()} == {"record.json"}
