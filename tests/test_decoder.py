"""The decode loop against audiocraft's own, and what makes a row independent of its neighbours."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from audiocraft.modules.conditioners import ClassifierFreeGuidanceDropout, ConditioningAttributes
from audiocraft.utils import utils as audiocraft_utils
from scipy import stats
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)

import looper.decoder
from looper import checkpoint, cudagraph, dense
from looper.clock import FEATURES, clock_features
from looper.decoder import DecodeError, Decoder
from looper.generator import Generator
from looper.rows import Row, text_length
from looper.sampling import Sampling, draw, row_uniforms
from looper.step import State, step
from looper.transformer import Transformer, windows
from tests import standin
from tests.standin import Shape

TEXT = "deep house warm chords 120"
SHAPES = {
    "t5": Shape(),
    "lut": Shape(dim=48, num_heads=6, num_layers=2, n_q=3, text="lut"),
    "biases": Shape(bias=True, layer_scale=0.6, memory_efficient=False, num_layers=2),
    "custom": Shape(
        custom=True, memory_efficient=False, qk_layer_norm=True, bias=True, num_heads=2, num_layers=2
    ),
    "delays": Shape(n_q=4, delays=(0, 2, 3, 5), num_layers=1),
    "one codebook": Shape(n_q=1, num_layers=1, dim=64, card=100),
    # wide enough for the packed weights of oneDNN
    "wide": Shape(dim=256, num_heads=8, num_layers=1, card=128),
}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Stand-ins by the name of their shape, each made once."""
    made: dict[str, Generator] = {}
    torch.set_num_threads(1)

    def get(name: str) -> Generator:
        if name not in made:
            made[name] = Generator.load(
                standin.weights(tmp_path_factory.mktemp("m") / "mini", SHAPES[name]), "cpu"
            )
        return made[name]

    return get


def described(*texts: str) -> list[ConditioningAttributes]:
    return [ConditioningAttributes(text={"description": text}) for text in texts]


