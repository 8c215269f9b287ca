import pathlib
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import soundfile

from looper.checkpoints.sources import WeightsError
from looper.pipeline.maker import LoopMaker
from looper.service.models import Models
from looper.service.progress import ProgressLines
from looper.service.scratch import Scratch
from looper.service.service import Service
from testkit.fakes import FakeGenerator
from testkit.interrupts import interrupted_after
from testkit.serving import CancelledError, FakeModels, predict


@pytest.fixture
def service(tmp_path, one_candidate):
    return Service(FakeModels(), Scratch(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("output_format", ["wav", "mp3"])
def test_a_prediction_gives_one_whole_file_a_variation_and_its_metrics(service, output_format):
    metrics = {}
    files = predict(service, output_format=output_format, metrics=metrics, variations=3)
    assert [file.suffix for file in files] == [f".{output_format}"] * 3
    assert len(set(files)) == 3
    for file in files:
        samples, rate = soundfile.read(file)
        assert (len(samples), rate) == (2 * 32000, 32000)
    assert metrics["model"] == "fake" and metrics["seed"] == 4 and metrics["bars"] == 2
    assert metrics["bpm_measured"] == pytest.approx(240, rel=1e-3)
    assert {"seconds.candidates", "seconds.variations", "seconds.loops", "seconds.export"} <= set(metrics)


def test_numbers_arrive_as_the_runtime_sends_them(service):
    files = predict(service, bpm=120, variations=2.0, seed=1e3, temperature=1, cfg_coef=3.0)
    assert len(files) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "small"}, "model_version must be one of medium, large"),
        ({"output_format": "flac"}, "output_format must be one of wav, mp3"),
        ({"prompt": "  "}, "prompt must not be empty"),
        ({"seed": float(2**70)}, "seed must be -1"),
        ({"cfg_coef": float("nan")}, "classifier_free_guidance must be a finite number"),
        ({"cfg_coef": 1e308}, "classifier_free_guidance must be between -100 and 100"),
        ({"top_k": -1}, "top_k must be 0 or more"),
    ],
)
def test_what_the_schema_lets_through_is_refused_in_the_users_words(service, tmp_path, changes, words):
    with pytest.raises(ValueError, match=words):
        predict(service, **changes)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_files_outlive_the_start_of_other_predictions_and_go_when_they_are_old(tmp_path, monkeypatch):
    service = Service(FakeModels(), Scratch(tmp_path, kept_seconds=60))
    first, second = predict(service), predict(service, seed=5)
    assert all(file.exists() for file in (*first, *second))
    assert {len(set(file.parent.iterdir())) for file in (*first, *second)} == {2}
    assert not set(first) & set(second)
    now = time.monotonic
    monkeypatch.setattr("looper.service.scratch.time.monotonic", lambda: now() + 61)
    third = predict(service, seed=6)
    assert sorted(p for p in tmp_path.rglob("*") if p.is_file()) == sorted(third)


def fill(scratch, size=1000):
    with scratch.folder() as folder:
        (folder / "x.wav").write_bytes(bytes(size))
    return folder


def test_more_files_than_there_is_room_for_stay_for_a_shorter_time_the_oldest_going_first(
    tmp_path, monkeypatch
):
    clock = [100.0]
    monkeypatch.setattr("looper.service.scratch.time.monotonic", lambda: clock[0])
    scratch = Scratch(tmp_path, kept_seconds=60, most_bytes=2500, least_seconds=15)
    folders = []
    for clock[0] in (100, 101, 110):
        folders.append(fill(scratch))
    assert [folder.exists() for folder in folders] == [True, True, True]  # their replies may not be out
    clock[0] = 117
    folders.append(fill(scratch))
    assert [folder.exists() for folder in folders] == [False, False, True, True]
    clock[0] = 171
    folders.append(fill(scratch))
    assert [folder.exists() for folder in folders] == [False, False, False, True, True]


