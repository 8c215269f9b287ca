"""What the model finds likely, against audiocraft's own probabilities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from audiocraft.modules.conditioners import ConditioningAttributes

from looper.generation.generator import Generator
from looper.generation.likelihood import log_likelihoods
from looper.generation.messages import Passage
from testkit.decoding import TEXT

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=["t5", "lut", "biases", "delays", "one codebook"])
def generator(request, models) -> Generator:
    return models(request.param)


def codes_of(generator: Generator, frames: int, seed: int = 3) -> np.ndarray:
    t = generator.engine.transformer
    return np.random.default_rng(seed).integers(0, t.card, (t.n_q, frames))


@torch.inference_mode()
def audiocrafts(generator: Generator, codes: np.ndarray, start: int) -> float:
    """Mean log-likelihood by audiocraft's own teacher-forced pass."""
    attributes = [ConditioningAttributes(text={"description": TEXT})]
    out = generator.model.lm.compute_predictions(
        torch.from_numpy(codes)[None], attributes, keep_only_valid_steps=False
    )
    assert out.mask.all(), "all tokens must have been foretold"
    chances = out.logits[0].log_softmax(dim=-1).gather(-1, torch.from_numpy(codes)[..., None])[..., 0]
    return float(chances[:, start:].mean())


@pytest.mark.parametrize(("frames", "start"), [(30, 0), (30, 12), (30, 29), (1, 0)])
def test_likelihoods_are_audiocrafts(generator, frames, start):
    codes = codes_of(generator, frames)
    text = generator.encode_text(TEXT)
    ours = log_likelihoods(generator.engine.transformer, [Passage(codes, start)], [text])
    assert float(ours[0]) == pytest.approx(audiocrafts(generator, codes, start), abs=1e-4)


def test_passages_of_different_lengths_share_a_pass(generator):
    text = generator.encode_text(TEXT)
    lengths = [(40, 10), (25, 0), (60, 59), (7, 3)]
    passages = [
        Passage(codes_of(generator, frames, seed), start) for seed, (frames, start) in enumerate(lengths)
    ]
    together = log_likelihoods(generator.engine.transformer, passages, [text] * len(passages))
    for passage, ours in zip(passages, together, strict=True):
        assert float(ours) == pytest.approx(audiocrafts(generator, passage.codes, passage.start), abs=1e-4)


@pytest.mark.parametrize("start", [-1, 20, 21])
def test_a_passage_with_nothing_to_judge_is_refused(generator, start):
    with pytest.raises(ValueError, match="nothing to judge"):
        Passage(codes_of(generator, 20), start)


def test_codes_of_another_model_are_refused(generator):
    wrong = np.zeros((generator.engine.transformer.n_q + 1, 5), int)
    with pytest.raises(ValueError, match="codes must be"):
        log_likelihoods(generator.engine.transformer, [Passage(wrong)], [None])


def test_memory_that_runs_out_halves_the_pass(generator, monkeypatch):
    transformer = generator.engine.transformer
    texts = [generator.encode_text(TEXT)] * 5
    passages = [Passage(codes_of(generator, 9, seed)) for seed in range(5)]
    whole, run, sizes = log_likelihoods(transformer, passages, texts), type(transformer).run, []

    def small(self, x, *args):
        sizes.append(len(x))
        if len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(self, x, *args)

    monkeypatch.setattr(type(transformer), "run", small)
    assert np.allclose(log_likelihoods(transformer, passages, texts), whole, atol=1e-5)
    assert max(sizes[1:]) <= 3 and sizes[-1] <= 2


def test_a_single_passage_too_many_for_the_memory_says_so(generator, monkeypatch):
    def full(self, x, *args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(type(generator.engine.transformer), "run", full)
    with pytest.raises(torch.OutOfMemoryError):
        log_likelihoods(generator.engine.transformer, [Passage(codes_of(generator, 9))], [None])