def prompt_codes(generator: Generator, frames: int) -> torch.Tensor:
    t = generator.decoder.transformer
    return torch.randint(0, t.card, (t.n_q, frames), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("cfg_coef", [3.0, 1.0])
@pytest.mark.parametrize("prompt_frames", [0, 1, 21])
def test_greedy_codes_are_audiocrafts(models, shape, cfg_coef, prompt_frames):
    generator = models(shape)
    prompt = prompt_codes(generator, prompt_frames) if prompt_frames else None
    theirs = generator.model.lm.generate(
        prompt=None if prompt is None else prompt[None],
        conditions=described(TEXT),
        max_gen_len=70,
        use_sampling=False,
        cfg_coef=cfg_coef,
    )
    row = Row(generator.encode_text(TEXT), (0, 0, 0), prompt)
    ours = generator.decoder.decode([row], 70, Sampling(temperature=0, cfg_coef=cfg_coef))
    assert torch.equal(ours, theirs)
    assert len(theirs.unique()) > 3  # a stuck model would agree with anything


@torch.inference_mode()
def our_logits(
    transformer: Transformer, text: torch.Tensor, tokens: torch.Tensor, clock=None
) -> torch.Tensor:
    """Feed [n_q, columns] one column at a time; [2, n_q, columns, card]: conditional and null."""
    columns = tokens.shape[1]
    cross = transformer.new_cross(1, text_length(len(text)))
    transformer.write_text(cross, [0], text)
    cache, out = transformer.new_cache(2, columns), []
    for i in range(columns):
        x = transformer.embed(tokens[None, :, i : i + 1]) + transformer.positions(columns)[i]
        if clock is not None:
            x = x + clock[i] @ transformer.clock_weight.T
        mask = (torch.arange(columns) <= i)[None]
        hidden = transformer(x.repeat(2, 1, 1), windows(cache, columns), cross, torch.tensor([i]), mask)
        out.append(transformer.logits(hidden))
    return torch.stack(out, dim=2)


@torch.inference_mode()
def their_logits(lm, tokens: torch.Tensor, text: str) -> torch.Tensor:
    """One full pass of audiocraft's LMModel, conditional and null."""
    conditions = described(text)
    conditions += ClassifierFreeGuidanceDropout(p=1.0)(conditions)
    tensors = lm.condition_provider(lm.condition_provider.tokenize(conditions))
    return lm(tokens[None].repeat(2, 1, 1), [], tensors)


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_are_audiocrafts(models, shape):
    generator = models(shape)
    tokens = prompt_codes(generator, 40)
    tokens[:, 0] = generator.decoder.transformer.special
    ours = our_logits(generator.decoder.transformer, generator.encode_text(TEXT), tokens)
    theirs = their_logits(generator.model.lm, tokens, TEXT)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    assert theirs.std() > 0.1


@pytest.fixture(scope="module")
def tiny():
    return Generator.load("tiny", "cpu")


def test_logits_of_the_shipped_model_are_audiocrafts_with_the_clock_added(tiny):
    clock = torch.from_numpy(clock_features(60, 25))
    tokens = prompt_codes(tiny, 50)
    tokens[:, 0] = tiny.decoder.transformer.special
    ours = our_logits(tiny.decoder.transformer, tiny.encode_text(TEXT), tokens, clock)
    added = clock[:50] @ tiny.model.clock.weight.T
    hook = tiny.model.lm.transformer.register_forward_pre_hook(lambda _, args: (args[0] + added, *args[1:]))
    try:
        theirs = their_logits(tiny.model.lm, tokens, TEXT)
    finally:
        hook.remove()
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("prompt_frames", [0, 13])
def test_greedy_codes_of_the_shipped_model_are_audiocrafts(tiny, prompt_frames):
    clock = clock_features(90, 25)
    prompt = prompt_codes(tiny, prompt_frames) if prompt_frames else None
    fed = 0

    def add_clock(_, args, kwargs):
        nonlocal fed
        columns = torch.from_numpy(clock)[fed : fed + args[0].shape[1]]
        fed += args[0].shape[1]
        return (args[0] + columns @ tiny.model.clock.weight.T, *args[1:]), kwargs

    hook = tiny.model.lm.transformer.register_forward_pre_hook(add_clock, with_kwargs=True)
    try:
        theirs = tiny.model.lm.generate(
            prompt=None if prompt is None else prompt[None],
            conditions=described(TEXT),
            max_gen_len=80,
            use_sampling=False,
            cfg_coef=3.0,
        )
    finally:
        hook.remove()
    row = Row(tiny.encode_text(TEXT), (0, 0, 0), prompt, torch.from_numpy(clock))
    assert torch.equal(tiny.decoder.decode([row], 80, Sampling(temperature=0)), theirs)


def test_the_clock_moves_the_codes_and_is_held_beyond_its_end(tiny):
    assert tiny.model.clock.weight.shape[1] == FEATURES
    text = tiny.encode_text(TEXT)

    def codes(features):
        clock = None if features is None else torch.from_numpy(features)
        return tiny.decoder.decode([Row(text, (0, 0, 0), None, clock)], 40, Sampling(temperature=0))

    features = clock_features(43, 25)
    held = np.concatenate([features[:30], features[29:30].repeat(13, axis=0)])
    assert torch.equal(codes(features[:30]), codes(held))
    assert not torch.equal(codes(features), codes(clock_features(43, 32)))
    assert not torch.equal(codes(features), codes(None))


# --- the sampler ---------------------------------------------------------------------------------


def chi_square_p(first: np.ndarray, second: np.ndarray, n: int) -> float:
    """Two-sample chi-square over tokens, rare ones pooled."""
    counts = np.stack([np.bincount(first, minlength=n), np.bincount(second, minlength=n)])
    common = counts.sum(axis=0) >= 20
    table = np.column_stack([counts[:, common], counts[:, ~common].sum(axis=1)])
    return stats.chi2_contingency(table[:, table.sum(axis=0) > 0]).pvalue


def audiocraft_draw(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    probabilities = torch.softmax(logits / sampling.temperature, dim=-1)
    if sampling.top_p > 0:
        return audiocraft_utils.sample_top_p(probabilities, p=sampling.top_p)
    if sampling.top_k > 0:
        return audiocraft_utils.sample_top_k(probabilities, k=sampling.top_k)
    return audiocraft_utils.multinomial(probabilities, num_samples=1)


def our_draw(logits: torch.Tensor, uniforms: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    plan = sampling.plan(logits.shape[-1])
    return draw(
        logits, uniforms, plan, torch.tensor(sampling.temperature or 1.0), torch.tensor(sampling.top_p)
    )


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(top_k=250),
        Sampling(top_k=5),
        Sampling(top_k=1),
        Sampling(top_k=0),
        Sampling(top_k=300),
        Sampling(top_k=40, temperature=0.5),
        Sampling(top_k=40, temperature=2.0),
        Sampling(top_k=3, top_p=0.8),
        Sampling(top_p=0.05),
        Sampling(top_p=1.0),
        Sampling(top_p=0.5, temperature=1.7),
    ],
    ids=str,
)
def test_draws_have_audiocrafts_distribution(sampling):
    torch.manual_seed(1)
    card, draws = 300, 40_000
    logits = (2 * torch.randn(card)).expand(draws, card)
    theirs = audiocraft_draw(logits.clone(), sampling)[:, 0].numpy()
    uniforms = torch.from_numpy(np.random.default_rng(2).random(draws, dtype=np.float32))
    ours = our_draw(logits, uniforms, sampling).numpy()
    assert set(ours) <= set(np.flatnonzero(np.bincount(theirs, minlength=card))) | rare(logits[0], sampling)
    if len(set(theirs)) > 1:
        assert chi_square_p(ours, theirs, card) > 1e-3
    else:
        assert set(ours) == set(theirs)


def rare(logits: torch.Tensor, sampling: Sampling) -> set[int]:
    """Tokens that may be drawn and yet be missing among 40,000 draws; none outside top_k or top_p."""
    probabilities = torch.softmax(logits / sampling.temperature, dim=-1)
    order = probabilities.argsort(descending=True)
    before = probabilities[order].cumsum(0) - probabilities[order]
    allowed = order[before <= sampling.top_p] if sampling.top_p else order[: sampling.top_k or None]
    return {int(token) for token in allowed if probabilities[token] < 1e-3}


def test_a_wrong_distribution_would_be_noticed():
    torch.manual_seed(1)
    logits = (2 * torch.randn(300)).expand(40_000, 300)
    theirs = audiocraft_draw(logits.clone(), Sampling(top_k=0))[:, 0].numpy()
    warmer = audiocraft_draw(logits.clone(), Sampling(top_k=0, temperature=1.1))[:, 0].numpy()
    assert chi_square_p(theirs, warmer, 300) < 1e-3


@pytest.mark.parametrize("sampling", [Sampling(top_k=3), Sampling(top_k=0), Sampling(top_p=0.9)], ids=str)
@pytest.mark.parametrize("uniform", [0.0, 0.5, float(np.nextafter(np.float32(1), np.float32(0)))])
def test_extreme_numbers_never_draw_an_excluded_token(sampling, uniform):
    logits = torch.full((1, 64), -1e4)
    logits[0, [7, 20, 41]] = torch.tensor([1.0, 2.0, 3.0])
    assert our_draw(logits, torch.tensor([uniform]), sampling).item() in (7, 20, 41)


def test_temperature_zero_takes_the_likeliest():
    logits = torch.tensor([[0.0, 5.0, 4.9]])
    assert our_draw(logits, torch.tensor([0.99]), Sampling(temperature=0)).item() == 1


def test_top_p_wins_over_top_k():
    assert Sampling(top_k=1, top_p=0.9).plan(64)[0] == "top_p"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"top_k": -1}, "top_k"),
        ({"top_k": 2.5}, "top_k"),
        ({"top_p": 1.01}, "top_p must be between 0 and 1, got 1.01"),
        ({"top_p": -0.1}, "top_p"),
        ({"top_p": float("nan")}, "top_p"),
        ({"temperature": -0.5}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"cfg_coef": float("nan")}, "cfg_coef"),
    ],
)
def test_sampling_values_out_of_range_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**values)


