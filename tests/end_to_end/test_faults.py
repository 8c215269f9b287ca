"""Faults done to the service and to the real server: a clear error or the right answer, never half of one."""

import errno
import os
import pkgutil
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest
import soundfile
import torch

from looper.generation.tasks import DecodeError
from looper.pipeline import session
from looper.pipeline.maker import LoopMaker
from looper.runtime.device import gpu_answers
from looper.runtime.memory import out_of_memory
from looper.service.scratch import Scratch
from looper.service.service import Service
from testkit.fakes import SAMPLE_RATE, FakeGenerator, FakeMaker, drum_track
from testkit.serving import CancelledError, FakeModels, predict

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def one_candidate():
    """None of it is about which draw is taken."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "CANDIDATES", 1)
        yield


@pytest.fixture(scope="module")
def one_draw(one_candidate):
    """One candidate and no further rounds: random weights always drift."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "ROUNDS", 0)
        yield


@pytest.fixture(scope="module")
def mini(models):
    """A network so small that all stages take a second."""
    return LoopMaker(models("t5"))


def serving(folder, generator=None, maker=None):
    service = Service(FakeModels(generator), Scratch(folder))
    service.models.maker = maker or service.models.maker
    return service


def in_both_formats(service, **changes):
    """Files of two predictions, one set of loops made once."""
    made = cache(service.models.maker.make)
    service.models.maker.make = lambda request, progress: made(request)
    return [file for fmt in ("wav", "mp3") for file in predict(service, output_format=fmt, **changes)]


class Faulty(FakeGenerator):
    """Raises what it is given at the call numbers given, and plays otherwise."""

    def __init__(self, error, calls=(0,)):
        super().__init__()
        self.error, self.faulty, self.made = error, calls, 0

    def generate(self, *args, **kwargs):
        self.made += 1
        if self.made - 1 in self.faulty:
            raise self.error
        return super().generate(*args, **kwargs)


# --- disk ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("file", "output_format"), [(0, "wav"), (1, "wav"), (2, "wav"), (2, "mp3")])
def test_a_disk_that_fills_at_any_file_gives_no_partial_set_and_the_next_prediction_works(
    tmp_path, monkeypatch, output_format, file
):
    service, calls = serving(tmp_path, maker=FakeMaker()), []

    def fsync(descriptor):
        calls.append(descriptor)
        if len(calls) == file + 1:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(OSError, match="No space left on device; free space there"):
            predict(service, variations=3, output_format=output_format)
    assert len(calls) == file + 1
    assert not list(tmp_path.rglob("*"))
    assert len(predict(service, variations=3, output_format=output_format)) == 3


@pytest.mark.parametrize("file", [0, 1, 2])
def test_a_prediction_cancelled_while_writing_leaves_no_file(tmp_path, monkeypatch, file):
    service, calls = serving(tmp_path, maker=FakeMaker()), []
    expected = [path.read_bytes() for path in predict(service, variations=3)]

    def fsync(descriptor):
        calls.append(descriptor)
        if len(calls) == file + 1:
            raise CancelledError

    before = set(tmp_path.rglob("*"))
    with monkeypatch.context() as patch, pytest.raises(CancelledError):
        patch.setattr(os, "fsync", fsync)
        predict(service, variations=3)
    assert set(tmp_path.rglob("*")) == before
    assert [path.read_bytes() for path in predict(service, variations=3)] == expected


def test_a_temp_folder_that_vanished_is_made_again(tmp_path):
    service = serving(tmp_path / "deep" / "temp", maker=FakeMaker())
    predict(service)
    for file in sorted(tmp_path.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    assert all(file.exists() for file in predict(service))


def test_a_file_where_the_temp_folder_should_be_is_an_error_that_names_it(tmp_path):
    service = serving(tmp_path, maker=FakeMaker())
    service.scratch.root.write_text("not a folder")
    with pytest.raises(OSError, match=r"musicgen-looper-\d+"):
        predict(service)


# --- memory ----------------------------------------------------------------------------------------

OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: 12 bytes"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("call", [0, 1])
def test_memory_that_runs_out_at_any_batch_says_what_to_ask_for_and_frees_it(tmp_path, error, call):
    service = serving(tmp_path, Faulty(error, (call,)))
    unloaded = []
    service.models.unload = lambda: unloaded.append(1)
    with pytest.raises(RuntimeError, match="out of memory with 2 variations of up to 2 s: ask for fewer"):
        predict(service)
    assert unloaded and not list(tmp_path.iterdir())
    assert len(predict(service)) == 2


def test_a_real_failed_allocation_is_known_as_one():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**55, dtype=torch.uint8)
    assert out_of_memory(caught.value)


