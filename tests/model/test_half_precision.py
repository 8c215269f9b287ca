"""Half precision as on a GPU, its rounding done by the CPU: logits teacher-forced, against single precision's.

What a CPU cannot show is a GPU's own order of summation; `python -m bench.gpu` looks at that.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from looper.model.transformer import Transformer
from testkit import stand_ins
from testkit.checkpoints import Shape
from testkit.decoding import TEXT, our_logits, their_logits

GUIDANCE = 3.0
SIGMAS = 4  # of our error, beyond which the likeliest token must be single precision's
COLUMNS = 16
SHAPES = {
    "plain": Shape(dim=128, num_heads=4, num_layers=4, card=256),
    "biases": Shape(dim=128, num_heads=4, num_layers=2, card=256, bias=True, layer_scale=0.6),
}


@dataclass(frozen=True)
class Logits:
    """Guided logits [n_q, columns, card] of the same weights, rounded to half precision, and tokens."""

    single: Tensor
    audiocraft: Tensor
    ours: Tensor

    def error(self, found: Tensor) -> float:
        return float((found - self.single).square().mean().sqrt())


def guided(told_and_null: Tensor) -> Tensor:
    told, null = told_and_null.float()
    return null + (told - null) * GUIDANCE


@pytest.fixture(scope="module", params=[*SHAPES, "tiny"])
def logits(request, tmp_path_factory) -> Iterator[Logits]:
    from looper.generation.generator import Generator

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    name = request.param
    folder = (
        name if name == "tiny" else stand_ins.weights(tmp_path_factory.mktemp("m") / "mini", SHAPES[name])
    )
    generator = Generator.load(folder, "cpu")
    lm = copy.deepcopy(generator.model.lm).half()
    tokens = torch.randint(lm.card, (lm.n_q, COLUMNS), generator=torch.Generator().manual_seed(3))
    tokens[:, 0] = lm.special_token_id
    text = generator.encode_text(TEXT)
    single = their_logits(copy.deepcopy(lm).float(), tokens, TEXT)
    with torch.autocast("cpu", torch.float16):  # as audiocraft does on a GPU, with weights in half precision
        theirs = their_logits(lm, tokens, TEXT)
    ours = our_logits(Transformer(lm), text.half(), tokens)
    yield Logits(guided(single), guided(theirs), guided(ours))
    torch.set_num_threads(before)


@pytest.mark.slow
def test_ours_is_as_near_to_single_precision_as_audiocrafts(logits):
    assert 0 < logits.error(logits.ours) <= logits.error(logits.audiocraft)


def test_the_likeliest_token_is_single_precisions_wherever_that_is_sure(logits):
    ranked = logits.single.topk(2, dim=-1).values
    sure = ranked[..., 0] - ranked[..., 1] > SIGMAS * logits.error(logits.ours)
    assert sure.float().mean() > 0.5
    assert torch.equal(logits.ours.argmax(-1)[sure], logits.single.argmax(-1)[sure])
