"""Predictions beside each other: threads, cancellation, models that are lent, memory that is given back."""

import asyncio
import contextvars
import gc
import threading
import time

import pytest

from looper.pipeline.maker import LoopMaker
from looper.runtime.cancellation import Cancelled, cancelled_by, check_cancelled
from looper.runtime.threads import map_in_threads
from looper.service.concurrency import PredictionThreads, exits_are_errors, slots
from looper.service.metrics import Metrics
from looper.service.models import Models
from looper.service.progress import ProgressLines, write_line
from looper.service.scratch import Scratch
from looper.service.service import Service
from testkit.fakes import FakeGenerator
from testkit.serving import WISH, FakeModels, predict

OWNER = contextvars.ContextVar("owner", default="nobody")


NOTHING = lambda result: pytest.fail("nothing came too late")


def wait_for(event):
    assert event.wait(60)


# --- threads ----------------------------------------------------------------------------------------


def test_each_prediction_runs_in_the_context_that_it_was_awaited_in():
    threads, meet = PredictionThreads(3), threading.Barrier(3)

    def work():
        meet.wait(60)  # all three at once, which one thread could not
        return OWNER.get()

    async def ask(name):
        OWNER.set(name)
        return await threads.run(work, NOTHING)

    async def all_of_them():
        return await asyncio.gather(*(ask(name) for name in "abc"))

    assert asyncio.run(all_of_them()) == ["a", "b", "c"]


def test_a_cancelled_prediction_keeps_its_place_until_its_thread_has_ended_and_others_go_on():
    threads, story = PredictionThreads(2), []
    inside, go, other_goes = threading.Event(), threading.Event(), threading.Event()

    def cancelled():
        inside.set()
        wait_for(go)
        try:
            check_cancelled()
        finally:
            story.append("its thread has ended")

    def other():
        wait_for(other_goes)
        check_cancelled()
        return "whole"

    async def play():
        first, second = (
            asyncio.create_task(threads.run(cancelled, NOTHING)),
            asyncio.create_task(threads.run(other, NOTHING)),
        )
        while not inside.is_set():
            await asyncio.sleep(0.005)
        for _ in range(3):  # cancelled again while it waits
            first.cancel()
            await asyncio.sleep(0.01)
        assert not first.done()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await first
        story.append("it is cancelled")
        other_goes.set()
        return await second

    assert asyncio.run(play()) == "whole"
    assert story == ["its thread has ended", "it is cancelled"]


def test_a_prediction_that_fails_after_it_was_cancelled_is_cancelled_all_the_same():
    threads, inside, go = PredictionThreads(1), threading.Event(), threading.Event()

    def work():
        inside.set()
        wait_for(go)
        raise OSError("too late")

    async def play():
        task = asyncio.create_task(threads.run(work, NOTHING))
        while not inside.is_set():
            await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.sleep(0.01)
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(play())


@pytest.mark.slow
@pytest.mark.usefixtures("one_candidate")
def test_files_that_came_too_late_for_a_cancelled_prediction_are_removed_and_others_stay(
    tmp_path, monkeypatch
):
    service = Service(FakeModels(), Scratch(tmp_path), count=2)
    inside, go, make = threading.Event(), threading.Event(), Service.predict

    def late(self, *args, **wish):
        files = make(self, *args, **wish)
        if wish["seed"] == 5:
            inside.set()
            wait_for(go)
        return files

    monkeypatch.setattr(Service, "predict", late)

    async def play():
        record = lambda *_: None
        task = asyncio.create_task(service.answer("medium", "wav", record, **{**WISH, "seed": 5}))
        kept = await service.answer("medium", "wav", record, **WISH)
        while not inside.is_set():
            await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.sleep(0.01)
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        return kept

    kept = asyncio.run(play())
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)


@pytest.mark.slow
@pytest.mark.parametrize("end", [SystemExit("x"), KeyboardInterrupt(), GeneratorExit()])
@pytest.mark.usefixtures("one_candidate")
def test_what_would_end_the_process_is_an_error_that_the_next_prediction_survives(tmp_path, monkeypatch, end):
    service, make = Service(FakeModels(), Scratch(tmp_path)), LoopMaker.make

    def leave(self, *args):
        raise end

    async def play():
        with monkeypatch.context() as patch:
            patch.setattr(LoopMaker, "make", leave)
            with pytest.raises(RuntimeError, match="tried to end the server"):
                await service.answer("medium", "wav", lambda *_: None, **WISH)
        assert LoopMaker.make is make
        return await service.answer("medium", "wav", lambda *_: None, **WISH)

    assert len(asyncio.run(play())) == 2
    assert service.metrics.registry.get_sample_value("looper_predictions_total", {"outcome": "failed"}) == 1


