import threading
import urllib.error
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from looper.generation.tasks import EngineStatus
from looper.pipeline.maker import LoopMaker
from looper.runtime.cuda_graph import StepCounts
from looper.service import probe
from looper.service.metrics import Metrics
from looper.service.probes import PATHS, PORT_VARIABLE, Probes, port, start_probes
from looper.service.scratch import Scratch
from looper.service.service import Service
from testkit.fakes import FakeGenerator
from tests.service.test_service import CancelledError, FakeModels, predict


@pytest.fixture
def service(tmp_path, one_candidate):
    return Service(FakeModels(), Scratch(tmp_path))


@pytest.fixture
def probes(service):
    probes = Probes(service.metrics, 0)
    yield probes
    probes.close()


def get(probes, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{probes.port}{path}", timeout=20) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def samples(probes):
    status, text = get(probes, "/metrics")
    assert status == 200
    found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, *sample.labels.values()): sample.value for sample in found}


@pytest.mark.slow
def test_predictions_are_counted_by_what_became_of_them(service, probes, monkeypatch):
    predict(service, variations=2)
    with pytest.raises(ValueError, match="bpm"):
        predict(service, bpm=999)

    def act(error):
        def make(self, *args):
            raise error

        monkeypatch.setattr(LoopMaker, "make", make)

    for error, seen in (
        (CancelledError(), CancelledError),
        (MemoryError(), RuntimeError),
        (RuntimeError("CUDA error: an illegal memory access"), RuntimeError),
    ):
        act(error)
        with pytest.raises(seen):
            predict(service)
    found = samples(probes)
    for outcome in ("ok", "refused", "failed", "out_of_memory", "cancelled"):
        assert found["looper_predictions_total", outcome] == 1
    assert found["looper_loops_total",] == 2 and found["looper_predictions_in_flight",] == 0
    for stage in ("candidates", "variations", "loops", "export"):
        assert found["looper_stage_seconds_count", stage] == 1
        assert found["looper_stage_seconds_sum", stage] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("drifts", "rounds"),
    [
        (lambda variation, attempt: False, 0),
        (lambda variation, attempt: attempt == 0 and variation > 1, 2),  # both continuations once more
        (lambda variation, attempt: attempt < 4 and variation == 1, 1),  # all candidates once more
    ],
)
def test_further_rounds_of_draws_are_counted(tmp_path, drifts, rounds):
    drifting = FakeGenerator(deviation=lambda key: 0.08 if drifts(*key[1:]) else 0.0)
    service = Service(FakeModels(drifting), Scratch(tmp_path))
    predict(service, variations=3)
    assert service.metrics.registry.get_sample_value("looper_redraws_total") == rounds


def test_a_service_is_live_at_once_ready_when_loaded_and_stays_ready_while_busy(service, probes, monkeypatch):
    assert get(probes, "/live")[0] == 200 and get(probes, "/ready")[0] == 503
    probes.ready(service.healthy)
    assert get(probes, "/ready")[0] == 200 and get(probes, "/idle")[0] == 200
    seen, make = {}, LoopMaker.make

    def look(self, *args):
        seen.update({path: get(probes, path)[0] for path in ("/live", "/ready", "/idle")})
        seen["in flight"] = samples(probes)["looper_predictions_in_flight",]
        return make(self, *args)

    monkeypatch.setattr(LoopMaker, "make", look)
    predict(service)
    assert seen == {"/live": 200, "/ready": 200, "/idle": 503, "in flight": 1}
    assert get(probes, "/idle")[0] == 200


def test_a_lost_gpu_is_neither_ready_nor_live(service, probes):
    probes.ready(lambda: False)
    assert get(probes, "/live")[0] == get(probes, "/ready")[0] == 503
    assert get(probes, "/metrics")[0] == 200


def test_nothing_of_a_request_reaches_the_metrics(service, probes):
    predict(service, prompt='secret words", evil="1"} 1\n')
    status, text = get(probes, "/metrics")
    assert status == 200 and "secret" not in text and "evil" not in text


def test_other_paths_are_not_there_and_a_broken_client_harms_nobody(probes):
    import socket

    assert get(probes, "/../etc/passwd")[0] == 404
    assert 404 not in [get(probes, path)[0] for path in PATHS]
    with socket.create_connection(("127.0.0.1", probes.port)) as client:
        client.sendall(b"\x00\xff nonsense\r\n\r\n")
    assert get(probes, "/live")[0] == 200


def test_probes_are_off_unless_a_port_is_named(monkeypatch):
    monkeypatch.delenv(PORT_VARIABLE, raising=False)
    assert port() is None and start_probes(Metrics()) is None


@pytest.mark.parametrize("value", ["http", "0", "65536", "-1", "9400.5", "٣"])
def test_a_variable_that_is_no_port_is_refused_by_name(monkeypatch, value):
    monkeypatch.setenv(PORT_VARIABLE, value)
    with pytest.raises(ValueError, match="LOOPER_METRICS_PORT must be a port from 1 to 65535"):
        port()


def test_a_port_that_is_taken_is_named(probes):
    with pytest.raises(OSError, match=f"LOOPER_METRICS_PORT: cannot listen on port {probes.port}"):
        Probes(Metrics(), probes.port)


def test_draining_waits_for_the_prediction_under_way(service, probes, monkeypatch):
    release, inside = threading.Event(), threading.Event()

    def hold():
        with service.metrics.prediction():
            inside.set()
            release.wait(60)

    prediction = threading.Thread(target=hold)
    prediction.start()
    assert inside.wait(60) and probe.ask(probes.port, "/idle") is probe.Answer.NO
    waiting = threading.Thread(target=probe.wait_until_drained, args=(probes.port, 0.2, 0.02))
    waiting.start()
    waiting.join(0.6)
    assert waiting.is_alive()
    release.set()
    waiting.join(60)
    assert not waiting.is_alive()
    prediction.join(60)


def test_draining_a_container_without_metrics_or_whose_worker_is_gone_does_not_wait(monkeypatch):
    monkeypatch.delenv(PORT_VARIABLE, raising=False)
    assert probe.main(["drained"]) == 0
    gone = Probes(Metrics(), 0)
    gone.close()
    assert probe.ask(gone.port, "/idle") is probe.Answer.NOBODY
    probe.wait_until_drained(gone.port, 0.1, 0.02)


def test_the_probes_can_be_asked_by_a_command(probes, monkeypatch):
    monkeypatch.setenv(PORT_VARIABLE, str(probes.port))
    assert [probe.main([word]) for word in ("live", "ready", "idle")] == [0, 1, 0]
    probes.ready(lambda: True)
    assert probe.main(["ready"]) == 0
    assert probe.main(["steady"]) == probe.main([]) == 2
    monkeypatch.delenv(PORT_VARIABLE)
    assert probe.main(["ready"]) == 1


def test_each_part_of_the_step_says_whether_it_is_a_kernel():
    metrics = Metrics()
    status = EngineStatus(0, 0, 0, 0, 0.0, StepCounts(), {"sample": True, "product": False})
    metrics.watch(lambda: {"medium": status, "tiny": EngineStatus(0, 0, 0, 0, 0.0, StepCounts())})
    read = lambda model, kernel: metrics.registry.get_sample_value(
        "looper_engine_kernel", {"model": model, "kernel": kernel}
    )
    assert (read("medium", "sample"), read("medium", "product")) == (1, 0)
    assert read("tiny", "sample") is None  # on a CPU there are none
