"""The wheel of this checkout, built and run in an environment of its own, far from any checkout."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import httpx
import pytest
import soundfile

import looper
from looper.export.unpack import unpack
from looper.runtime import packages
from testkit.fakes import drum_track

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MINUTES = 280
NEEDED = ["pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "predict.py", "openapi.json"]


def test_what_a_missing_package_says_is_what_the_project_asks_for():
    assert looper.__version__ == PROJECT["project"]["version"]
    assert PROJECT["tool"]["looper"]["lock"]["audiocraft"] == packages.AUDIOCRAFT
    extras = PROJECT["project"]["optional-dependencies"]
    for module, extra in packages.EXTRAS.items():
        assert any(re.match(rf"{module}\b", requirement) for requirement in extras[extra])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy: setuptools leaves folders behind."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in NEEDED:
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "looper", source / "looper", ignore=shutil.ignore_patterns("__pycache__", "_data"))
    shutil.copytree(ROOT / "weights/tiny", source / "weights/tiny")
    shutil.copy(ROOT / "weights/sources.json", source / "weights")
    # what the lock installs builds it as it is; an older setuptools has pip fetch a newer one
    enough = int(metadata.version("setuptools").partition(".")[0]) >= 77
    alone = ["--no-build-isolation"] if enough else []
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        *alone,
        "--wheel-dir",
        out,
        source,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=MINUTES)
    assert done.returncode == 0, done.stderr
    (made,) = out.iterdir()
    return made


class Installed:
    """`looper` of a wheel in an environment that shares this one's packages, but not its looper."""

    def __init__(self, wheel, folder):
        self.venv, self.home, self.work = folder / "venv", folder / "home", folder / "work"
        self.home.mkdir()
        self.work.mkdir()
        subprocess.run(
            [sys.executable, "-m", "venv", "--without-pip", self.venv], check=True, timeout=MINUTES
        )
        self.python = self.venv / "bin" / "python"
        pip = [sys.executable, "-m", "pip", "--python", self.python, "install", "--quiet", "--no-deps", wheel]
        subprocess.run(pip, check=True, timeout=MINUTES)
        (self.packages,) = self.venv.glob("lib/python*/site-packages")
        # a path in a .pth file is searched last, and .pth files of an editable install in it are not read
        shared = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        (self.packages / "shared.pth").write_text("\n".join(sorted(shared)) + "\n")
        gone = {"PYTHONPATH", "VIRTUAL_ENV", "XDG_DATA_HOME"}
        kept = {k: v for k, v in os.environ.items() if k not in gone and not k.startswith("LOOPER_")}
        self.environment = {**kept, "HOME": str(self.home), "PYTHONDONTWRITEBYTECODE": "1"}

    def run(self, *words, **environment):
        return self._run(self.venv / "bin" / "looper", *words, **environment)

    def _run(self, *command, **environment):
        return subprocess.run(
            command,
            cwd=self.work,
            capture_output=True,
            text=True,
            timeout=MINUTES,
            env={**self.environment, **environment},
        )

    def good(self, *words):
        return self._said(self.run(*words))

    def python_says(self, code):
        return self._said(self._run(self.python, "-c", code))

    @staticmethod
    def _said(done):
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def files(self):
        return sorted(p for p in (self.packages / "looper").rglob("*") if p.is_file())


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    made = Installed(wheel, tmp_path_factory.mktemp("far-away"))
    before = made.files()
    yield made
    assert made.files() == before  # nothing is written into the package


@pytest.mark.slow
def test_the_wheel_holds_all_that_the_program_reads(wheel):
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
    data = {"predict.py", "openapi.json", "weights/sources.json"}
    data |= {
        f"weights/tiny/{name}"
        for name in json.loads((ROOT / "weights/tiny/manifest.json").read_text())["files"]
    }
    page = {p.relative_to(ROOT).as_posix() for p in (ROOT / "looper/web/page").rglob("*") if p.is_file()}
    modules = {p.relative_to(ROOT).as_posix() for p in (ROOT / "looper").rglob("*.py")}
    assert {f"looper/_data/{name}" for name in data} | page | modules | {"looper/py.typed"} <= set(names)
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"looper", f"musicgen_looper-{looper.__version__}.dist-info"}


@pytest.mark.slow
def test_it_runs_from_the_package_and_says_its_version(installed):
    where = installed.python_says("import looper; print(looper.__file__)")
    assert Path(where.strip()).is_relative_to(installed.packages)
    assert installed.good("--version").strip() == f"musicgen-looper {looper.__version__}"
    asked = {"_LOOPER_COMPLETE": "complete_bash", "COMP_WORDS": "looper wei", "COMP_CWORD": "1"}
    assert installed.run(**asked).stdout.split() == ["weights"]


