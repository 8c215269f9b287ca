"""Text to the vectors that the transformer attends to."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from audiocraft.models.lm import LMModel

logger = logging.getLogger(__name__)

MAX_TEXT_TOKENS = 512  # what T5 was trained on


@torch.inference_mode()
def encode_text(lm: LMModel, prompt: str, tell: bool = True) -> Tensor:
    """Encode one text by itself, so that no other text's padding can leak into it, [tokens, dim].

    Where it is too long and has to be cut, `tell` says so in the log.
    """
    from audiocraft.modules.conditioners import ConditioningAttributes

    provider = lm.condition_provider
    (name,) = provider.conditioners
    tokenized = provider.tokenize([ConditioningAttributes(text={name: prompt})])
    tokenized[name] = _cut_tokens(tokenized[name], tell)
    embedding, mask = provider(tokenized)[name]
    return embedding[0, : max(1, int(mask.sum()))]


def _cut_tokens(tokenized: Any, tell: bool) -> Any:
    """Cut T5 input to `MAX_TEXT_TOKENS`, keeping the end mark: the tokenizer itself never does."""
    if not hasattr(tokenized, "keys") or tokenized["input_ids"].shape[1] <= MAX_TEXT_TOKENS:
        return tokenized
    if tell:
        logger.warning(
            "prompt of %d tokens cut to %d, all that the text encoder takes",
            tokenized["input_ids"].shape[1],
            MAX_TEXT_TOKENS,
        )
    for name in ("input_ids", "attention_mask"):
        tensor = tokenized[name]
        tokenized[name] = torch.cat([tensor[:, : MAX_TEXT_TOKENS - 1], tensor[:, -1:]], dim=1)
    return tokenized
