"""How likely the model finds music that is there: codes in, log-likelihoods out, without decoding anything.

One pass over whole passages ("teacher forcing"): every token's probability given all that stands before
it in the delay pattern, for the conditional half alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from looper.generation.batch import round_up, sharing, split
from looper.generation.messages import Passage
from looper.model.kv_cache import windows
from looper.model.transformer import Transformer
from looper.runtime.memory import out_of_memory

MOST_AT_ONCE = 64  # passages in one pass


@torch.inference_mode()
def log_likelihoods(
    transformer: Transformer,
    passages: Sequence[Passage],
    texts: Sequence[Tensor | None],
    prefix: Tensor | None = None,
) -> Tensor:
    """Mean log-likelihood per token of the frames from `start` on, in nats, float32 [passages] on the CPU.

    Parameters
    ----------
    transformer : Transformer
    passages : sequence of Passage
        Of any lengths; up to 64 go through the model together.
    texts : sequence of torch.Tensor or None
        Encoded text [tokens, dim] of each passage; those that share the object share the work on it.
    prefix : torch.Tensor, optional
        What stands in front of all passages, [tokens, dim].

    Raises
    ------
    ValueError
        If a passage has another number of codebooks than the model, or there is not a text for each.
    """
    if len(texts) != len(passages):
        raise ValueError(f"one text per passage is needed, got {len(texts)} for {len(passages)} passages")
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
            means = _means(transformer, [passages[i] for i in batch], [texts[i] for i in batch], prefix)
        except RuntimeError as error:
            if len(batch) == 1 or not out_of_memory(error):
                raise
            queue[:0] = split(batch, (len(batch) + 1) // 2)
            continue
        found.update(zip(batch, means.tolist(), strict=True))
    return torch.tensor([found[i] for i in range(len(passages))])


def _means(
    transformer: Transformer, passages: list[Passage], texts: list[Tensor | None], prefix: Tensor | None
) -> Tensor:
    t, rows = transformer, len(passages)
    frames = max(passage.codes.shape[1] for passage in passages)
    sequence = torch.cat([_sequence(t, passage, frames) for passage in passages]).to(t.device)
    hidden = t.out_norm(_hidden(t, passages, texts, sequence[:, :, :-1], prefix)).view(rows, -1, t.dim)
    hidden = hidden[:, 0 if prefix is None else len(prefix) :]
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
    codes = torch.as_tensor(passage.codes)
    laid = torch.full((1, len(codes), frames + max(transformer.delays) + 1), transformer.special)
    for q, delay in enumerate(transformer.delays):
        laid[0, q, 1 + delay : 1 + delay + codes.shape[1]] = codes[q]
    return laid


def _hidden(
    transformer: Transformer,
    passages: list[Passage],
    texts: list[Tensor | None],
    tokens: Tensor,
    prefix: Tensor | None,
) -> Tensor:
    """Run the layers over what stands in front and [rows, n_q, columns]; [rows * (tokens + columns), dim]."""
    t, (rows, _, columns) = transformer, tokens.shape
    ahead = 0 if prefix is None else len(prefix)
    positions = t.positions(ahead + columns)
    x = t.embed(tokens) + positions[ahead:]
    cross = None
    lengths = [text.shape[0] for text in texts if text is not None]
    if t.has_cross and lengths:
        cross = t.new_cross(rows, round_up(max(lengths), 16))
    for mates in sharing(texts, lambda text: (id(text),)):
        text = texts[mates[0]]
        if cross is not None and text is not None:
            t.write_text(cross, mates, text)
    if t.clock_weight is not None:
        x = x + torch.stack([t.clock(_tensor(passage.clock), columns) for passage in passages])
    if prefix is not None:
        x = torch.cat([(prefix.to(x) + positions[:ahead]).expand(rows, -1, -1), x], dim=1)
    position = torch.arange(ahead + columns, device=t.device)
    # every layer fills the whole cache before it looks: one serves them all
    cache = windows(t.new_cache(rows, ahead + columns, layers=1), ahead + columns) * len(t.layers)
    causal = t.mask(position[None, :] <= position[:, None])
    return t.run(x, cache, cross, position, causal)


def _tensor(array: np.ndarray | None) -> Tensor | None:
    return None if array is None else torch.as_tensor(array)
