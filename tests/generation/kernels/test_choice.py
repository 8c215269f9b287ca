"""Which kernels are used is found out by a trial; here ATen's own operations stand for them, right, wrong or slow."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from looper.generation.batch import Row
from looper.generation.engine import Engine
from looper.generation.kernels import choice
from looper.generation.kernels.choice import KernelError, choose_kernels, kernels_wanted, tried
from looper.generation.kernels.operations import NAMES, aten
from looper.generation.lane import Lane, LaneKind
from looper.generation.messages import NoiseKey
from looper.model.transformer import Transformer
from looper.request import Sampling
from testkit import checkpoints, decoding


@pytest.fixture(scope="module")
def model():
    return checkpoints.random_model(checkpoints.Shape(num_heads=2, num_layers=2))


@pytest.fixture(scope="module")
def transformer(model):
    return Transformer(model.lm)


@pytest.fixture(autouse=True)
def inference():
    with torch.inference_mode():
        yield


def clock(kernel=1.0, reference=2.0):
    """A stopwatch that says what the trial asks for in turn: the reference, then the kernel."""
    turn = iter(1000 * [reference, kernel])
    return lambda function: next(turn)


def planted(name, spoil):
    """ATen's operations, of which one is spoilt."""
    right = aten(torch.float32)
    return replace(right, **{name: spoil(getattr(right, name))})


def a_little_off(operation):
    def wrong(*args):
        out = operation(*args)
        if out is not None:
            return out + 1e-3 * out.abs().max()
        slots = args[1]  # the sampler's
        slots.sequence[:, 0, 1:] = 5
        return None

    return wrong


def with_a_nan(operation):
    def wrong(*args):
        out = operation(*args)
        return out.index_fill(-1, torch.tensor([3]), float("nan"))

    return wrong


def rows_mixed(operation):
    """A last bit that depends on how many rows there are."""

    def wrong(*args):
        out = operation(*args)
        return out * (1 + 2e-7 * out.shape[-2])

    return wrong


def failing(operation):
    def wrong(*args):
        raise RuntimeError("PTX assembly aborted due to errors")

    return wrong


def test_kernels_that_are_right_and_faster_are_all_used(transformer):
    chosen = tried(transformer, aten(torch.float32), (1, 3), clock())
    assert chosen.used == NAMES
    assert chosen.read_lengths
    assert all(verdict.speedup == 2 for verdict in chosen.verdicts)


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_kernel_is_refused_and_the_reference_used(transformer, name, caplog):
    wrong = planted(name, a_little_off)
    chosen = tried(transformer, wrong, (1, 3), clock())
    assert chosen.used == tuple(other for other in NAMES if other != name)
    assert getattr(chosen.operations, name) is not getattr(wrong, name)
    assert f"the kernel {name} is not used: its results differ by" in caplog.text
    assert chosen.read_lengths == (name != "self_attention")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (with_a_nan, "its results differ by inf"),
        (rows_mixed, "1 rows come out other than among 3"),
        (failing, "it failed: RuntimeError: PTX assembly aborted"),
    ],
)
def test_why_a_kernel_is_refused_is_said(transformer, spoil, reason):
    chosen = tried(transformer, planted("product", spoil), (1, 3), clock())
    (verdict,) = (verdict for verdict in chosen.verdicts if verdict.refused)
    assert verdict.name == "product" and reason in verdict.refused


def test_slow_kernels_are_refused_and_where_none_is_left_steps_are_atens(transformer, caplog):
    chosen = tried(transformer, aten(torch.float32), (1, 3), clock(kernel=3.0))
    assert chosen.used == ()
    assert Lane(transformer, LaneKind(704, 16), 4, None, chosen).kernels is None
    assert "it takes 1.50 times the reference's time" in caplog.text


def test_kernels_about_as_fast_are_used_at_every_start(transformer):
    for wavering in (1.95, 2.0, 2.1):  # of the reference's 2
        assert tried(transformer, aten(torch.float32), (1, 3), clock(kernel=wavering)).used == NAMES


def test_where_kernels_are_required_a_refusal_is_an_error(transformer):
    wrong = planted("add_norm", a_little_off)
    with pytest.raises(KernelError, match="not all kernels can be used: add_norm: its results differ"):
        tried(transformer, wrong, (1, 3), clock(), required=True)


