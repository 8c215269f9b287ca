"""A step that a CUDA graph can hold."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from looper.generation.batch import Row
from looper.generation.engine import Engine
from looper.generation.generator import Generator
from looper.generation.sampling import SamplingRule, any_rule, draw, sampling_rule
from looper.generation.slots import Slots
from looper.generation.step import make_step, step
from looper.model.kv_cache import row_windows
from looper.model.linear import BatchInvariantLinear
from looper.model.transformer import Transformer
from looper.request import Sampling
from looper.runtime import cuda_graph
from testkit import stand_ins
from testkit.checkpoints import Shape
from testkit.decoding import TEXT, described, prompt_codes

pytestmark = pytest.mark.usefixtures("one_thread")


ROWS, WINDOW, TEXT_ROOM = 2, 64, 32


def filled_slots(generator: Generator, sampling: Sampling) -> Slots:
    slots = Slots(generator.engine.transformer, 4, 64, 64)
    refill(slots, generator, sampling)
    return slots


def refill(slots: Slots, generator: Generator, sampling: Sampling) -> None:
    """Let two rows begin in slots that may have held others."""
    t = generator.engine.transformer
    slots.values.set([0, 1], sampling, t.card)
    t.write_text(slots.cross, [0, 1], generator.encode_text(TEXT))
    slots.sequence[:, :, 1:] = -1
    slots.position.zero_()
    slots.uniforms.uniform_(generator=torch.Generator().manual_seed(0))


def shapes_of(slots: Slots) -> tuple:
    window = row_windows(slots.cache, slots.halves[: 2 * ROWS], WINDOW)
    return window, slots.cross.of(slice(0, ROWS), TEXT_ROOM)


def step_on_fake_tensors(slots: Slots, rule: SamplingRule) -> None:
    """Tensors without values: `.item()`, `nonzero` or a shape made from data raise."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        step(slots, *shapes_of(slots), rule)


DRAWN = (Sampling(top_k=20), Sampling(top_p=0.9), Sampling(temperature=0), Sampling(cfg_coef=1, top_k=0))


@pytest.mark.parametrize(
    ("shape", "rule", "samplings"),
    [
        *(("t5", sampling_rule([sampling], 64), (sampling,)) for sampling in DRAWN),
        ("t5", any_rule(64), DRAWN),
        ("custom", any_rule(64), DRAWN),
    ],
    ids=["top_k", "top_p", "greedy", "unguided", "any", "any-custom"],
)
@torch.no_grad()
def test_the_step_is_one_graph_of_constant_shapes_without_a_look_at_the_device(
    models, shape, rule, samplings, monkeypatch
):
    """`fullgraph` raises where Python must look at a tensor, a recompile where a shape changes."""
    monkeypatch.setattr(
        "looper.model.transformer.attention_by_rows", F.scaled_dot_product_attention
    )  # as on CUDA
    generator = models(shape)
    torch._dynamo.reset()
    compiled = torch.compile(step, fullgraph=True, dynamic=False, backend="eager")
    traced = filled_slots(generator, samplings[0])
    for sampling in samplings:
        step_on_fake_tensors(filled_slots(generator, sampling), rule)
        eager = filled_slots(generator, sampling)
        refill(traced, generator, sampling)
        with torch._dynamo.config.patch(error_on_recompile=True):
            for _ in range(5):
                step(eager, *shapes_of(eager), rule)
                compiled(traced, *shapes_of(traced), rule)
        assert torch.equal(eager.sequence, traced.sequence)
        assert eager.position.tolist() == [5, 5, 0, 0]


@pytest.mark.parametrize("planted", ["item", "nonzero", "shape"])
@torch.no_grad()
def test_a_sync_planted_in_the_step_would_be_noticed(models, planted, monkeypatch):
    slots = filled_slots(models("t5"), Sampling(top_k=20))

    def spoiled(logits, *args):
        if planted == "item":
            logits = logits * (1 + 0 * logits.sum().item())
        if planted == "nonzero":
            logits = logits + logits.nonzero().sum()
        if planted == "shape":
            logits = logits + logits[logits > 0].sum()
        return draw(logits, *args)

    monkeypatch.setattr("looper.generation.step.draw", spoiled)
    with pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
        step_on_fake_tensors(slots, sampling_rule([Sampling(top_k=20)], 64))


