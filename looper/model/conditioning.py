"""Text and melody to the vectors that the transformer attends to, or that stand in front of the music."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from audiocraft.models.lm import LMModel

    from looper.model.musicgen import Model

logger = logging.getLogger(__name__)

MAX_TEXT_TOKENS = 512  # what T5 was trained on
USUAL_TOKENS = 32


@dataclass(frozen=True, eq=False)
class Condition:
    """What a row is told of the music that is wanted.

    Attributes
    ----------
    text : torch.Tensor or None
        Encoded text [tokens, dim] for cross-attention.
    prefix : torch.Tensor or None
        What stands in front of the music, [2, tokens, dim]: with the condition, and without it.
    """

    text: Tensor | None
    prefix: Tensor | None = None


@dataclass(frozen=True, eq=False)
class EncodedText:
    """What the text encoder makes of a text.

    Attributes
    ----------
    vectors : torch.Tensor
        [tokens, dim].
    cut_from : int or None
        Tokens of a text that was too long, before it was cut.
    """

    vectors: Tensor
    cut_from: int | None = None

    def tell(self) -> None:
        """Say in the log that the text had to be cut, where it was."""
        if self.cut_from is not None:
            logger.warning(
                "prompt of %d tokens cut to %d, all that the text encoder takes",
                self.cut_from,
                MAX_TEXT_TOKENS,
            )


@torch.inference_mode()
def condition(model: Model, text: Tensor, melody: Tensor | None) -> Condition:
    """Put an encoded text [tokens, dim] and an encoded melody [length, dim] where the model wants them.

    As audiocraft does: the melody before the text, and for the half without a condition zeros in the text's place
    and silence in the melody's.
    """
    front = list(model.lm.fuser.fuse2cond["prepend"])
    if not front:
        return Condition(text)
    (name,) = model.lm.condition_provider.conditioners
    told = [text] if name in front else []
    untold = [torch.zeros_like(part) for part in told]
    if model.melody is not None:
        silence = model.melody.encode(None)
        told.insert(0, silence if melody is None else melody)
        untold.insert(0, silence)
    prefix = torch.stack([torch.cat(told), torch.cat(untold)])
    return Condition(None if name in front else text, prefix)


def usual_prefix(model: Model) -> int:
    """Tokens that stand in front of the music where a text is of a usual length."""
    front = list(model.lm.fuser.fuse2cond["prepend"])
    text = USUAL_TOKENS if any(name in front for name in model.lm.condition_provider.conditioners) else 0
    return text + (0 if model.melody is None else model.melody.length)


@torch.inference_mode()
def encode_text(lm: LMModel, prompt: str) -> EncodedText:
    """Encode one text by itself, so that no other text's padding can leak into it; where it is too long it is cut."""
    from audiocraft.modules.conditioners import ConditioningAttributes

    provider = lm.condition_provider
    (name,) = provider.conditioners
    tokenized = provider.tokenize([ConditioningAttributes(text={name: prompt})])
    cut_from = _cut_tokens(tokenized[name])
    embedding, mask = provider(tokenized)[name]
    return EncodedText(embedding[0, : max(1, int(mask.sum()))], cut_from)


def _cut_tokens(tokenized: Any) -> int | None:
    """Cut T5 input to `MAX_TEXT_TOKENS`, keeping the end mark: the tokenizer itself never does; return from how many."""
    if not hasattr(tokenized, "keys") or (count := tokenized["input_ids"].shape[1]) <= MAX_TEXT_TOKENS:
        return None
    for name in ("input_ids", "attention_mask"):
        tensor = tokenized[name]
        tokenized[name] = torch.cat([tensor[:, : MAX_TEXT_TOKENS - 1], tensor[:, -1:]], dim=1)
    return int(count)