@pytest.mark.parametrize("error", [ValueError("cannot allocate memory"), OSError(28, "x"), RuntimeError("x")])
def test_other_errors_are_not_taken_for_want_of_memory(tmp_path, error):
    service = serving(tmp_path, Faulty(error))
    with pytest.raises(type(error)) as caught:
        predict(service)
    assert caught.value is error


def test_what_filled_the_memory_is_let_go_although_the_error_is_kept(tmp_path):
    import weakref

    held = []

    class Large(FakeGenerator):
        def generate(self, *args, **kwargs):
            waves = np.zeros(10)
            held.append(weakref.ref(waves))
            raise MemoryError

    with pytest.raises(RuntimeError) as caught:
        predict(serving(tmp_path, Large()))
    assert caught.value.__cause__ is not None and held[0]() is None


# --- what the model gives --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sound",
    [
        lambda bpm, seconds, first_beat: np.zeros(round(seconds * SAMPLE_RATE), np.float32),
        lambda bpm, seconds, first_beat: np.full(round(seconds * SAMPLE_RATE), 0.5, np.float32),
        lambda bpm, seconds, first_beat: (
            np.random.default_rng(0).normal(0, 0.1, round(seconds * SAMPLE_RATE)).astype(np.float32)
        ),
        lambda bpm, seconds, first_beat: 50 * drum_track(bpm, seconds, first_beat),
        lambda bpm, seconds, first_beat: 1e-7 * drum_track(bpm, seconds, first_beat),
    ],
    ids=["silence", "constant", "noise", "far too loud", "far too soft"],
)
def test_music_without_a_beat_or_level_still_gives_whole_loops(tmp_path, sound):
    service = serving(tmp_path, FakeGenerator(sound=sound))
    files = in_both_formats(service)
    assert [file.suffix for file in files] == [".wav", ".wav", ".mp3", ".mp3"]
    for file in files:
        samples, rate = soundfile.read(file)
        assert (len(samples), rate) == (2 * 32000, 32000)
        assert np.isfinite(samples).all() and np.abs(samples).max() <= 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("call", [0, 1])
def test_samples_that_are_not_finite_are_refused_and_nothing_is_written(tmp_path, value, call):
    class Broken(FakeGenerator):
        def generate(self, *args, **kwargs):
            output = super().generate(*args, **kwargs)
            if len(self.calls) == call + 1:
                output.samples[:, 5000] = value
            return output

    service = serving(tmp_path, Broken())
    with pytest.raises(ValueError, match="NaN or infinity"):
        predict(service)
    assert not list(tmp_path.iterdir())
    assert len(predict(service)) == 2


def test_logits_that_are_not_finite_fail_in_flight_and_the_next_prediction_is_as_ever(
    tmp_path, one_draw, mini
):
    service = serving(tmp_path, maker=mini)
    short = {"variations": 1, "top_k": 20}
    expected = [file.read_bytes() for file in predict(service, **short)]
    before = set(tmp_path.rglob("*"))
    table = mini.generator.engine.transformer.embeddings
    sound = table.clone()
    try:
        table[::3] = float("nan")
        with pytest.raises(DecodeError, match=r"stopped being finite at step \d+"):
            predict(service, **short)
    finally:
        table.copy_(sound)
    assert set(tmp_path.rglob("*")) == before
    assert [file.read_bytes() for file in predict(service, **short)] == expected


# --- prompts -----------------------------------------------------------------------------------------

HOSTILE = [
    "\x1b]0;owned\x07\x1b[2J\nseed 0, 1 BPM\r\nINFO: all is well",
    "../../../../etc/cron.d/x",
    "/etc/passwd\x00.wav",
    "$(touch owned) `touch owned` ; touch owned | touch owned & touch owned",
    "{0.__class__} %s %(name)s {prompt}",
    "\u202egnp.exe \u2028 \ufeff",
    "-rf *",
    "CON",
    "x" * 100_000,
]


@pytest.mark.parametrize("prompt", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_prompt_stays_text(tmp_path, monkeypatch, capfd, prompt):
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    service = serving(tmp_path / "temp")
    for file in in_both_formats(service, prompt=prompt):
        assert file.resolve().parent.parent == service.scratch.root.resolve()
        assert re.fullmatch(r"[A-Za-z0-9._#-]{1,120}", file.name)
    assert not list((tmp_path / "cwd").iterdir())
    out, err = capfd.readouterr()
    lines = (out + err).splitlines()
    assert sum(line.startswith("seed ") for line in lines) == 2
    assert all(line.isprintable() and len(line) < 1000 for line in lines if "|" not in line)


# --- clock -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [-1e6, 1e6])
def test_a_clock_that_jumps_changes_nothing(tmp_path, monkeypatch, jump):
    service = serving(tmp_path)
    expected = [file.read_bytes() for file in predict(service)]
    now = time.time
    calls = iter(range(10**9))
    metrics = {}
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: now() + jump * (next(calls) % 2))
        files = predict(service, metrics=metrics)
    assert [file.read_bytes() for file in files] == expected
    assert all(value >= 0 for name, value in metrics.items() if name.startswith("seconds."))


