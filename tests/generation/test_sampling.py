"""How tokens are drawn, against audiocraft's own sampler."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from audiocraft.utils import utils as audiocraft_utils
from scipy import stats

from looper.generation.batch import Row
from looper.request import Sampling
from testkit.decoding import TEXT
from tests.generation.test_exact_draws import our_draw

pytestmark = pytest.mark.usefixtures("one_thread")

DRAWS = 16_000


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
    card, draws = 300, DRAWS
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
    """Tokens that may be drawn and yet be missing among so many draws; none outside top_k or top_p."""
    probabilities = torch.softmax(logits / sampling.temperature, dim=-1)
    order = probabilities.argsort(descending=True)
    before = probabilities[order].cumsum(0) - probabilities[order]
    allowed = order[before <= sampling.top_p] if sampling.top_p else order[: sampling.top_k or None]
    return {int(token) for token in allowed if probabilities[token] < 1e-3}


def test_a_wrong_distribution_would_be_noticed():
    torch.manual_seed(1)
    logits = (2 * torch.randn(300)).expand(DRAWS, 300)
    theirs = audiocraft_draw(logits.clone(), Sampling(top_k=0))[:, 0].numpy()
    warmer = audiocraft_draw(logits.clone(), Sampling(top_k=0, temperature=1.1))[:, 0].numpy()
    assert chi_square_p(theirs, warmer, 300) < 1e-3


def test_a_top_k_beyond_the_codebook_is_refused_before_decoding(models):
    with pytest.raises(ValueError, match="top_k must be between 0 and 64 for this model, got 65"):
        models("t5").engine.decode([Row(models("t5").encode_text(TEXT), (0, 0, 0))], 5, Sampling(top_k=65))
