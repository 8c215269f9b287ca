"""A step that a CUDA graph can hold."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import looper.generation.decoder
from looper.generation.batch import Row
from looper.generation.decoder import Decoder
from looper.generation.generator import Generator
from looper.generation.sampling import draw, sampling_rule
from looper.generation.step import State, state_bytes, step
from looper.model.kv_cache import windows
from looper.model.linear import Dense
from looper.model.transformer import Transformer
from looper.request import Sampling
from looper.runtime import cuda_graph
from testkit import checkpoints
from testkit.checkpoints import Shape
from testkit.decoding import TEXT, described, prompt_codes

pytestmark = pytest.mark.usefixtures("one_thread")


def filled_state(generator: Generator, sampling: Sampling) -> State:
    t = generator.decoder.transformer
    state = State(t, 2, 64, 32, sampling.guided)
    state.set_sampling(sampling)
    t.write_text(state.cross, [0, 1], generator.encode_text(TEXT))
    state.sequence[:, :, 0] = t.special
    state.uniforms.uniform_(generator=torch.Generator().manual_seed(0))
    return state


def step_on_fake_tensors(t: Transformer, state: State, plan: tuple[str, int]) -> None:
    """Tensors without values: `.item()`, `nonzero` or a shape made from data raise."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        step(t, state, plan, windows(state.cache, 64), state.columns)