@pytest.mark.parametrize(
    ("device", "value", "wanted"),
    [
        ("cuda", None, True),
        ("cuda", "0", True),
        ("cuda", "1", False),
        ("cuda", "yes", False),
        ("cpu", None, False),
    ],
)
def test_the_kill_switch_turns_graphs_off(monkeypatch, device, value, wanted):
    monkeypatch.delenv(cuda_graph.KILL_SWITCH, raising=False)
    if value is not None:
        monkeypatch.setenv(cuda_graph.KILL_SWITCH, value)
    assert cuda_graph.graphs_wanted(torch.device(device)) is wanted


def test_without_a_pool_a_graph_is_the_plain_function():
    calls = []
    graphed = cuda_graph.Graphed(lambda: calls.append(1))
    for _ in range(3):
        graphed()
    assert len(calls) == 3


@pytest.fixture
def as_on_cuda(models, monkeypatch):
    """Rows padded to 1, 2, 4, 8 ..., few windows, one rule, products in padded tiles, for engines made in the test."""
    for shape in ("t5", "biases", "custom", "wide"):
        models(shape)  # made before, as they are for all other tests
    monkeypatch.setattr("looper.generation.lane.few_shapes", lambda device: True)
    monkeypatch.setattr(
        "looper.model.transformer.BatchInvariantLinear",
        lambda weight, bias, tile, packing, buffers: BatchInvariantLinear(weight, bias, 64, False, buffers),
    )


class Launches(TorchDispatchMode):
    """Counts operators that do something: each is a kernel on a GPU; views are not."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        given = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if torch.is_tensor(t)}
        made = [t.untyped_storage().data_ptr() for t in tree_leaves(out) if torch.is_tensor(t)]
        self.count += function._schema.is_mutable or not given.issuperset(made)
        return out


def launches(layers: int, rows: int, folder: Path) -> int:
    generator = Generator.load(stand_ins.weights(folder / f"{layers}", Shape(num_layers=layers)), "cpu")
    slots = Slots(Transformer(generator.model.lm.half()), 32, 64, 64)
    one = make_step(slots, rows, 64, 64, any_rule(64))
    with torch.inference_mode(), Launches() as seen:
        one()
    return seen.count


@pytest.mark.parametrize("rows", [4, 32])
def test_a_step_launches_few_kernels_however_many_rows_there_are(as_on_cuda, rows, tmp_path):
    """Audiocraft launches about 1,700 for medium's 48 layers, in a step of each single variation."""
    two, three = launches(2, rows, tmp_path), launches(3, rows, tmp_path)
    per_layer = three - two
    assert per_layer <= 23
    assert two - 2 * per_layer <= 80


@pytest.mark.parametrize("cfg_coef", [3.0, 1.0])
@pytest.mark.parametrize("shape", ["t5", "biases", "custom", "wide"])
def test_codes_as_computed_on_cuda_are_audiocrafts(models, shape, cfg_coef, as_on_cuda):
    generator = models(shape)
    theirs = generator.model.lm.generate(
        conditions=described(TEXT), max_gen_len=40, use_sampling=False, cfg_coef=cfg_coef
    )
    rows = [Row(generator.encode_text(TEXT), (0, k, 0)) for k in range(5)]
    ours = Engine(generator.model).decode(rows, 40, Sampling(temperature=0, cfg_coef=cfg_coef))
    assert torch.equal(ours, theirs.expand(5, -1, -1))


@pytest.mark.parametrize("sampling", [Sampling(top_k=20), Sampling(top_k=20, cfg_coef=1)], ids=str)
def test_rows_computed_as_on_cuda_come_out_the_same_alone_and_together(models, as_on_cuda, sampling):
    generator = models("wide")
    text = generator.encode_text(TEXT)
    rows = [Row(text, (2, k, 0), prompt_codes(generator, 6)) for k in range(20)]
    together = Engine(generator.model).decode(rows, 30, sampling)
    for some in (slice(3, 4), slice(0, 5), slice(11, 20)):
        assert torch.equal(Engine(generator.model).decode(rows[some], 30, sampling), together[some])
