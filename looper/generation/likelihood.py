"""How likely the model finds music that is there: codes in, log-likelihoods out, without decoding anything.

One pass over whole passages ("teacher forcing"): every token's probability given all that stands before
it in the delay pattern, for the conditional half alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from looper.generation.batch import round_up, sharing, split
from looper.model.kv_cache import windows
from looper.model.transformer import Transformer
from looper.runtime.memory import out_of_memory

MOST_AT_ONCE = 64  # passages in one pass


@dataclass(frozen=True)
class Passage:
    """Codes to judge, of which only the end counts.

    Attributes
    ----------
    text : torch.Tensor or None
        Encoded text [tokens, dim]; passages that share the object share the work on it.
    codes : torch.Tensor
        [n_q, frames].
    start : int
        First frame that counts; those before it are what the model has heard.
    clock : torch.Tensor or None
        Beat clock features [columns, C]; the last one is repeated where there are too few.
    """

    text: Tensor | None
    codes: Tensor
    start: int = 0
    clock: Tensor | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.codes.shape[1]:
            raise ValueError(
                f"a passage of {self.codes.shape[1]} frames has nothing to judge from frame {self.start} on"
            )


@torch.inference_mode()
def log_likelihoods(transformer: Transformer, passages: Sequence[Passage]) -> Tensor:
    """Mean log-likelihood per token of the frames from `start` on, in nats, float32 [passages] on the CPU.

    Parameters
    ----------
    transformer : Transformer
    passages : sequence of Passage
        Of any lengths; up to 64 go through the model together.

    Raises
    ------
    ValueError
        If a passage has another number of codebooks than the model, or none counts.
    """
    for passage in passages:
        if passage.codes.shape[0] != transformer.n_q:
            raise ValueError(
                f"codes must be [{transformer.n_q}, frames] for this model, got {list(passage.codes.shape)}"
            )
    found: dict[int, float] = {}
    queue = split(list(range(len(passages))), MOST_AT_ONCE)
    while queue:
        batch = queue.pop(0)
        try:
            means = _means(transformer, [passages[i] for i in batch])
        except RuntimeError as error:
            if len(batch) == 1 or not out_of_memory(error):
                raise
            queue[:0] = split(batch, (len(batch) + 1) // 2)
            continue
        found.update(zip(batch, means.tolist(), strict=True))
    return torch.tensor([found[i] for i in range(len(passages))])


def _means(transformer: Transformer, passages: list[Passage]) -> Tensor:
    t, rows = transformer, len(passages)
    frames = max(passage.codes.shape[1] for passage in passages)
    sequence = torch.cat([_sequence(t, passage, frames) for passage in passages]).to(t.device)
    hidden = t.out_norm(_hidden(t, passages, sequence[:, :, :-1])).view(rows, -1, t.dim)
    means = []
    for passage, tokens, states in zip(passages, sequence, hidden, strict=True):
        # column c foretells column c + 1, where codebook q of frame c - delay_q stands
        first, last = passage.start, passage.codes.shape[1] + max(t.delays)
        chances = t.logits(states[first:last]).log_softmax(dim=-1)
        found = [
            chances[delay : delay + last - max(t.delays) - first, q].gather(
                1, tokens[q, 1 + first + delay : 1 + last - max(t.delays) + delay, None]
            )
            for q, delay in enumerate(t.delays)
        ]
        means.append(torch.stack(found).mean())
    return torch.stack(means).cpu()


def _sequence(transformer: Transformer, passage: Passage, frames: int) -> Tensor:
    """Lay out a passage in the delay pattern, [1, n_q, frames + max(delays) + 1], padded to `frames`."""
    codes = passage.codes.cpu()
    laid = torch.full((1, len(codes), frames + max(transformer.delays) + 1), transformer.special)
    for q, delay in enumerate(transformer.delays):
        laid[0, q, 1 + delay : 1 + delay + codes.shape[1]] = codes[q]
    return laid


def _hidden(transformer: Transformer, passages: list[Passage], tokens: Tensor) -> Tensor:
    """Run the layers over [rows, n_q, columns]; [rows * columns, dim]."""
    t, (rows, _, columns) = transformer, tokens.shape
    x = t.embed(tokens) + t.positions(columns)
    cross = None
    texts = [passage.text for passage in passages if passage.text is not None]
    if t.has_cross and texts:
        cross = t.new_cross(rows, round_up(max(text.shape[0] for text in texts), 16))
    for one, mates in ((group[0], group) for group in sharing(passages, lambda p: (id(p.text),))):
        text = passages[one].text
        if cross is not None and text is not None:
            t.write_text(cross, mates, text)
    if t.clock_weight is not None:
        x = x + torch.stack([t.clock(passage.clock, columns) for passage in passages])
    position = torch.arange(columns, device=t.device)
    # every layer fills the whole cache before it looks: one serves them all
    cache = windows(t.new_cache(rows, columns, layers=1), columns) * len(t.layers)
    causal = t.mask(position[None, :] <= position[:, None])
    return t.run(x, cache, cross, position, causal)