@pytest.mark.parametrize(
    "sampling",
    [Sampling(top_k=20), Sampling(top_p=0.9), Sampling(temperature=0), Sampling(cfg_coef=1, top_k=0)],
    ids=str,
)
@pytest.mark.parametrize("shape", ["t5", "custom"])
@torch.no_grad()
def test_the_step_is_one_graph_of_constant_shapes_without_a_look_at_the_device(models, sampling, shape):
    """`fullgraph` raises where Python must look at a tensor, a recompile where a shape changes."""
    generator = models(shape)
    t, plan = generator.decoder.transformer, sampling_rule(sampling, 64)
    step_on_fake_tensors(t, filled_state(generator, sampling), plan)
    eager, traced = filled_state(generator, sampling), filled_state(generator, sampling)
    torch._dynamo.reset()
    compiled = torch.compile(step, fullgraph=True, dynamic=False, backend="eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(5):
            step(t, eager, plan, windows(eager.cache, 64), eager.columns)
            compiled(t, traced, plan, windows(traced.cache, 64), traced.columns)
    assert torch.equal(eager.sequence, traced.sequence)
    assert eager.position.item() == 5


@pytest.mark.parametrize("planted", ["item", "nonzero", "shape"])
@torch.no_grad()
def test_a_sync_planted_in_the_step_would_be_noticed(models, planted, monkeypatch):
    generator = models("t5")
    t, state = generator.decoder.transformer, filled_state(generator, Sampling(top_k=20))

    def spoiled(logits, *args):
        if planted == "item" and logits.sum().item() > 1e9:
            logits = logits * 2
        if planted == "nonzero":
            logits = logits + logits.nonzero().sum()
        if planted == "shape":
            logits = logits + logits[logits > 0].sum()
        return draw(logits, *args)

    monkeypatch.setattr("looper.generation.step.draw", spoiled)
    with pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
        step_on_fake_tensors(t, state, ("top_k", 20))


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


def test_a_disabled_graph_is_the_plain_function():
    calls = []
    graphed = cuda_graph.Graphed(lambda: calls.append(1), disable=True)
    for _ in range(3):
        graphed()
    assert len(calls) == 3


def test_states_are_kept_between_requests_of_one_size_and_the_oldest_go_where_room_ends(models, monkeypatch):
    """What a captured graph reads must stay where it is; what is no longer asked for must go."""
    decoder = Decoder(models("t5").model)
    text = models("t5").encode_text(TEXT)

    def state_of(rows: int, **sampling) -> State:
        decoder.decode([Row(text, (0, 0, 0))] * rows, 20, Sampling(**{"top_k": 20} | sampling))
        return list(decoder._states.values())[-1][0]

    first = state_of(1)
    assert state_of(1, temperature=0.5, cfg_coef=2.0) is first
    assert state_of(1, top_k=10) is first, "another rule has graphs of its own, not a state"
    second = state_of(2)
    assert second.nbytes == state_bytes(decoder.transformer, 2, 256, 32, True)
    assert state_of(1) is first
    monkeypatch.setattr("looper.generation.decoder.kept_bytes", lambda device: 3.5 * first.nbytes)
    third = state_of(3)  # alone as large as the others together
    assert list(decoder._states.values()) == [(third, decoder._states[next(iter(decoder._states))][1])]
    assert state_of(1) is not first


def test_graphs_of_a_state_do_not_add_up_without_end(models, monkeypatch):
    monkeypatch.setattr("looper.generation.decoder.MOST_GRAPHS", 5)
    decoder = Decoder(models("t5").model)
    row = Row(models("t5").encode_text(TEXT), (0, 0, 0))
    for top_k in range(1, 9):
        decoder.decode([row], 40, Sampling(top_k=top_k))
    ((_, graphs),) = decoder._states.values()
    assert len(graphs) == 5


def test_a_state_in_use_when_something_goes_wrong_is_not_used_again(models):
    decoder = Decoder(models("t5").model)
    rows = [Row(models("t5").encode_text(TEXT), (0, 0, 0))]
    whole = decoder.decode(rows, 20, Sampling(top_k=20))
    ((state, _),) = decoder._states.values()

    def cancel(done, total):
        if done == 7:
            state.cache[0].fill_(float("nan"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decoder.decode(rows, 20, Sampling(top_k=20), cancel)
    assert not decoder._states
    assert torch.equal(decoder.decode(rows, 20, Sampling(top_k=20)), whole)


@pytest.fixture
def as_on_cuda(models, monkeypatch):
    """Rows padded to blocks, products in padded tiles, for decoders made in the test."""
    for shape in ("t5", "biases", "custom", "wide"):
        models(shape)  # made before, as they are for all other tests
    monkeypatch.setitem(looper.generation.decoder.ROW_BLOCK, "cpu", 4)
    monkeypatch.setattr(
        "looper.model.transformer.Dense", lambda weight, bias, tile, packing: Dense(weight, bias, 64, False)
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
    generator = Generator.load(checkpoints.weights(folder / f"{layers}", Shape(num_layers=layers)), "cpu")
    t, sampling = Transformer(generator.model.lm.half()), Sampling(top_k=20)
    state = State(t, rows, 64, 32, guided=True)
    state.set_sampling(sampling)
    state.sequence.zero_()
    with torch.inference_mode(), Launches() as seen:
        step(t, state, sampling_rule(sampling, 64), windows(state.cache, 64), state.columns)
    return seen.count


@pytest.mark.parametrize("rows", [4, 20])
def test_a_step_launches_few_kernels_however_many_rows_there_are(as_on_cuda, rows, tmp_path):
    """Audiocraft launches about 1,700 for medium's 48 layers, in a step of each single variation."""
    two, three = launches(2, rows, tmp_path), launches(3, rows, tmp_path)
    per_layer = three - two
    assert per_layer <= 21
    assert two - 2 * per_layer <= 40


@pytest.mark.parametrize("cfg_coef", [3.0, 1.0])
@pytest.mark.parametrize("shape", ["t5", "biases", "custom", "wide"])
def test_codes_as_computed_on_cuda_are_audiocrafts(models, shape, cfg_coef, as_on_cuda):
    generator = models(shape)
    theirs = generator.model.lm.generate(
        conditions=described(TEXT), max_gen_len=70, use_sampling=False, cfg_coef=cfg_coef
    )
    rows = [Row(generator.encode_text(TEXT), (0, k, 0)) for k in range(5)]
    ours = Decoder(generator.model).decode(rows, 70, Sampling(temperature=0, cfg_coef=cfg_coef))
    assert torch.equal(ours, theirs.expand(5, -1, -1))


@pytest.mark.parametrize("sampling", [Sampling(top_k=20), Sampling(top_k=20, cfg_coef=1)], ids=str)
def test_rows_computed_as_on_cuda_come_out_the_same_alone_and_together(models, as_on_cuda, sampling):
    generator = models("wide")
    text = generator.encode_text(TEXT)
    rows = [Row(text, (2, k, 0), prompt_codes(generator, 6)) for k in range(20)]
    together = Decoder(generator.model).decode(rows, 30, sampling)
    for some in (slice(3, 4), slice(0, 5), slice(11, 20)):
        assert torch.equal(Decoder(generator.model).decode(rows[some], 30, sampling), together[some])


@pytest.mark.parametrize("sampling", [Sampling(top_k=20), Sampling(top_k=20, cfg_coef=1)], ids=str)
def test_rows_in_padded_blocks_as_on_cuda_come_out_the_same(models, monkeypatch, sampling):
    generator = models("t5")
    prompt = prompt_codes(generator, 6)
    rows = [Row(generator.encode_text(TEXT), (2, k, 0), prompt) for k in range(6)]
    whole = generator.decoder.decode(rows, 30, sampling)
    monkeypatch.setitem(looper.generation.decoder.ROW_BLOCK, "cpu", 4)
    blocked = Decoder(generator.model)
    assert torch.equal(blocked.decode(rows, 30, sampling), whole)
    assert [key[0] for key in blocked._states] == [8]
    assert torch.equal(blocked.decode(rows[5:], 30, sampling), whole[5:])
    assert torch.equal(blocked.decode(rows[:5], 30, sampling), whole[:5])


def test_memory_of_other_requests_is_given_up_before_the_batch_is_halved(models, monkeypatch):
    decoder = Decoder(models("t5").model)
    rows = [Row(models("t5").encode_text(TEXT), (0, k, 0)) for k in range(6)]
    whole = decoder.decode(rows, 20, Sampling(top_k=20))
    decoder.decode(rows[:2], 20, Sampling(top_k=20))
    decode_batch, sizes = decoder._decode_batch, []

    def small_memory(batch, *args):
        sizes.append(len(batch))
        if len(decoder._states) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode_batch(batch, *args)

    monkeypatch.setattr(decoder, "_decode_batch", small_memory)
    assert torch.equal(decoder.decode(rows, 20, Sampling(top_k=20)), whole)
    assert sizes == [6, 6]