# one start of torch for both; that the `looper` on PATH is this function is seen above
MAKE_AND_CUT = """
import sys
from looper.cli.main import main

for words in ("make techno --bpm 240 -n 1 --max-duration 2 --model tiny --json", "cut jam.wav --bpm 120 --json"):
    sys.argv = ["looper", *words.split()]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
    print("\\f")
"""


@pytest.mark.slow
def test_it_makes_and_cuts_loops(installed):
    soundfile.write(installed.work / "jam.wav", drum_track(118.0, 12), 32000)
    made, cut = map(json.loads, installed.python_says(MAKE_AND_CUT).split("\f")[:2])
    (loop,) = made["loops"]
    assert soundfile.info(installed.work / loop["file"]).frames == round(8 * 60 / 240 * 32000)
    assert (installed.work / cut["file"]).is_file()


@pytest.mark.slow
def test_it_finds_tiny_in_itself_and_other_weights_in_the_users_folder(installed):
    rows = {row["name"]: row for row in json.loads(installed.good("weights", "list", "--json"))}
    assert rows["tiny"]["here"] and Path(rows["tiny"]["folder"]).is_relative_to(installed.packages)
    assert not rows["medium"]["here"]
    assert rows["medium"]["folder"] == str(installed.home / ".local/share/musicgen-looper/weights/medium")
    assert "tiny: ok" in installed.good("weights", "verify")
    unknown = installed.run("weights", "get", "huge")
    assert unknown.returncode == 1 and "no model 'huge': neither one of large, medium," in unknown.stderr
    (installed.work / "file").write_text("")
    blocked = installed.run("weights", "get", "medium", LOOPER_WEIGHTS=str(installed.work / "file" / "w"))
    assert (
        blocked.returncode == 1 and "set LOOPER_WEIGHTS to a folder that can be written to" in blocked.stderr
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("audiocraft", ["make", "x", "--model", "tiny"]),
        ("cog", ["serve", "--tiny"]),
        ("uvicorn", ["serve", "."]),
        ("matplotlib", ["make", "x", "--model", "tiny", "--plot", "x.png"]),
    ],
)
def test_what_is_not_installed_is_named_with_the_command_that_installs_it(installed, tmp_path, module, words):
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util, sys\n"
        "find = importlib.util.find_spec\n"
        f"importlib.util.find_spec = lambda name, *rest: None if name == {module!r} else find(name, *rest)\n"
    )
    done = installed.run(*words, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    said = " ".join(done.stderr.split())
    extra = packages.EXTRAS.get(module)
    for asked in PROJECT["project"]["optional-dependencies"][extra] if extra else [packages.AUDIOCRAFT]:
        assert re.search(
            rf"{module} is not installed: run `python -m pip install .*{re.match(r'[a-z]+', asked)[0]}", said
        )
    assert not (installed.work / "x.png").exists()


@pytest.fixture
def serving(installed):
    """A function that starts `looper serve ...` and returns its address."""
    started = []

    def start(*words):
        command = [installed.venv / "bin" / "looper", "serve", "--port", "0", *words]
        with (installed.work / "serve.log").open("w") as log:
            started.append(
                subprocess.Popen(
                    command, cwd=installed.work, env=installed.environment, stdout=subprocess.PIPE, stderr=log
                )
            )
        while line := started[-1].stdout.readline().decode():
            if found := re.search(r"Player: (http://\S+)", line):
                return found[1]
        raise AssertionError((installed.work / "serve.log").read_text())

    yield start
    for process in started:
        process.send_signal(signal.SIGINT)
        process.wait(60)
        process.stdout.close()


@pytest.mark.slow
def test_it_serves_the_small_model_and_the_page(installed, serving, tmp_path):
    url = serving("--tiny")
    deadline = time.monotonic() + MINUTES
    while (state := httpx.get(f"{url}/health-check", timeout=30).json()["status"]) != "READY":
        assert state == "STARTING" and time.monotonic() < deadline, (installed.work / "serve.log").read_text()
        time.sleep(0.3)
    assert httpx.get(f"{url}/openapi.json").json() == json.loads((ROOT / "openapi.json").read_text())
    assert "<title>" in httpx.get(url).text
    wish = {"prompt": "techno", "bpm": 240, "variations": 1, "max_duration": 2}
    reply = httpx.post(f"{url}/predictions", json={"input": wish}, timeout=MINUTES)
    (file,) = unpack(reply.content, tmp_path)
    assert soundfile.info(file).frames == round(8 * 60 / 240 * 32000)


@pytest.mark.slow
def test_it_serves_a_folder_of_loops(installed, serving):
    (installed.work / "mine").mkdir()
    soundfile.write(installed.work / "mine" / "jam_120bpm_4bars.wav", drum_track(120.0, 8), 32000)
    listing = httpx.get(f"{serving('mine')}/session.json", timeout=30).json()["library"]
    assert "jam_120bpm_4bars.wav" in json.dumps(listing)
