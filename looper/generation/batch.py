"""What is decoded: rows, and how their codes lie in the delay pattern."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from looper.generation.messages import NoiseKey

TEXT_LENGTHS = (64, 512)  # most prompts, and the longest that T5 takes
# in front of the music: as many texts; melodies of 30 s and most prompts; the longest
PREFIX_LENGTHS = (64, 320, 768)


@dataclass(frozen=True)
class Row:
    """What one row is made from. Rows that share an object share the work on it.

    Attributes
    ----------
    text : torch.Tensor or None
        Encoded text [tokens, dim]; None for a model without text.
    key : NoiseKey
        Names the generator of this row's random numbers.
    prompt : torch.Tensor or None
        Codes [n_q, frames] to continue.
    clock : torch.Tensor or None
        Beat clock features [columns, C]; the last row is repeated where there are too few.
    frames : int or None
        Length of this row, prompt included; as long as the call's rows may be where None.
    prefix : torch.Tensor or None
        What stands in front of the music, [2, tokens, dim]: with the condition, and without it.
    """

    text: Tensor | None
    key: NoiseKey
    prompt: Tensor | None = None
    clock: Tensor | None = None
    frames: int | None = None
    prefix: Tensor | None = None


def sharing(rows: Sequence[Any], what: Callable[[Any], tuple[Any, ...]]) -> list[list[int]]:
    """Group the indices of rows (or of passages) by `what`."""
    groups = defaultdict(list)
    for i, row in enumerate(rows):
        groups[what(row)].append(i)
    return list(groups.values())


def split(batch: list[int], size: int) -> list[list[int]]:
    """Cut into pieces of at most `size`."""
    return [batch[i : i + size] for i in range(0, len(batch), size)]


def text_length(tokens: int) -> int:
    """Room for a text of so many tokens."""
    return next((room for room in TEXT_LENGTHS if tokens <= room), round_up(tokens, 16))


def prefix_length(tokens: int) -> int:
    """Room for so many tokens in front of the music."""
    return next((room for room in (0, *PREFIX_LENGTHS) if tokens <= room), round_up(tokens, 16))


def check_rows(rows: Sequence[Row], frames: int) -> None:
    """Raise ValueError where there are no rows, or one's audio prompt leaves nothing to generate."""
    if not rows:
        raise ValueError("nothing to decode: got 0 rows")
    for row, length in zip(rows, lengths_of(rows, frames), strict=True):
        given = 0 if row.prompt is None else row.prompt.shape[1]
        if given >= length:
            raise ValueError(
                f"an audio prompt of {given} frames leaves nothing to generate in {length} frames"
            )


def lengths_of(rows: Sequence[Row], frames: int) -> list[int]:
    """Frames of each row; raise ValueError where a row asks for more than `frames`."""
    lengths = [frames if row.frames is None else row.frames for row in rows]
    if max(lengths) > frames:
        raise ValueError(f"rows may have up to {frames} frames, got {max(lengths)}")
    return lengths


def given_sequence(rows: Sequence[Row], frames: int, delays: Sequence[int], special: int) -> Tensor:
    """Lay out what is known, [rows, n_q, columns + 1]: special tokens, prompts, -1 where to draw."""
    given = torch.full((len(rows), len(delays), frames + max(delays) + 1), special)
    lengths = lengths_of(rows, frames)
    for q, delay in enumerate(delays):
        for i, row in enumerate(rows):
            given[i, q, 1 + delay : 1 + delay + lengths[i]] = -1
            if row.prompt is not None:
                given[i, q, 1 + delay : 1 + delay + row.prompt.shape[1]] = row.prompt[q]
    return given


def codes_of(sequence: Tensor, frames: int, delays: Sequence[int]) -> Tensor:
    """Undo the delays of a sequence, [..., n_q, frames]."""
    return torch.stack([sequence[..., q, 1 + d : 1 + d + frames] for q, d in enumerate(delays)], dim=-2)


def round_up(number: int, multiple: int) -> int:
    """Round `number` up to a multiple."""
    return -(-number // multiple) * multiple