# --- health ----------------------------------------------------------------------------------------


def test_without_a_gpu_there_is_none_to_lose(tmp_path):
    assert serving(tmp_path).healthy()


@pytest.mark.parametrize("answers", [True, False])
def test_a_lost_gpu_makes_the_service_unhealthy(tmp_path, monkeypatch, answers):
    service = serving(tmp_path)
    service.models._gpu = True
    monkeypatch.setattr("looper.service.models.gpu_answers", lambda: answers)
    assert service.healthy() is answers


def test_a_gpu_that_raises_is_told_in_the_log(monkeypatch, caplog):
    def lost(*args, **kwargs):
        raise RuntimeError("CUDA error: GPU is lost")

    monkeypatch.setattr(torch, "ones", lost)
    assert gpu_answers() is False
    assert "CUDA error: GPU is lost" in caplog.text


def test_a_prediction_is_not_disturbed_by_the_health_check(tmp_path, monkeypatch):
    seen = []

    class Asking(FakeGenerator):
        def generate(self, *args, **kwargs):
            seen.append(service.healthy())
            return super().generate(*args, **kwargs)

    service = serving(tmp_path, Asking())
    service.models._gpu = True
    monkeypatch.setattr(
        "looper.service.models.gpu_answers", lambda: pytest.fail("probed during a prediction")
    )
    predict(service)
    assert seen and all(seen)


def test_the_gpu_is_asked_again_after_a_failed_prediction(tmp_path, monkeypatch):
    service = serving(tmp_path, Faulty(RuntimeError("CUDA error: unspecified launch failure")))
    service.models._gpu = True
    monkeypatch.setattr("looper.service.models.gpu_answers", lambda: False)
    with pytest.raises(RuntimeError, match="launch failure"):
        predict(service)
    assert not service.healthy()


# --- memory that runs out somewhere in a real model --------------------------------------------------

STAGES = {
    "prefill": "looper.generation.lane.Lane._prefill",
    "step": "looper.generation.lane.Lane._step",
    "text": "looper.generation.generator.encode_text",
    "waveforms": "looper.model.codec.Codec._decode_block",
    "audio prompt": "looper.model.codec.Codec.encode",
    "likelihood": "looper.generation.generator.log_likelihoods",
    "beats": "looper.pipeline.takes.fit_grid",
    "cut": "looper.pipeline.session.cut",
    "files": "looper.service.service.write_all",
}
ASKED = [{"seed": seed, "variations": 2, "max_duration": 2, "bpm": 240, "top_k": 20} for seed in (4, 5)]


@pytest.fixture(scope="module")
def alone(one_draw, mini, tmp_path_factory):
    """What two requests give where nothing happens."""
    service = serving(tmp_path_factory.mktemp("alone"), maker=mini)
    return [[file.read_bytes() for file in predict(service, **asked)] for asked in ASKED]


@pytest.mark.parametrize("stage", STAGES)
def test_memory_that_runs_out_at_any_stage_is_said_or_made_do_with_and_others_go_on(
    tmp_path, monkeypatch, one_draw, mini, alone, stage
):
    service, met, path = serving(tmp_path, maker=mini), threading.Lock(), STAGES[stage]
    service.models.unload = mini.generator.release
    mini.generator.release()
    real, error = pkgutil.resolve_name(path), OUT_OF_MEMORY[len(stage) % 3]

    def once(*given, **named):
        if met.acquire(blocking=False):
            raise error
        return real(*given, **named)

    def bytes_of(asked):
        try:
            return [file.read_bytes() for file in predict(service, **asked)]
        except RuntimeError as failed:
            return str(failed)

    owner, name = path.rsplit(".", 1)
    monkeypatch.setattr(pkgutil.resolve_name(owner), name, once)
    with ThreadPoolExecutor(2) as both:
        got = list(both.map(bytes_of, ASKED))
    assert met.locked(), "nothing ran out of memory here"
    failed = [one for one in got if isinstance(one, str)]
    assert failed in ([], ["out of memory with 2 variations of up to 2 s: ask for fewer or shorter ones"])
    assert all(one in (*failed, whole) for one, whole in zip(got, alone, strict=True))
