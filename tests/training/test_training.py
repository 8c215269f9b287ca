import numpy as np
import pytest
import torch

from looper.checkpoints.store import find
from training.tiny.evaluate import measure_bpm, near
from training.tiny.grooves import STYLES, draw_prompt, draw_score
from training.tiny.lm import delayed, hidden
from training.tiny.synth import FRAMES_PER_BEAT, HOP_LENGTH, SAMPLE_RATE, render, slot_frame


@pytest.mark.parametrize("seed", range(6))
def test_a_synthesised_loop_repeats_its_two_bars_sample_for_sample(seed):
    score = draw_score(np.random.default_rng(seed))
    phrase = 8 * score.frames_per_beat
    audio = render(score, 2 * phrase)
    assert len(audio) == 2 * phrase * HOP_LENGTH and np.abs(audio).max() <= 1
    tail = (
        4 * HOP_LENGTH * score.frames_per_beat
    )  # the first bar lacks what rings over the bar line before it
    np.testing.assert_allclose(
        audio[tail : phrase * HOP_LENGTH], audio[phrase * HOP_LENGTH + tail :], atol=1e-6
    )


def test_hits_start_on_the_codecs_frames():
    score = draw_score(np.random.default_rng(3))
    audio = render(score, 200)
    silent_before = [f for f in range(1, 200) if not audio[f * HOP_LENGTH - 40 : f * HOP_LENGTH].any()]
    starts = [f for f in silent_before if audio[f * HOP_LENGTH : f * HOP_LENGTH + 40].any()]
    slots = {slot_frame(s, score.frames_per_beat) for s in range(200)}
    assert set(starts) <= slots


def test_every_style_and_tempo_is_drawn_and_prompts_name_them():
    rng = np.random.default_rng(0)
    scores = [draw_score(rng) for _ in range(600)]
    assert {s.style for s in scores} == set(STYLES)
    assert {s.frames_per_beat for s in scores} == set(FRAMES_PER_BEAT)
    assert all(draw_prompt(s, rng).endswith(" bpm") for s in scores)


def test_the_same_generator_draws_the_same_loop():
    one, two = (draw_score(np.random.default_rng(9)) for _ in range(2))
    assert one == two


@pytest.mark.slow
@pytest.mark.parametrize("bpm", [75, 93.75, 120, 142.857])
def test_the_tempo_measure_finds_a_rendered_tempo_and_no_other(bpm):
    period = round(3000 / bpm)
    for seed in range(4):
        score = draw_score(np.random.default_rng(seed))
        audio = render(type(score)(**{**score.__dict__, "frames_per_beat": period}), 400)
        measured = measure_bpm(audio, SAMPLE_RATE)
        assert near(measured, bpm, 0.01), (score.style, measured)
        assert not near(measured, bpm * 1.09, 0.03)


def test_delayed_columns_are_audiocrafts_pattern():
    from audiocraft.modules.codebooks_patterns import DelayedPatternProvider

    codes = torch.randint(0, 9, (2, 4, 11))
    pattern = DelayedPatternProvider(4, delays=[0, 1, 2, 3]).get_pattern(11)
    expected, _, _ = pattern.build_pattern_sequence(codes, 99, keep_only_valid_steps=False)
    torch.testing.assert_close(delayed(codes, 99), expected)


@pytest.mark.slow
@torch.inference_mode()
def test_the_training_forward_is_audiocrafts():
    from audiocraft.modules.conditioners import ConditioningAttributes

    from looper.checkpoints.load import load

    model = load(find("tiny"), "cpu")
    lm = model.lm
    sequence = delayed(torch.randint(0, lm.card, (2, 4, 30)), lm.card)
    words = [ConditioningAttributes(text={"description": "techno, 120 bpm"})] * 2
    conditions = lm.condition_provider(lm.condition_provider.tokenize(words))
    expected = lm(sequence, [], conditions)
    embeds, mask = conditions["description"]
    out = hidden(lm, sum(lm.emb[k](sequence[:, k]) for k in range(4)), embeds, mask.bool()[:, None, None])
    logits = torch.stack([linear(out) for linear in lm.linears], 1)
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