@pytest.mark.parametrize(
    ("value", "meant"), [("", "auto"), ("off", "off"), ("auto", "auto"), ("require", "require")]
)
def test_the_variables_values(value, meant, monkeypatch):
    monkeypatch.setenv(choice.VARIABLE, value)
    assert kernels_wanted() == meant


@pytest.mark.parametrize("value", ["on", "1", "Auto", "x" * 500])
def test_other_values_are_refused_by_name_on_every_device(value, monkeypatch, model):
    monkeypatch.setenv(choice.VARIABLE, value)
    with pytest.raises(ValueError, match="LOOPER_KERNELS must be off, auto or require, got ") as refused:
        Engine(model)
    assert len(str(refused.value)) < 150


@pytest.mark.parametrize("value", ["", "off", "auto"])
def test_a_cpu_has_no_kernels_and_never_asks_for_triton(value, monkeypatch, model):
    monkeypatch.setenv(choice.VARIABLE, value)
    monkeypatch.setattr(choice, "tried", lambda *args: pytest.fail("a trial on a CPU"))
    monkeypatch.setitem(__import__("sys").modules, "triton", None)
    engine = Engine(model)
    assert engine.kernels is None
    assert engine.status().kernels == {}


def test_requiring_kernels_on_a_cpu_is_refused(monkeypatch, transformer):
    monkeypatch.setenv(choice.VARIABLE, "require")
    with pytest.raises(KernelError, match="LOOPER_KERNELS=require, but the model is on cpu"):
        choose_kernels(transformer, None, 32)


@pytest.mark.parametrize(
    ("capability", "installed", "reason"),
    [
        ((7, 5), True, "the GPU is of capability 7.5, and kernels need 8.0"),
        ((9, 0), False, "Triton is not installed"),
        ((8, 0), True, None),
    ],
)
def test_old_cards_and_machines_without_triton_keep_atens_step(
    capability, installed, reason, transformer, monkeypatch
):
    on_gpu = SimpleNamespace(**{**vars(transformer), "device": torch.device("cuda")})
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(choice.importlib.util, "find_spec", lambda name: object() if installed else None)
    assert choice.what_prevents(on_gpu) == reason


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        (decoding.SHAPES["biases"], "biases"),
        (decoding.SHAPES["custom"], "biases"),
        (
            checkpoints.Shape(qk_layer_norm=True, custom=True, memory_efficient=False, num_layers=1),
            "norms of queries",
        ),
        (checkpoints.Shape(layer_scale=0.5, num_layers=1), "layer scales"),
        (checkpoints.Shape(num_layers=1), "heads of 8"),
    ],
)
def test_models_of_another_make_keep_atens_step(shape, reason):
    found = choice.what_model_prevents(Transformer(checkpoints.random_model(shape).lm))
    assert found is not None and reason in found


def test_a_lane_of_kernels_decodes_what_a_plain_one_does(model, transformer):
    """ATen's operations one by one are the plain step's: codes, windows and graphs of the lane fit them."""
    chosen = tried(transformer, aten(torch.float32), (1, 3), clock())
    engines = Engine(model), Engine(model)
    engines[1].kernels = engines[1].lanes.kernels = chosen
    text = torch.randn(5, transformer.dim, generator=torch.Generator().manual_seed(1))
    rows = [Row(text, NoiseKey(0, k, 0)) for k in range(3)]
    plain, ours = (engine.decode(rows, 20, Sampling(top_k=20)) for engine in engines)
    assert torch.equal(plain, ours)
    assert [lane.kernels for lane in engines[1].lanes] == [chosen]
    assert engines[1].status().kernels == dict.fromkeys(NAMES, True)


@pytest.mark.parametrize(("refused", "windows"), [(None, [704]), ("self_attention", [256, 512, 704])])
def test_one_graph_serves_all_lengths_where_attention_reads_them(transformer, refused, windows):
    candidate = aten(torch.float32) if refused is None else planted(refused, a_little_off)
    chosen = tried(transformer, candidate, (1, 3), clock())
    assert Lane(transformer, LaneKind(704, 16), 4, None, chosen)._windows() == windows
