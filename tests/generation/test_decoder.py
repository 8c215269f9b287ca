"""The decode loop's numbers against audiocraft's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from looper.generation.batch import Row
from looper.model.beat_clock import FEATURES, clock_features
from looper.request import Sampling
from testkit.decoding import SHAPES, TEXT, described, our_logits, prompt_codes, their_logits

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("prompt_frames", "cfg_coef"), [(0, 3.0), (0, 1.0), (1, 1.0), (21, 3.0)])
def test_greedy_codes_are_audiocrafts(models, shape, prompt_frames, cfg_coef):
    generator = models(shape)
    prompt = prompt_codes(generator, prompt_frames) if prompt_frames else None
    theirs = generator.model.lm.generate(
        prompt=None if prompt is None else prompt[None],
        conditions=described(TEXT),
        max_gen_len=52,
        use_sampling=False,
        cfg_coef=cfg_coef,
    )
    row = Row(generator.encode_text(TEXT), (0, 0, 0), prompt)
    ours = generator.engine.decode([row], 52, Sampling(temperature=0, cfg_coef=cfg_coef))
    assert torch.equal(ours, theirs)
    assert len(theirs.unique()) > 3  # a stuck model would agree with anything


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_are_audiocrafts(models, shape):
    generator = models(shape)
    tokens = prompt_codes(generator, 40)
    tokens[:, 0] = generator.engine.transformer.special
    ours = our_logits(generator.engine.transformer, generator.encode_text(TEXT), tokens)
    theirs = their_logits(generator.model.lm, tokens, TEXT)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    assert theirs.std() > 0.1


def test_logits_of_the_shipped_model_are_audiocrafts_with_the_clock_added(shipped):
    clock = torch.from_numpy(clock_features(60, 25))
    tokens = prompt_codes(shipped, 50)
    tokens[:, 0] = shipped.engine.transformer.special
    ours = our_logits(shipped.engine.transformer, shipped.encode_text(TEXT), tokens, clock)
    added = clock[:50] @ shipped.model.clock.weight.T
    hook = shipped.model.lm.transformer.register_forward_pre_hook(
        lambda _, args: (args[0] + added, *args[1:])
    )
    try:
        theirs = their_logits(shipped.model.lm, tokens, TEXT)
    finally:
        hook.remove()
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("prompt_frames", [0, 13])
def test_greedy_codes_of_the_shipped_model_are_audiocrafts(shipped, prompt_frames):
    clock = clock_features(90, 25)
    prompt = prompt_codes(shipped, prompt_frames) if prompt_frames else None
    fed = 0

    def add_clock(_, args, kwargs):
        nonlocal fed
        columns = torch.from_numpy(clock)[fed : fed + args[0].shape[1]]
        fed += args[0].shape[1]
        return (args[0] + columns @ shipped.model.clock.weight.T, *args[1:]), kwargs

    hook = shipped.model.lm.transformer.register_forward_pre_hook(add_clock, with_kwargs=True)
    try:
        theirs = shipped.model.lm.generate(
            prompt=None if prompt is None else prompt[None],
            conditions=described(TEXT),
            max_gen_len=52,
            use_sampling=False,
            cfg_coef=3.0,
        )
    finally:
        hook.remove()
    row = Row(shipped.encode_text(TEXT), (0, 0, 0), prompt, torch.from_numpy(clock))
    assert torch.equal(shipped.engine.decode([row], 52, Sampling(temperature=0)), theirs)


def test_the_clock_moves_the_codes_and_is_held_beyond_its_end(shipped):
    assert shipped.model.clock.weight.shape[1] == FEATURES
    text = shipped.encode_text(TEXT)

    def codes(features):
        clock = None if features is None else torch.from_numpy(features)
        return shipped.engine.decode([Row(text, (0, 0, 0), None, clock)], 40, Sampling(temperature=0))

    features = clock_features(43, 25)
    held = np.concatenate([features[:30], features[29:30].repeat(13, axis=0)])
    assert torch.equal(codes(features[:30]), codes(held))
    assert not torch.equal(codes(features), codes(clock_features(43, 32)))
    assert not torch.equal(codes(features), codes(None))
