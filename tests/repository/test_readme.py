"""The README: every code block that can run here is run, its links lead somewhere, its figures are those measured."""

import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import httpx
import pytest
import soundfile

import looper
from looper.loops.loop import loop_length
from looper.pipeline.maker import LoopMaker
from testkit import command_line
from testkit.fakes import FakeGenerator, drum_track
from testkit.replicate_api import TOKEN, replicate_api

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = [block.groups() for block in re.finditer(r"^```(\w*)\n(.*?)^```$", README, re.M | re.S)]
MINUTES = 280

# What the blocks are known by: words of each. Those run here ...
RUN = {
    "command line": "looper make",
    "python": "looper.LoopMaker",
    "own server": "curl --silent http://localhost:5000",
    "replicate shell": "curl --silent --fail-with-body https://api.replicate.com",
    "replicate python": "import replicate",
    "replicate javascript": 'from "replicate"',
}
# ... and those that cannot, with who tries what they say.
NOT_HERE = {
    "make demo": "installs 5 GB",
    "cog push": "takes Docker and an account",
    "docker run": "takes Docker and a GPU",
    "make wheel": "tests/repository/test_wheel.py",
    "looper serve": "tests/repository/test_wheel.py",
}


def block(name):
    (found,) = [text for _, text in BLOCKS if RUN[name] in text]
    return found


def test_every_code_block_is_run_or_known_not_to_be():
    known = [*RUN.values(), *NOT_HERE]
    for _, text in BLOCKS:
        assert sum(words in text for words in known) == 1, text
    assert len(BLOCKS) == len(known)


def test_no_block_for_the_shell_is_a_trap():
    for language, text in BLOCKS:
        if language == "sh":
            code = re.sub(r"#.*", "", text)
            assert not re.search(r"[<>]|(?<!\|)\|(?!\|)|^\s*\$ ", code, re.M), text
            assert subprocess.run(["sh", "-n"], input=text, text=True).returncode == 0, text


def test_links_lead_to_files_of_the_repository():
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")):
        for link in re.findall(r"\]\(([^)#]+)", page.read_text()):
            assert link.startswith("https://") or (page.parent / link).exists(), f"{page}: {link}"


def test_what_is_to_be_heard_is_small_and_as_long_as_it_says():
    for file in (ROOT / "docs" / "sounds").glob("*.mp3"):
        bpm, bars = map(float, re.search(r"_([\d.]+)bpm_(\d+)bars", file.name).groups())
        assert soundfile.info(file).frames == loop_length(int(4 * bars), bpm, 32000)
        assert file.stat().st_size < 200_000 and f"docs/sounds/{file.name}" in README


def test_the_figures_are_those_of_the_benches():
    results = {
        name: json.loads((ROOT / "bench/results" / f"{name}.json").read_text())
        for name in ("beats", "predict-cpu")
    }
    beats, rows = results["beats"], {row["variations"]: row for row in results["predict-cpu"]}

    def shown(value):
        return f"{value:.2f}".removeprefix("0")

    ours, theirs = beats["looper.analyse"], beats["librosa start_bpm"]
    rates = f"{shown(ours['beat_f'])} | librosa, told the tempo: {shown(theirs['beat_f'])}"
    four, twenty = (f"{rows[n]['seconds']:.1f} s | {rows[n]['ratio_vs_original']:.1f} times" for n in (4, 20))
    assert f"| beat F-measure, 103 labelled clips | {rates} |" in README
    assert f"| {shown(ours['loop_ok'])} | librosa: {shown(theirs['loop_ok'])} |" in README
    assert f"| 4 variations of 8 s by `tiny`, two CPU cores | {four}" in README
    assert f"| 20 variations | {twenty} |" in README


