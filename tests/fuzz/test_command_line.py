"""Words on the command line that nobody should type: an exit code and a sentence, never a traceback."""

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from testkit import command_line
from testkit.properties import fuzzed
from testkit.values import NUMBERS

ODD = st.sampled_from(
    ["nan", "inf", "-inf", "1e-320", "1e308", "-1", "0", "-0", "1_000", "0x10", "１２０", "120,5", "", " ", "1e5", "9" * 400,
     "true", "--help", "-", "120\n", "\x1b[31m", "'", "$(id)"]
) | NUMBERS.map(str)  # fmt: skip
CUT = ["--beats-per-bar", "--max-duration", "--min-start", "--format", "--depth"]
MAKE = [
    "--variations",
    "--max-duration",
    "--seed",
    "--beats-per-bar",
    "--top-k",
    "--top-p",
    "--temperature",
    "--guidance",
    "--format",
    "--depth",
    "--device",
    "--model",
]


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    file = tmp_path_factory.mktemp("recording") / "jam.wav"
    clicks = np.tile(np.r_[np.ones(80), np.zeros(3920)], 8)
    soundfile.write(file, 0.5 * clicks, 8000)
    return file


def tells(done, refused=(1, 2)):
    """Whether a command ended as commands do."""
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, *refused), done.stderr
    assert done.returncode == 0 or (done.stderr + done.stdout).strip()


@pytest.mark.slow
@fuzzed(60)
@given(bpm=ODD | st.just("120"), options=st.dictionaries(st.sampled_from(CUT), ODD, max_size=2))
def test_cut_takes_any_numbers(recording, tmp_path_factory, bpm, options):
    out = tmp_path_factory.getbasetemp() / "cuts"
    before = recording.read_bytes()
    words = [f"{name}={value}" for name, value in options.items()]
    tells(command_line.run("cut", recording, f"--bpm={bpm}", f"--out={out}", *words))
    assert recording.read_bytes() == before


@pytest.mark.slow
@fuzzed(60)
@given(bpm=ODD, options=st.dictionaries(st.sampled_from(MAKE), ODD, min_size=1, max_size=3))
def test_make_refuses_what_no_loop_can_be_before_it_loads_a_model(tmp_path_factory, bpm, options):
    out = tmp_path_factory.getbasetemp() / "made"
    words = {"--model": "nothing", **options}
    done = command_line.run(
        "make", "x", f"--bpm={bpm}", f"--out={out}", *(f"{name}={value}" for name, value in words.items())
    )
    tells(done)
    assert done.returncode or "--help" in (bpm, *options.values())
    assert not out.exists()


@pytest.mark.slow
@fuzzed(60)
@given(
    words=st.lists(
        st.sampled_from(["make", "cut", "unpack", "weights", "path", "verify", "batch", "--json", "--", "x"])
        | ODD,
        min_size=1,
        max_size=4,
    )
)
def test_any_words_get_an_answer(words, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.getbasetemp())
        patch.setattr("looper.web.server.serve", lambda **_: None)
        patch.setattr(
            "looper.pipeline.maker.LoopMaker.load", lambda *_: (_ for _ in ()).throw(ValueError("not here"))
        )
        tells(command_line.run(*words))
