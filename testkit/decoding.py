"""Stand-in models by name, and what the tests of the decode loop share."""

from __future__ import annotations

import torch
from audiocraft.modules.conditioners import ClassifierFreeGuidanceDropout, ConditioningAttributes

from looper.generation.batch import text_length
from looper.generation.generator import Generator
from looper.model.kv_cache import windows
from looper.model.transformer import Transformer
from testkit.checkpoints import Shape

TEXT = "deep house warm chords 120"
SHAPES = {
    "t5": Shape(),
    "lut": Shape(dim=48, num_heads=6, num_layers=2, n_q=3, text="lut"),
    "biases": Shape(bias=True, layer_scale=0.6, memory_efficient=False, num_layers=2),
    "custom": Shape(
        custom=True, memory_efficient=False, qk_layer_norm=True, bias=True, num_heads=2, num_layers=2
    ),
    "delays": Shape(n_q=4, delays=(0, 2, 3, 5), num_layers=1),
    "stereo": Shape(stereo=True),
    "one codebook": Shape(n_q=1, num_layers=1, dim=64, card=100),
    # wide enough for the packed weights of oneDNN
    "wide": Shape(dim=256, num_heads=8, num_layers=1, card=128),
}


def described(*texts: str) -> list[ConditioningAttributes]:
    return [ConditioningAttributes(text={"description": text}) for text in texts]


def prompt_codes(generator: Generator, frames: int) -> torch.Tensor:
    t = generator.engine.transformer
    return torch.randint(0, t.card, (t.n_q, frames), generator=torch.Generator().manual_seed(3))


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
        mask = transformer.mask(torch.arange(columns) <= i)[None]
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