def test_a_cancellation_passes_through_as_what_it_is():
    with pytest.raises(Cancelled), exits_are_errors():
        raise Cancelled


@pytest.mark.parametrize(("text", "count"), [(None, 1), ("", 1), ("1", 1), (" 8 ", 8)])
def test_cogs_variable_says_how_many_at_once(monkeypatch, text, count):
    monkeypatch.delenv("COG_MAX_CONCURRENCY", raising=False)
    if text is not None:
        monkeypatch.setenv("COG_MAX_CONCURRENCY", text)
    assert slots() == count


@pytest.mark.parametrize("text", ["0", "-1", "many", "2.5", "٣"])
def test_a_number_at_once_that_is_none_is_refused_by_name(monkeypatch, text):
    monkeypatch.setenv("COG_MAX_CONCURRENCY", text)
    with pytest.raises(ValueError, match="COG_MAX_CONCURRENCY must be a whole number from 1 on"):
        slots()


# --- cancellation ---------------------------------------------------------------------------------------


def test_work_in_threads_is_not_begun_once_it_is_cancelled():
    event, begun = threading.Event(), []

    def work(k):
        begun.append(k)
        if k == 3:
            event.set()
        time.sleep(0.01)

    with pytest.raises(Cancelled), cancelled_by(event):
        map_in_threads(work, range(1000))
    assert len(begun) < 100


def test_waiting_for_the_device_ends_when_the_prediction_is_cancelled(tiny):
    event, stuck = threading.Event(), threading.Event()

    def job():
        event.set()
        wait_for(stuck)

    with pytest.raises(Cancelled), cancelled_by(event):
        tiny.generator.engine.call(job)
    stuck.set()


def test_what_work_on_the_device_logs_is_told_where_it_was_asked_for(tiny):
    context = contextvars.copy_context()
    context.run(OWNER.set, "me")
    assert context.run(tiny.generator.engine.map, lambda _: OWNER.get(), range(3)) == ["me"] * 3


# --- lines -------------------------------------------------------------------------------------------


class Writes:
    def __init__(self):
        self.parts = []

    def write(self, text):
        self.parts.append(text)

    def flush(self):
        pass


@pytest.mark.usefixtures("one_candidate")
def test_every_line_of_a_log_is_written_whole(tmp_path, monkeypatch):
    out, err = Writes(), Writes()
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.stderr", err)
    predict(Service(FakeModels(), Scratch(tmp_path)))
    write_line("x")
    assert len(out.parts) > 4 and len(err.parts) > 2
    for part in out.parts + err.parts:
        assert part.endswith("\n") and part.count("\n") == 1 and part.strip()


def test_progress_of_many_at_once_is_each_ones_own(capsys):
    lines = [ProgressLines() for _ in range(8)]
    for done in range(1, 101):
        for k, one in enumerate(lines):
            one(f"stage {k}", done, 100)
    shown = capsys.readouterr().err.splitlines()
    assert all(line.startswith("stage ") and "\x1b" not in line for line in shown)
    assert all(sum(line.startswith(f"stage {k}:") for line in shown) == 10 for k in range(8))


def test_progress_ends_a_prediction_that_was_cancelled():
    event = threading.Event()
    event.set()
    with pytest.raises(Cancelled), cancelled_by(event):
        ProgressLines()("candidates", 1, 2)


# --- models ------------------------------------------------------------------------------------------------


