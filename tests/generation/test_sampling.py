"""How tokens are drawn, against audiocraft's own sampler."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from audiocraft.utils import utils as audiocraft_utils
from scipy import stats

from looper.generation.batch import Row
from looper.generation.sampling import SamplingValues, any_rule, draw, sampling_kind, sampling_rule
from looper.request import Sampling
from testkit.decoding import TEXT

pytestmark = pytest.mark.usefixtures("one_thread")


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


def our_draw(logits: torch.Tensor, uniforms: torch.Tensor, sampling: Sampling, rule=None) -> torch.Tensor:
    """Draw for [rows, card] and [rows]: as many rows of one codebook."""
    card = logits.shape[-1]
    values = SamplingValues.room(len(logits), logits.device)
    values.set(list(range(len(logits))), sampling, card)
    rule = rule or sampling_rule([sampling], card)
    return draw(logits[:, None], uniforms[:, None], values, rule)[:, 0]


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
        models("t5").engine.decode([Row(models("t5").encode_text(TEXT), (0, 0, 0))], 5, Sampling(top_k=65))