def test_a_folder_that_is_being_filled_is_never_taken_away(tmp_path, monkeypatch):
    scratch = Scratch(tmp_path, kept_seconds=0, most_bytes=0, least_seconds=0)
    with scratch.folder() as mine:
        (mine / "x.wav").write_bytes(b"x")
        fill(scratch)
        assert (mine / "x.wav").exists() and list(scratch.root.iterdir()) == [mine]
        with pytest.raises(OSError, match="broken"), scratch.folder() as other:
            (other / "y.wav").write_bytes(b"y")
            raise OSError("broken")
        assert not other.exists() and (mine / "x.wav").exists()


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["candidates", "variations", "loops"])
def test_a_cancelled_prediction_leaves_no_file_and_the_next_one_is_unharmed(
    service, tmp_path, monkeypatch, stage
):
    expected = [file.read_bytes() for file in predict(service)]

    def cancel(self, now, done, total):
        if now == stage:
            raise CancelledError

    before = set(tmp_path.rglob("*"))
    with monkeypatch.context() as patch, pytest.raises(CancelledError):
        patch.setattr(ProgressLines, "__call__", cancel)
        predict(service, seed=6)
    assert set(tmp_path.rglob("*")) == before
    assert [file.read_bytes() for file in predict(service)] == expected


@pytest.mark.slow
# between a file's opening and the `with` that it is for: it is closed when it is dropped
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_a_cancel_that_lands_at_any_moment_leaves_no_file(service, tmp_path):
    predict(service)
    begun = time.perf_counter()
    predict(service)
    took = time.perf_counter() - begun
    landed = 0
    for moment in (0.1, 0.4, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9):
        before, files = set(tmp_path.rglob("*.wav")), []
        with suppress(CancelledError), interrupted_after(moment * took, CancelledError):
            files = predict(service)  # it may be over before the cancel lands
        assert set(tmp_path.rglob("*.wav")) == before | set(files), moment
        landed += not files
    assert landed


def test_a_cancel_that_lands_while_memory_is_given_back_leaves_no_file(service, tmp_path, monkeypatch):
    def cancel():
        assert list(tmp_path.rglob("*.wav"))
        raise CancelledError

    with monkeypatch.context() as patch, pytest.raises(CancelledError):
        patch.setattr("looper.service.service.return_memory", cancel)
        predict(service)
    assert not list(tmp_path.rglob("*.wav"))
    monkeypatch.setattr(service.models, "is_healthy", lambda: False)
    assert not service.healthy()  # it asks the models again


def test_a_failure_while_writing_gives_no_partial_set(service, tmp_path, monkeypatch):
    written = []

    def full(*args, **kwargs):
        written.append(args)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("looper.service.service.write_all", full)
    with pytest.raises(OSError, match="No space left"):
        predict(service)
    assert written and not list(tmp_path.iterdir())


HOLD = """
import pathlib, sys
from looper.service.scratch import Scratch
scratch = Scratch(pathlib.Path(sys.argv[1]))
with scratch.folder() as folder:
    (folder / "x.wav").write_bytes(b"x")
print(folder, flush=True)
sys.stdin.read()
"""


def test_a_sweep_takes_what_a_crash_left_and_spares_a_living_server_whatever_its_number_means_here(tmp_path):
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    living, foreign = Path(other.stdout.readline().strip()), tmp_path / "musicgen-looper-notes"
    foreign.mkdir()
    mine = Scratch(tmp_path)
    for alias in (mine, Scratch(tmp_path)):  # as in a container where the other's number is nobody's
        alias.sweep()
        assert (living / "x.wav").exists() and foreign.exists()
    assert fill(mine) != living and (living / "x.wav").exists()
    other.kill()
    other.communicate(timeout=30)
    Scratch(tmp_path).sweep()
    assert not living.exists() and foreign.exists() and mine.root.exists()


def test_a_living_servers_files_outlast_a_process_to_which_its_number_says_nothing(tmp_path, monkeypatch):
    living = Scratch(tmp_path)
    kept = fill(living)

    def gone(*_):
        raise ProcessLookupError

    monkeypatch.setattr("os.kill", gone)  # what another PID namespace says
    monkeypatch.setattr("os.getpid", lambda: 1)
    other = Scratch(tmp_path)
    other.sweep()
    fill(other)
    assert (kept / "x.wav").exists()


def test_progress_is_whole_lines_of_per_cent(capsys):
    lines = ProgressLines()
    for done in range(1, 401):
        lines("variations", done, 400)
    shown = capsys.readouterr().err
    assert shown.endswith("\n") and "\r" not in shown.replace("\r\n", "")
    assert "50%" in shown and "100%" in shown
    assert len(shown.splitlines()) <= 12


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    """A model folder of random weights, in the shape of the published ones."""
    from testkit.checkpoints import Shape
    from testkit.stand_ins import weights

    return weights(tmp_path_factory.mktemp("m") / "stand-in", Shape(card=256))


