"""audiocraft is imported, and music made, without what no loop needs."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from looper.runtime import audiocraft_compat
from looper.runtime.audiocraft_compat import STAND_INS, StandIn

ROOT = Path(__file__).parents[2]
GPL = ("av", "imageio_ffmpeg", "mutagen")
WITHOUT = f"""
import sys
for name in {GPL}:
    sys.modules[name] = None  # importing it is an ImportError, as where it is not installed
"""


def run(code):
    return run_with_all(WITHOUT + code)


def run_with_all(code):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("package", ["looper", "bench", "training", "testkit", "tests.conftest", "predict"])
def test_whatever_imports_audiocraft_finds_the_way_prepared(package):
    print_it = "print(any(type(f).__module__ == 'looper.runtime.audiocraft_compat' for f in sys.meta_path))"
    assert run(f"import {package}\n{print_it}") == "True\n"


def test_every_file_that_imports_audiocraft_is_in_such_a_package():
    folders = [p for p in ROOT.iterdir() if p.is_dir() and not p.name.startswith(".")]
    files = [f for folder in folders for f in folder.rglob("*.py")] + list(ROOT.glob("*.py"))
    importing = {f.relative_to(ROOT).parts[0] for f in files if "\nimport audiocraft" in f.read_text()}
    importing |= {f.relative_to(ROOT).parts[0] for f in files if "from audiocraft" in f.read_text()}
    assert importing <= {"looper", "bench", "testkit", "training", "tests"}


LOAD = """
import hashlib, looper
maker = looper.LoopMaker.load("tiny", "cpu")
"""
MAKE = """
loops = maker.make(looper.LoopRequest(prompt="house", bpm=240, variations=1, max_duration=2, seed=1))
digest = hashlib.sha256(loops[0].samples.tobytes()).hexdigest()
"""
USED_ELSEWHERE = {
    *("audiocraft", "huggingface_hub", "librosa", "scipy", "sklearn", "torch", "torchaudio", "transformers"),
}
THIRD_PARTY = sorted({name.partition(".")[0] for name in STAND_INS} - USED_ELSEWHERE)
FOR_LOOPS = ["librosa", "numba", "pyloudnorm", "scipy.interpolate", "scipy.signal", "scipy.stats"]
HEAVY = [
    *THIRD_PARTY,
    *(
        "sklearn",
        "torchmetrics",
        "matplotlib",
        "sympy",
        "triton",
        "torch._dynamo",
        "torch.distributed.tensor",
    ),
]


@pytest.fixture(scope="module")
def lean(tmp_path_factory):
    """What a process without anything under the GPL says of a loop, and of another without what is stood in for.

    The first one's digest, what was imported for it, what other modules see and what is missing; then the second one's,
    and what loading a model has imported.
    """
    folder = tmp_path_factory.mktemp("lean")
    out = run(f"""
import looper
from audiocraft.data import audio, audio_utils  # before anything of ours has imported it
{LOAD}
for_loops = [name for name in {FOR_LOOPS} if name in sys.modules]
{MAKE}
print(digest)
print([name for name in {HEAVY} if sys.modules.get(name)])
print([name for name in sys.modules if name.startswith('audiocraft.solvers')])
from looper.export.loop_files import write_all
import pathlib
write_all(loops, pathlib.Path({str(folder)!r}), "mp3")
assert sys.modules.get("av") is None, "the stand-in stayed"
try:
    audio.audio_read("x.m4a")
except ModuleNotFoundError as error:
    print(error)
print("StandIn" in str([type(module) for module in sys.modules.values()]))
sys.modules.update(dict.fromkeys({THIRD_PARTY}))
{LOAD}{MAKE}
print(digest)
print(for_loops)
""")
    return out.splitlines(), folder


@pytest.mark.slow
def test_music_is_made_where_nothing_under_the_gpl_is_installed(lean):
    lines, folder = lean
    assert len(list(folder.glob("*.mp3"))) == 1
    assert "av.open: reading of media files needs av" in lines[3] and "soundfile" in lines[3]


@pytest.mark.slow
def test_no_import_and_no_loop_reaches_for_what_is_stood_in_for(lean):
    assert lean[0][1:3] == ["[]", "[]"]


@pytest.mark.slow
def test_a_model_is_loaded_without_what_only_its_loops_need(lean):
    assert lean[0][6] == "[]"


@pytest.mark.slow
def test_a_loop_is_made_where_nothing_that_is_stood_in_for_can_be_imported(lean):
    """Nor did it need any before, as none had been imported by then."""
    assert lean[0][5:6] == lean[0][:1]


def installed():
    """What is stood in for, and here: at least what the tests' own environment brings."""
    names = [name for name in THIRD_PARTY if importlib.util.find_spec(name)]
    assert "av" in names
    return names


@pytest.mark.slow
def test_loops_are_the_same_with_the_real_packages(lean):
    real = {name: entry for name, entry in STAND_INS.items() if name.partition(".")[0] not in installed()}
    code = f"from looper.runtime import audiocraft_compat\naudiocraft_compat.STAND_INS = dict.fromkeys({sorted(real)}, "
    code += "audiocraft_compat.Unneeded('', ('CompressionSolver', 'hf_hub_download', 'num2words', 'ops')))\n"
    used = "import sys\nassert all(name in sys.modules for name in ('av', 'xformers'))\n"
    assert run_with_all(code + LOAD + MAKE + used + "print(digest)").splitlines() == lean[0][:1]


def test_a_stand_in_becomes_the_real_thing_when_it_is_used():
    import librosa
    import transformers

    assert StandIn("librosa").filters.mel is librosa.filters.mel
    assert StandIn("librosa").stft is librosa.stft
    encoder = StandIn("transformers").T5EncoderModel
    assert isinstance(encoder, StandIn) and encoder._real() is transformers.T5EncoderModel
    assert not isinstance(3, encoder)


@pytest.mark.parametrize("name", STAND_INS)
def test_whoever_uses_what_is_not_installed_learns_what_to_install(monkeypatch, name):
    top = name.partition(".")[0]
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, top, None)
    package = STAND_INS[name].package or top
    with pytest.raises(ModuleNotFoundError, match=rf"{re.escape(name)}\.something.*`pip install {package}`"):
        _ = StandIn(name).something
    for taken in STAND_INS[name].names:
        stand_in = getattr(StandIn(name), taken)  # as an import statement takes it
        with pytest.raises((ModuleNotFoundError, TypeError)):
            stand_in()


@pytest.mark.slow
def test_only_audiocrafts_own_imports_see_stand_ins(lean):
    import xml.dom as other

    assert audiocraft_compat._import("xml.dom", {}, {}, ("Node",)) is other
    assert isinstance(
        audiocraft_compat._import("flashy.distrib", {"__package__": "audiocraft.models"}), StandIn
    )
    assert lean[0][4] == "False"


def test_asking_a_stand_in_whether_it_is_there_tells_the_truth(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not StandIn("dora")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert StandIn("dora")


def test_the_way_is_prepared_once():
    before = list(sys.meta_path)
    audiocraft_compat.install()
    assert sys.meta_path == before