def test_a_top_k_beyond_the_codebook_is_refused_before_decoding(models):
    with pytest.raises(ValueError, match="top_k must be between 0 and 64 for this model, got 65"):
        models("t5").decoder.decode([Row(models("t5").encode_text(TEXT), (0, 0, 0))], 5, Sampling(top_k=65))


# --- rows and their neighbours -------------------------------------------------------------------


def test_random_numbers_hang_on_the_key_alone():
    whole = row_uniforms([(5, 0, 0), (5, 1, 0), (5, 1, 1)], 50, 4)
    assert np.array_equal(row_uniforms([(5, 1, 0)], 20, 4)[0], whole[1, :20])
    assert len({row.tobytes() for row in whole}) == 3
    assert whole.min() >= 0
    assert whole.max() < 1


@pytest.mark.parametrize("shape", ["t5", "biases", "wide"])
@pytest.mark.parametrize("cfg_coef", [3.0, 1.0])
@pytest.mark.parametrize("prompt_frames", [0, 9])
def test_a_row_is_the_same_alone_and_among_twenty(models, shape, cfg_coef, prompt_frames):
    generator = models(shape)
    sampling = Sampling(top_k=20, cfg_coef=cfg_coef)
    prompt = prompt_codes(generator, prompt_frames) if prompt_frames else None
    other = None if prompt is None else prompt.flip(1)
    text, longer = generator.encode_text(TEXT), generator.encode_text("jazz swing piano " * 4)
    longest = generator.encode_text("jazz swing piano " * 40)
    assert text_length(len(longest)) > text_length(len(text)) == text_length(len(longer)) > len(longer)
    crowd = [Row(text, (1, k, 0), prompt) for k in range(12)]
    crowd += [Row(longer, (1, k, 0), other) for k in range(12, 16)]
    crowd += [Row(longest, (1, k, 0), other) for k in range(16, 20)]
    together = generator.decoder.decode(crowd, 40, sampling)
    for k in (0, 3, 11, 12, 19):
        assert torch.equal(generator.decoder.decode([crowd[k]], 40, sampling)[0], together[k])
    assert torch.equal(generator.decoder.decode(crowd[9:14], 40, sampling), together[9:14])
    assert len({row.numpy().tobytes() for row in together}) == 20