@pytest.fixture
def desk(tmp_path):
    """A folder with a recording, and `looper` and `python` on PATH."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "looper").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m looper "$@"\n')
    (tools / "looper").chmod(0o755)
    soundfile.write(tmp_path / "jam.wav", drum_track(118.0, 12), 32000)
    return tmp_path


def run(desk, *command, **environment):
    path = os.pathsep.join([str(desk / "bin"), os.environ["PATH"]])
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), **environment}
    env.pop("LOOPER_WEIGHTS", None)
    done = subprocess.run(command, cwd=desk, capture_output=True, text=True, timeout=MINUTES, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def here(desk, monkeypatch):
    """The desk is where this process works, and drums are what `tiny` plays: what it makes itself is others' tests'.

    The loops of the real one come from a wheel's `looper` in test_wheel.py, and from Python in tests/examples.
    """
    monkeypatch.chdir(desk)
    monkeypatch.delenv("LOOPER_WEIGHTS", raising=False)

    def load(model, device=None):
        assert (model, device) == ("tiny", None)
        return LoopMaker(FakeGenerator())

    monkeypatch.setattr(LoopMaker, "load", load)
    return desk


@pytest.mark.slow
def test_the_command_line_does_as_the_readme_says(here):
    said = ""
    for line in block("command line").splitlines():
        program, *words = shlex.split(line, comments=True)
        done = command_line.run(*words)
        assert program == "looper" and done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        said += done.stdout
    assert {soundfile.info(p).frames for p in (here / "loops").iterdir()} == {round(8 * 60 / 93.7 * 32000)}
    assert len(list((here / "loops").iterdir())) == 4 and len(list((here / "packs").glob("*.zip"))) == 1
    assert (here / "loops.png").is_file() and (here / "jam.png").is_file()
    assert len(list(here.glob("jam_120bpm_*.wav"))) == 1
    assert "tiny: ok" in said and said.splitlines()[-1] == f"musicgen-looper {looper.__version__}"


@pytest.mark.slow
def test_python_does_as_the_readme_says(here):
    names = {}
    exec(block("python"), names)
    assert names["grid"].bpm == pytest.approx(118, rel=0.01)
    loop, shown = names["loop"], repr(names["loops"])
    assert len(loop.samples) % 16000 == 0 and loop.sample_rate == 32000
    assert (
        shown.startswith("<Loops: 2 of <Loop: 2 bars at 93.7 BPM")
        and "array" not in shown
        and len(shown) < 200
    )
    assert soundfile.info(here / "loop.wav").frames == round(8 * 60 / 93.7 * 32000)
    assert soundfile.info(here / "loop-48k.wav").frames == round(8 * 60 / 93.7 * 48000)
    assert len(names["more"]) == 1


@pytest.mark.server
def test_what_is_asked_of_a_server_arrives_as_files(desk, repeater):
    command = block("own server").replace("http://localhost:5000", repeater)
    run(desk, "sh", "-e", "-c", command)
    files = sorted((desk / "loops").iterdir())
    assert [p.name[-6:] for p in files] == ["01.wav", "02.wav", "03.wav", "04.wav"]
    assert {soundfile.info(p).frames for p in files} == {round(16 * 60 / 124 * 32000)}


@pytest.mark.server
def test_what_is_asked_of_replicate_by_the_shell_arrives_as_files(desk, repeater):
    def ready(wish):
        asked = {"input": {**wish, "variations": 4, "seed": 1}}  # what the server is asked for above
        return httpx.post(f"{repeater}/predictions", json=asked, timeout=MINUTES).json()

    with replicate_api(ready, wait=True) as api:
        command = block("replicate shell").replace("https://api.replicate.com", api)
        run(desk, "sh", "-e", "-c", command, REPLICATE_API_TOKEN=TOKEN)
    assert [p.name[-6:] for p in sorted((desk / "loops").iterdir())] == [f"0{k}.wav" for k in range(1, 5)]


PYTHON_STAND_IN = """
class File:
    def read(self):
        return b"sound"

def run(model, input):
    assert model == "YOU/musicgen-looper:VERSION" and set(input) <= {"prompt", "bpm", "variations"}
    return {f"variation_{k:02d}": File() if k <= input["variations"] else None for k in range(1, 21)}
"""
JAVASCRIPT_STAND_IN = """
export default class {
  async run(model, { input }) {
    const names = Array.from({ length: 20 }, (_, k) => `variation_${String(k + 1).padStart(2, "0")}`);
    return Object.fromEntries(names.map((name, k) => [name, k < input.variations ? Buffer.from("sound") : null]));
  }
}
"""


def test_the_programs_for_replicates_packages_write_the_loops_and_no_nulls(desk):
    """Their packages are stood in for, by what they return."""
    (desk / "replicate.py").write_text(PYTHON_STAND_IN)
    run(desk, sys.executable, "-c", block("replicate python"), PYTHONPATH=str(desk))
    package = desk / "node_modules" / "replicate"
    package.mkdir(parents=True)
    (package / "package.json").write_text('{"name": "replicate", "type": "module", "exports": "./index.js"}')
    (package / "index.js").write_text(textwrap.dedent(JAVASCRIPT_STAND_IN))
    written = sorted(desk.glob("variation_*"))
    assert [p.name for p in written] == [f"variation_{k:02d}.wav" for k in range(1, 5)]
    for file in written:
        assert file.read_bytes() == b"sound"
        file.unlink()
    (desk / "ask.mjs").write_text(block("replicate javascript"))
    run(desk, "node", "ask.mjs")
    assert [p.read_bytes() for p in sorted(desk.glob("variation_*"))] == [b"sound"] * 4