@pytest.fixture
def root(monkeypatch, tmp_path, stand_in):
    """A function that fills an empty weights root with stand-ins of these names, on a machine said to have a GPU."""
    monkeypatch.setenv("LOOPER_WEIGHTS", str(tmp_path))
    monkeypatch.setattr("looper.service.models.has_gpu", lambda: True)
    monkeypatch.setattr(Models, "_fits", lambda self, folder: True)
    monkeypatch.setattr(Models, "_warm_up", staticmethod(lambda maker: maker.generator.prepare()))

    def fill(*names):
        for name in names:
            shutil.copytree(stand_in, tmp_path / name)
        return tmp_path

    return fill


@pytest.mark.slow
@pytest.mark.parametrize(("here", "gone"), [("medium", "large"), ("large", "medium")])
@pytest.mark.usefixtures("one_thread", "one_candidate")
def test_one_model_alone_is_served_and_a_request_for_the_other_says_what_brings_it(
    root, caplog, monkeypatch, here, gone
):
    monkeypatch.setattr("looper.pipeline.session.ROUNDS", 0)  # random weights always drift
    folder = root(here)
    service = Service(Models({}), Scratch(folder / "out"))
    service.models.start()
    assert f"only {here} is served" in caplog.text and f"looper weights get {gone}" in caplog.text
    assert len(predict(service, model=here, top_k=20)) == 2
    with pytest.raises(
        WeightsError, match=rf"{gone} is not served here.*looper weights get {gone}.*ask for {here}"
    ):
        predict(service, model=gone)
    assert len([path for path in (folder / "out").rglob("*") if path.is_file()]) == 2


def test_with_both_models_both_are_served_and_nothing_is_said(root, caplog):
    root("medium", "large")
    models = Models({})
    models.start()
    assert isinstance(models.get("medium"), LoopMaker) and models.get("medium") is not models.get("large")
    assert "is served" not in caplog.text


def test_without_any_weights_setup_fails_with_the_command_that_brings_them(root):
    root()
    with pytest.raises(WeightsError, match="looper weights get medium"):
        Models({}).start()


@pytest.mark.slow
def test_a_damaged_model_is_not_passed_over_as_missing(root, stand_in):
    folder = root("medium", "large")
    with (folder / "large" / "lm.safetensors").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(WeightsError, match=r"large/lm\.safetensors"):
        Models({}).start()


def test_a_folder_of_the_mapping_that_is_not_there_is_an_error(root):
    folder = root("medium")
    with pytest.raises(WeightsError, match="nowhere"):
        Models({"large": str(folder / "nowhere")}).start()


@pytest.mark.usefixtures("one_thread")
def test_without_a_gpu_a_request_for_what_is_not_mapped_is_refused_at_once(root, monkeypatch, stand_in):
    root()
    monkeypatch.setattr("looper.service.models.has_gpu", lambda: False)
    models = Models({"medium": str(stand_in)})
    models.start()
    with pytest.raises(RuntimeError, match=r"no CUDA GPU.*looper weights get large.*LOOPER_MODELS"):
        models.get("large")


def test_without_a_gpu_the_real_sizes_say_what_to_do_instead_of_falling_back(monkeypatch, tmp_path):
    tiny = pathlib.Path(__file__).parents[2] / "weights/tiny"
    monkeypatch.setenv("LOOPER_WEIGHTS", str(tmp_path))
    for name in ("medium", "large"):
        (tmp_path / name).symlink_to(tiny)
    monkeypatch.setattr("looper.service.models.has_gpu", lambda: False)
    with pytest.raises(RuntimeError, match=r"no CUDA GPU.*LOOPER_MODELS"):
        Models({}).start()


@pytest.mark.slow
@pytest.mark.parametrize(("gpu", "variations", "seconds"), [(False, 1, 2), (True, 4, 8)])
@pytest.mark.usefixtures("one_candidate")
def test_one_folder_behind_both_names_is_loaded_and_warmed_up_once(monkeypatch, gpu, variations, seconds):
    loaded, generator = [], FakeGenerator()

    def load(folder, device=None):
        loaded.append(folder)
        return LoopMaker(generator)

    monkeypatch.setattr(LoopMaker, "load", staticmethod(load))
    monkeypatch.setattr(Models, "_fits", lambda self, folder: True)
    models = Models({"medium": "tiny", "large": "tiny"})
    monkeypatch.setattr("looper.service.models.has_gpu", lambda: gpu)
    models.start()
    assert len(loaded) == 1 and models.get("medium") is models.get("large")
    assert [len(call.keys) for call in generator.calls] == [1, variations - 1][: 1 + gpu]
    assert generator.calls[0].frames >= seconds * generator.frame_rate