@pytest.fixture
def one_at_a_time(monkeypatch, tmp_path):
    """Models on a GPU that has room for one of two, and the order in which they were loaded."""
    loaded = []

    def load(folder):
        loaded.append(folder.rsplit("/", 1)[-1])
        maker = LoopMaker(FakeGenerator())
        maker.generator.release = lambda: None
        return maker

    for name in ("medium", "large"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(Models, "_folder", lambda self, name: tmp_path / name)
    monkeypatch.setattr(Models, "_fits", lambda self, folder: False)
    monkeypatch.setattr(LoopMaker, "load", staticmethod(load))
    models = Models({})
    models._gpu = True
    return models, loaded


@pytest.mark.slow
def test_a_model_is_exchanged_only_when_nobody_uses_it_and_who_waits_is_not_passed(one_at_a_time):
    models, loaded = one_at_a_time
    story = []

    def use(name, label):
        with models.lend(name):
            story.append(label)

    with models.lend("medium"):
        large = threading.Thread(target=use, args=("large", "large"))
        large.start()
        while models._door.acquire(blocking=False):  # until the large one stands at the door
            models._door.release()
            time.sleep(0.005)
        medium = threading.Thread(target=use, args=("medium", "medium again"))
        medium.start()
        time.sleep(0.2)
        assert story == [] and loaded == ["medium"]
        story.append("the first is done")
    large.join(60)
    medium.join(60)
    assert story == ["the first is done", "large", "medium again"]
    assert loaded == ["medium", "large", "medium"]


def test_who_waits_for_a_model_can_be_cancelled(one_at_a_time):
    models, loaded = one_at_a_time
    event, ended = threading.Event(), []

    def use():
        try:
            with cancelled_by(event), models.lend("large"):
                pass
        except Cancelled:
            ended.append("cancelled")

    with models.lend("medium"):
        threads = [threading.Thread(target=use) for _ in range(2)]  # at the door, and behind
        for thread in threads:
            thread.start()
        event.set()
        for thread in threads:
            thread.join(60)
        assert ended == ["cancelled"] * 2
        with models.lend("medium"):  # the door is free
            pass
    assert loaded == ["medium"]


@pytest.mark.slow
def test_memory_that_runs_out_in_one_prediction_takes_no_model_from_under_another(one_at_a_time):
    models, loaded = one_at_a_time
    with models.lend("medium") as maker:
        models.unload()
        with models.lend("medium") as again:
            assert again is maker
    models.unload()
    assert gc.get_freeze_count() == 0
    with models.lend("medium") as new:
        assert new is not maker
        assert gc.get_freeze_count() > 0  # else each prediction's collection takes .2 s from now on
    assert loaded == ["medium", "medium"]


# --- memory and health --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("one_candidate")
def test_memory_is_returned_when_the_last_one_ends_not_while_others_are_under_way(tmp_path, monkeypatch):
    returned = []
    monkeypatch.setattr("looper.service.service.return_memory", lambda: returned.append(1))
    service = Service(FakeModels(), Scratch(tmp_path))
    with service.metrics.prediction():
        for seed in range(3):
            predict(service, seed=seed)
        assert returned == []
        monkeypatch.setattr("looper.service.service.RETURN_SECONDS", -1)
        predict(service)
        assert returned == [1]  # now and then all the same
    monkeypatch.setattr("looper.service.service.RETURN_SECONDS", 1e9)
    predict(service)
    assert returned == [1, 1]


@pytest.mark.usefixtures("one_candidate")
def test_the_peak_of_memory_is_not_begun_anew_under_another_prediction(tmp_path, monkeypatch):
    resets = []
    monkeypatch.setattr("looper.service.service.reset_peak_memory", lambda: resets.append(1))
    service = Service(FakeModels(), Scratch(tmp_path))
    with service.metrics.prediction():
        predict(service)
        assert resets == []
    predict(service)
    assert resets == [1]


@pytest.mark.usefixtures("one_candidate")
def test_a_service_that_is_always_busy_is_asked_for_its_gpu_once_a_prediction_has_failed(
    tmp_path, monkeypatch
):
    service, make = Service(FakeModels(), Scratch(tmp_path)), LoopMaker.make
    service.models._gpu = True
    monkeypatch.setattr("looper.service.models.gpu_answers", lambda: False)

    def fail(self, *args):
        raise RuntimeError("CUDA error: unspecified launch failure")

    with service.metrics.prediction():
        assert service.healthy()
        with pytest.raises(ValueError, match="bpm"):
            predict(service, bpm=999)
        assert service.healthy()
        monkeypatch.setattr(LoopMaker, "make", fail)
        with pytest.raises(RuntimeError, match="launch failure"):
            predict(service)
        assert not service.healthy()
        monkeypatch.setattr(LoopMaker, "make", make)
        predict(service)
        assert service.healthy()


@pytest.mark.slow
def test_the_engines_state_is_read_by_model(tiny):
    metrics, models = Metrics(), Models({})
    models._loaded["folder"] = tiny
    metrics.watch(models.engines)
    tiny.generator.release()
    value = lambda name: metrics.registry.get_sample_value(f"looper_engine_{name}", {"model": "tiny"})
    assert value("rows_running") == value("rows_waiting") == value("eager_steps_total") == 0
    seen = []

    class Look(ProgressLines):
        def __call__(self, stage, done, total):
            if stage == "candidates" and 0 < done < total:
                seen.append({name: value(name) for name in ("rows_running", "slots", "cache_bytes")})

    from looper.request import LoopRequest

    tiny.make(LoopRequest("house", bpm=120, variations=1, max_duration=2, seed=1), Look())
    assert any(0 < now["rows_running"] <= 4 <= now["slots"] for now in seen)
    assert max(now["cache_bytes"] for now in seen) > 0 and value("step_seconds") > 0
    assert value("rows_running") == value("rows_waiting") == 0
