"""How tokens are drawn, worked out by hand: which one each number draws, and what a row's numbers are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from looper.generation.messages import NoiseKey
from looper.generation.sampling import (
    SamplingRule,
    SamplingValues,
    any_rule,
    check_sampling,
    draw,
    draw_apart,
    row_uniforms,
    running_sum,
    sampling_kind,
    sampling_rule,
)
from looper.request import Sampling

pytestmark = pytest.mark.usefixtures("one_thread")


def our_draw(logits: torch.Tensor, uniforms: torch.Tensor, sampling: Sampling, rule=None) -> torch.Tensor:
    """Draw for [rows, card] and [rows]: as many rows of one codebook."""
    card = logits.shape[-1]
    values = SamplingValues.room(len(logits), logits.device)
    values.set(list(range(len(logits))), sampling, card)
    rule = rule or sampling_rule([sampling], card)
    return draw(logits[:, None], uniforms[:, None], values, rule)[:, 0]


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
    assert sampling_kind(Sampling(top_k=1, top_p=0.9)) == "top_p"


MIXED = [
    Sampling(top_k=250),
    Sampling(top_k=5, temperature=0.7),
    Sampling(top_k=0),
    Sampling(top_p=0.9),
    Sampling(top_p=0.4, temperature=1.5),
    Sampling(temperature=0),
]


@pytest.mark.parametrize("some", [MIXED, MIXED[:2], MIXED[:3], MIXED[3:], MIXED[5:], MIXED[:1] * 4], ids=len)
def test_rows_of_other_sampling_values_draw_what_they_draw_alone(some):
    random = torch.Generator().manual_seed(3)
    logits = 3 * torch.randn(len(some), 4, 300, generator=random)
    logits[:, :, 7] = logits[:, :, 9]  # as likely as each other
    uniforms = torch.rand(len(some), 4, generator=random)
    values = SamplingValues.room(len(some), logits.device)
    for row, sampling in enumerate(some):
        values.set([row], sampling, 300)
    alone = torch.cat(
        [
            draw(logits[row : row + 1], uniforms[row : row + 1], values.at(torch.tensor([row])), rule)
            for row, rule in enumerate(sampling_rule([sampling], 300) for sampling in some)
        ]
    )
    for rule in (sampling_rule(some, 300), any_rule(300)):
        assert torch.equal(draw(logits, uniforms, values, rule), alone)
    assert torch.equal(draw_apart(logits, uniforms, values), alone)


@pytest.mark.parametrize(
    ("some", "mixed"),
    [
        (MIXED, True),
        (MIXED[:2], True),  # of unlike top_k
        (MIXED[3:5], False),
        (MIXED[5:], False),
        ([MIXED[0], MIXED[5]], True),
        (MIXED[:1] * 4, False),
    ],
)
def test_rows_are_drawn_apart_where_they_draw_in_different_ways(some, mixed):
    assert sampling_rule(some, 300).mixed == mixed


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


def drawn_by_hand(logits: list[float], uniform: float, sampling: Sampling) -> int:
    """The token that one number draws, worked out for a single row in float64."""
    order = sorted(range(len(logits)), key=lambda token: -logits[token])
    if sampling.temperature < 0.001:
        return order[0]
    weights = np.exp((np.array(logits) - max(logits)) / sampling.temperature)
    weights /= weights.sum()
    if sampling.top_p > 0:
        kept = [token for rank, token in enumerate(order) if weights[order[:rank]].sum() <= sampling.top_p]
    else:
        last = logits[order[(sampling.top_k or len(logits)) - 1]]
        kept = [token for token in range(len(logits)) if logits[token] >= last]
    reached = uniform * weights[kept].sum()
    return next(token for rank, token in enumerate(kept) if weights[kept[: rank + 1]].sum() > reached)


EXACT = [
    Sampling(top_k=1),
    Sampling(top_k=2),
    Sampling(top_k=3),  # the third is as likely as the fourth
    Sampling(top_k=6, temperature=0.7),
    Sampling(top_k=0, temperature=1.6),
    Sampling(top_p=0.3),
    Sampling(top_p=0.75, temperature=1.3),
    Sampling(top_p=1.0),
    Sampling(temperature=0),
    Sampling(temperature=0.0009),
    Sampling(top_k=0, temperature=0.0012),
]


@pytest.mark.parametrize("widest", [False, True], ids=["its own rule", "the rule of all"])
@pytest.mark.parametrize("sampling", EXACT, ids=str)
def test_each_number_draws_the_token_that_it_falls_on(sampling, widest):
    logits = (
        [0.2, 1.5, -0.7, 0.9, 0.2, -2.0] if sampling.temperature > 0.1 else [1.0, 1.001, 0.3, 0.2, 0.1, 0.0]
    )
    uniforms = (np.arange(97) + 0.37) / 97
    rule = any_rule(6) if widest else None
    found = our_draw(torch.tensor([logits] * 97), torch.tensor(uniforms, dtype=torch.float32), sampling, rule)
    assert found.tolist() == [drawn_by_hand(logits, uniform, sampling) for uniform in uniforms]


@pytest.mark.parametrize("rule", [None, any_rule(4)], ids=["its own rule", "the rule of all"])
def test_of_two_likeliest_tokens_a_temperature_of_zero_takes_the_first(rule):
    logits = torch.tensor([[0.0, 2.0, 1.0, 2.0]] * 3)
    found = our_draw(logits, torch.tensor([0.0, 0.6, 0.99]), Sampling(temperature=0), rule)
    assert found.tolist() == [1, 1, 1]


def test_a_token_is_kept_that_begins_just_where_top_p_ends_as_audiocraft_keeps_it():
    """Four equal tokens: those before the third make up just one half."""
    uniforms = torch.tensor([0.1, 0.5, 0.9])
    assert our_draw(torch.zeros(3, 4), uniforms, Sampling(top_p=0.5)).tolist() == [0, 1, 2]


def test_a_number_that_falls_between_two_tokens_draws_the_second():
    uniforms = torch.tensor([0.0, 0.25, 0.5, 0.75])
    assert our_draw(torch.zeros(4, 4), uniforms, Sampling(top_k=0)).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("samplings", "rule"),
    [
        ([], SamplingRule(0, False, False, False)),
        ([Sampling(temperature=0)], SamplingRule(0, False, False, True)),
        ([Sampling(temperature=0.001)], SamplingRule(250, True, False, False)),
        ([Sampling(top_k=5), Sampling(top_k=5)], SamplingRule(5, True, False, False)),
        ([Sampling(top_k=5), Sampling(top_k=7)], SamplingRule(7, False, False, False)),
        ([Sampling(top_k=0), Sampling(top_k=7)], SamplingRule(300, False, False, False)),
        ([Sampling(top_k=5, top_p=1.0), Sampling(top_k=4)], SamplingRule(4, True, True, False)),
        ([Sampling(top_p=0.1), Sampling(temperature=0)], SamplingRule(0, False, True, True)),
    ],
)
def test_a_rule_is_as_narrow_as_its_rows_allow(samplings, rule):
    assert sampling_rule(samplings, 300) == rule


@pytest.mark.parametrize(
    "sampling",
    [Sampling(top_k=64), Sampling(top_k=65, top_p=0.5), Sampling(top_k=65, temperature=0), Sampling(top_k=0)],
    ids=str,
)
def test_a_top_k_counts_only_where_it_is_drawn_by(sampling):
    check_sampling(sampling, 64)
    with pytest.raises(ValueError, match="between 0 and 64 for this model, got 65"):
        check_sampling(Sampling(top_k=65), 64)


def test_a_rows_numbers_are_those_of_its_own_seed_wherever_it_stands():
    keys = [NoiseKey(42, 1, 1), NoiseKey(5 * 2**32 + 42, 3, 1), NoiseKey(2**32 - 1, 0, 2)]
    found = row_uniforms(keys, 7, 4)
    assert found.shape == (3, 7, 4) and found.dtype == np.float32
    for row, words in zip(found, ([42, 1, 1, 0], [42, 3, 1, 5], [2**32 - 1, 0, 2, 0]), strict=True):
        wanted = np.random.default_rng(np.random.SeedSequence(words)).random((7, 4), dtype=np.float32)
        assert np.array_equal(row, wanted)


def test_values_are_set_copied_and_taken_row_by_row():
    values = SamplingValues.room(4, torch.device("cpu"))
    assert values.greedy.tolist() == [True] * 4 and values.nucleus.tolist() == [False] * 4
    values.set([0, 2], Sampling(top_k=5, temperature=0.7, cfg_coef=2.5), 64)
    values.set([1], Sampling(top_p=0.4), 64)
    values.copy_row(2, 3)
    assert values.top_k[[0, 2, 3]].tolist() == [5, 5, 5] and values.nucleus.tolist() == [
        False,
        True,
        False,
        False,
    ]
    assert values.temperature.tolist() == pytest.approx([0.7, 1, 0.7, 0.7])
    assert values.guidance.tolist() == pytest.approx([2.5, 3, 2.5, 2.5])
    assert values.top_p.tolist() == pytest.approx([0, 0.4, 0, 0])
    assert not values.greedy.any()
    assert values.of(2).top_p.tolist() == values.top_p[:2].tolist()
    assert values.at(torch.tensor([3, 1])).top_p.tolist() == values.top_p[[3, 1]].tolist()


class OnCuda(torch.Tensor):
    """A tensor that says that it is on a GPU, and notes the shapes that are summed."""

    summed: tuple[int, ...] = ()

    @property
    def device(self):
        return torch.device("cuda")

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is torch.Tensor.cumsum:
            OnCuda.summed = tuple(args[0].shape)
        return super().__torch_function__(func, types, args, kwargs or {})


@pytest.mark.parametrize(
    ("shape", "scanned"), [((3, 5), 256), ((64, 4, 5), 256), ((65, 4, 5), 512), ((2, 256, 5), 512)]
)
def test_on_cuda_sums_run_over_as_many_rows_whatever_the_batch(shape, scanned):
    """32 variations of 8 codebooks, or that many again: CUDA's scan adds in another order for other numbers."""
    weights = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    found = running_sum(weights.as_subclass(OnCuda))
    assert OnCuda.summed == (scanned, 5)
    assert torch.equal(found.as_subclass(torch.Tensor), weights.cumsum(-1))