def test_twenty_rows_of_the_shipped_model_are_the_same_one_by_one(tiny):
    clock = torch.from_numpy(clock_features(60, 25))
    text = tiny.encode_text(TEXT)
    rows = [Row(text, (9, k, 0), None, clock) for k in range(20)]
    together = tiny.decoder.decode(rows, 50, Sampling())
    for k in (0, 7, 19):
        assert torch.equal(tiny.decoder.decode([rows[k]], 50, Sampling())[0], together[k])


@pytest.mark.parametrize("limit", [1, 3, 7])
def test_running_out_of_memory_halves_the_batch_with_the_same_result(models, monkeypatch, limit, caplog):
    decoder = Decoder(models("t5").model)
    rows = [Row(models("t5").encode_text(TEXT), (0, k, 0)) for k in range(10)]
    whole = decoder.decode(rows, 20, Sampling(top_k=20))
    decode_batch, sizes = decoder._decode_batch, []

    def small_memory(batch, *args):
        sizes.append(len(batch))
        if len(batch) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode_batch(batch, *args)

    monkeypatch.setattr(decoder, "_decode_batch", small_memory)
    assert torch.equal(decoder.decode(rows, 20, Sampling(top_k=20)), whole)
    assert sizes[0] == 10
    assert max(sizes[-2:]) <= limit
    assert "out of memory with 10 variations" in caplog.text


