"""Stand-in models by name, and what the tests of the decode loop share."""

from __future__ import annotations

import torch
from audiocraft.modules.conditioners import ConditioningAttributes

from looper.generation.generator import Generator
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
