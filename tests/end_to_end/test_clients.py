"""The example clients against the real server on weights/tiny: what they write is what the server made.

They all ask for the same four loops: the first one's are made, and the others are given the same reply. What a server
refuses each of them hears from the server itself.
"""

import os
import pathlib
import shutil
import subprocess
import sys

import httpx
import pytest
import soundfile

from looper.export.unpack import unpack
from testkit.replicate_api import TOKEN, replicate_api

CLIENTS = pathlib.Path(__file__).parents[2] / "examples" / "clients"
pytestmark = pytest.mark.server
WISH = {"prompt": "deep house, warm chords", "bpm": 124, "variations": 4, "seed": 1}


def ask(address, wish):
    return httpx.post(f"{address}/predictions", json={"input": wish}, timeout=300)


@pytest.fixture(scope="module")
def expected(repeater, tmp_path_factory):
    """Files of the four loops, asked for without a client."""
    files = unpack(ask(repeater, WISH).content, tmp_path_factory.mktemp("expected"))
    assert len(files) == 4 and files[0].name.startswith("deep-house-warm-chords_124bpm_4bars_")
    return [file.read_bytes() for file in files]


def run(tmp_path, *command, **environment):
    looper = tmp_path / "bin" / "looper"
    looper.parent.mkdir()
    looper.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m looper "$@"\n')
    looper.chmod(0o755)
    path = os.pathsep.join([str(looper.parent), os.environ["PATH"]])
    env = {**os.environ, "PATH": path, **environment}
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280, env=env)


@pytest.mark.parametrize(
    ("program", "client"),
    [("sh", "loops.sh"), (sys.executable, "loops_http.py"), ("node", "loops_http.mjs")],
)
def test_a_client_writes_the_four_loops_and_no_file_for_the_nulls(
    repeater, expected, tmp_path, program, client
):
    assert shutil.which(program), f"the example clients need {program}: install it"
    done = run(tmp_path, program, CLIENTS / client, repeater)
    assert done.returncode == 0, done.stdout + done.stderr
    files = sorted((tmp_path / "loops").iterdir())
    assert [file.read_bytes() for file in files] == expected
    assert {soundfile.info(file).frames for file in files} == {round(16 * 60 / 124 * 32000)}
    assert sorted(done.stdout.split()) == [str(file.relative_to(tmp_path)) for file in files]


@pytest.mark.parametrize(
    ("program", "client"),
    [("sh", "loops.sh"), (sys.executable, "loops_http.py"), ("node", "loops_http.mjs")],
)
def test_a_client_says_why_a_prediction_failed_and_writes_nothing(server, tmp_path, program, client):
    text = (CLIENTS / client).read_text()
    assert text.count("deep house, warm chords") == 1
    (tmp_path / client).write_text(text.replace("deep house, warm chords", ""))
    done = run(tmp_path, program, client, f"http://127.0.0.1:{server.port}")
    assert done.returncode != 0 and "prompt must not be empty" in done.stdout + done.stderr
    assert not (tmp_path / "loops").exists()


# What Replicate's own packages would need is not installed with the tests: those two are read here, not run.
def test_the_shell_client_of_replicate_waits_and_downloads_the_four_loops(repeater, expected, tmp_path):
    with replicate_api(lambda wish: ask(repeater, {**wish, "seed": 1}).json()) as api:
        keys = {"REPLICATE_API": f"{api}/v1", "REPLICATE_API_TOKEN": TOKEN}
        done = run(tmp_path, "sh", CLIENTS / "loops_replicate.sh", "owner/model:abc", **keys)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [file.read_bytes() for file in sorted((tmp_path / "loops").iterdir())] == expected


def test_the_clients_of_replicates_packages_are_programs(tmp_path):
    compile((CLIENTS / "loops_replicate.py").read_text(), "loops_replicate.py", "exec")
    done = run(tmp_path, "node", "--check", CLIENTS / "loops_replicate.mjs")
    assert done.returncode == 0, done.stderr