def test_running_out_of_memory_with_one_row_is_an_error(models, monkeypatch):
    decoder = Decoder(models("t5").model)

    def no_memory(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(decoder, "_decode_batch", no_memory)
    with pytest.raises(DecodeError, match="out of memory with a single variation"):
        decoder.decode([Row(models("t5").encode_text(TEXT), (0, 0, 0))] * 4, 20, Sampling(top_k=20))


def test_the_batch_is_planned_from_the_free_memory(models, monkeypatch):
    decoder = models("t5").decoder
    rows = [Row(models("t5").encode_text(TEXT), (0, k, 0)) for k in range(9)]
    whole = decoder.decode(rows, 20, Sampling(top_k=20))
    decoder = Decoder(models("t5").model)
    monkeypatch.setattr("looper.decoder.free_bytes", lambda device: 2_000_000)
    assert 1 <= decoder.rows_that_fit(20, True) < 9
    assert torch.equal(decoder.decode(rows, 20, Sampling(top_k=20)), whole)


def test_tiles_of_rows_give_the_same_as_one_product():
    torch.manual_seed(0)
    weight, x = torch.randn(40, 30), torch.randn(21, 30)
    tiled = dense.Dense(weight, torch.randn(40), tile=8)
    for rows in (1, 7, 8, 9, 21):
        assert torch.equal(tiled(x[:rows]), tiled(x)[:rows])
    torch.testing.assert_close(tiled(x), x @ weight.T + tiled.bias)


# --- progress, errors ----------------------------------------------------------------------------


class Cancelled(BaseException):
    """As Cog's: not an Exception."""


def test_progress_is_told_every_step(models):
    decoder, seen = Decoder(models("t5").model), []
    rows = [Row(models("t5").encode_text(TEXT), (0, k, 0)) for k in range(3)]
    rows.append(Row(models("t5").encode_text("jazz " * 60), (0, 4, 0)))  # a batch of its own
    decoder.decode(rows, 30, Sampling(top_k=20), lambda done, total: seen.append((done, total)))
    assert len(seen) == 2 * 33
    assert seen[-1] == (33, 33)
    assert seen == sorted(seen)


def many_rows(models) -> list[Row]:
    text, other = models("t5").encode_text(TEXT), models("t5").encode_text("jazz " * 60)
    return [Row(text if k % 3 else other, (0, k, 0)) for k in range(13)]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_share_a_batch_with_the_same_result_and_progress_in_this_thread(models, workers):
    decoder, seen = Decoder(models("t5").model, workers=workers), []
    alone = Decoder(models("t5").model).decode(many_rows(models), 30, Sampling(top_k=20))

    def note(done, total):
        seen.append((done, total, threading.get_ident()))

    assert torch.equal(decoder.decode(many_rows(models), 30, Sampling(top_k=20), note), alone)
    assert seen == sorted(seen)
    assert seen[-1] == (33, 33, threading.get_ident())
    assert len({row[2] for row in seen}) == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_cancelling_in_flight_leaves_a_decoder_that_works(models, workers):
    decoder = Decoder(models("t5").model, workers=workers)
    before = decoder.decode(many_rows(models), 30, Sampling(top_k=20))

    def cancel(done, total):
        raise Cancelled

    threads = threading.active_count()
    with pytest.raises(Cancelled):
        decoder.decode(many_rows(models), 1000, Sampling(top_k=20), cancel)
    assert threading.active_count() == threads
    assert torch.equal(decoder.decode(many_rows(models), 30, Sampling(top_k=20)), before)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_in_one_piece_ends_the_whole(models, workers, monkeypatch):
    decoder = Decoder(models("t5").model, workers=workers)
    prefill = decoder._prefill

    def spoil(state, rows, *args):
        prefill(state, rows, *args)
        if any(row.key == (0, 7, 0) for row in rows):
            state.check.fill_(float("nan"))

    monkeypatch.setattr(decoder, "_prefill", spoil)
    with pytest.raises(DecodeError, match="stopped being finite"):
        decoder.decode(many_rows(models), 1000, Sampling(top_k=20))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_end_the_decoding_with_a_message(tmp_path, value):
    model = checkpoint.load(standin.weights(tmp_path / "mini", Shape(num_layers=1)), "cpu")
    model.lm.transformer.layers[0].linear2.weight[0, 0] = value
    generator = Generator(model)
    rows = [Row(generator.encode_text(TEXT), (0, 0, 0))]
    with pytest.raises(DecodeError, match=r"stopped being finite at step 1.*looper weights verify"):
        generator.decoder.decode(rows, 30, Sampling(top_k=20))
    model.lm.transformer.layers[0].linear2.weight[0, 0] = 0
    assert generator.decoder.decode(rows, 30, Sampling(top_k=20)).max() < 64  # nothing of it is left


@pytest.mark.parametrize(
    ("prompts", "frames", "message"),
    [
        ([], 10, "0 rows"),
        ([4, 5], 10, "one length"),
        ([0, 5], 10, "one length"),
        ([10, 10], 10, "leaves nothing to generate in 10 frames"),
        ([12], 10, "leaves nothing"),
    ],
)
def test_rows_that_cannot_be_decoded_are_refused(models, prompts, frames, message):
    generator = models("t5")
    text = generator.encode_text(TEXT)
    rows = [Row(text, (0, 0, 0), prompt_codes(generator, n) if n else None) for n in prompts]
    with pytest.raises(ValueError, match=message):
        generator.decoder.decode(rows, frames, Sampling(top_k=20))


def test_unsupported_models_are_named(models):
    lm = models("t5").model.lm
    lm.fuser.cross_attention_pos_emb = True
    try:
        with pytest.raises(ValueError, match="positions in cross-attention"):
            Transformer(lm)
    finally:
        lm.fuser.cross_attention_pos_emb = False


# --- ready for a CUDA graph ----------------------------------------------------------------------


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
    t, plan = generator.decoder.transformer, sampling.plan(64)
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

    monkeypatch.setattr("looper.step.draw", spoiled)
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
    monkeypatch.delenv(cudagraph.KILL_SWITCH, raising=False)
    if value is not None:
        monkeypatch.setenv(cudagraph.KILL_SWITCH, value)
    assert cudagraph.graphs_wanted(torch.device(device)) is wanted


def test_a_disabled_graph_is_the_plain_function():
    calls = []
    graphed = cudagraph.Graphed(lambda: calls.append(1), disable=True)
    for _ in range(3):
        graphed()
    assert len(calls) == 3


def test_states_are_kept_between_requests_of_one_shape_and_the_oldest_dropped(models):
    """What a captured graph reads must stay where it is; what is no longer asked for must go."""
    decoder = Decoder(models("t5").model)
    text = models("t5").encode_text(TEXT)

    def state_of(rows: int, **sampling) -> State:
        decoder.decode([Row(text, (0, 0, 0))] * rows, 20, Sampling(**{"top_k": 20} | sampling))
        return list(decoder._states.values())[-1][0]

    first = state_of(1)
    assert state_of(1, temperature=0.5, cfg_coef=2.0) is first
    others = [state_of(1, top_k=10), state_of(2)]
    assert state_of(1) is first
    assert state_of(3) not in others
    assert len(decoder._states) == 3
    assert state_of(1, top_k=10) is not others[0]


@pytest.mark.parametrize("sampling", [Sampling(top_k=20), Sampling(top_k=20, cfg_coef=1)], ids=str)
def test_rows_in_padded_blocks_as_on_cuda_come_out_the_same(models, monkeypatch, sampling):
    generator = models("t5")
    prompt = prompt_codes(generator, 6)
    rows = [Row(generator.encode_text(TEXT), (2, k, 0), prompt) for k in range(6)]
    whole = generator.decoder.decode(rows, 30, sampling)
    monkeypatch.setitem(looper.decoder.ROW_BLOCK, "cpu", 4)
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
