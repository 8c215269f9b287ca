"""How the next token is drawn: audiocraft's distributions, without a device sync.

`torch.multinomial` stops the host at every step and takes one generator for the whole batch. Here
each token is drawn by inverting its cumulative distribution at one uniform number, and the numbers
of a row come from a generator of the row's own, so a row never depends on its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from looper.generation.messages import NoiseKey
from looper.request import Sampling
from looper.runtime.validation import FieldError

COLDEST = 1e-3  # temperatures below are greedy: dividing by them would overflow
SCANNED = 256  # rows of a running sum on CUDA: 32 variations of 8 codebooks


class SamplingRule(NamedTuple):
    """What a step must be ready for; constant shapes depend on these alone.

    Attributes
    ----------
    width : int
        The largest top_k of the rows that draw by it; 0 where none does.
    even : bool
        Whether all of those have the same.
    nucleus, greedy : bool
        Whether rows may draw by top_p, or take the likeliest token.
    """

    width: int
    even: bool
    nucleus: bool
    greedy: bool

    @property
    def mixed(self) -> bool:
        """Whether rows may draw in different ways."""
        uneven = self.width > 0 and not self.even
        return uneven or (self.width > 0) + self.nucleus + self.greedy > 1


@dataclass(frozen=True)
class SamplingValues:
    """Sampling values of rows, each a tensor [rows] on the device.

    Attributes
    ----------
    temperature, top_p, guidance : torch.Tensor
        float32.
    top_k : torch.Tensor
        int64, 1 up to the number of tokens.
    nucleus, greedy : torch.Tensor
        bool: which rows draw by top_p, and which take the likeliest token.
    """

    temperature: torch.Tensor
    top_p: torch.Tensor
    guidance: torch.Tensor
    top_k: torch.Tensor
    nucleus: torch.Tensor
    greedy: torch.Tensor

    @classmethod
    def room(cls, rows: int, device: torch.device) -> SamplingValues:
        """Room for the values of `rows` rows, greedy ones at first."""
        number = lambda: torch.ones(rows, device=device)
        whole = torch.ones(rows, dtype=torch.long, device=device)
        nucleus = torch.zeros(rows, dtype=torch.bool, device=device)
        return cls(number(), number(), number(), whole, nucleus, ~nucleus)

    def of(self, rows: int) -> SamplingValues:
        """The values of the first `rows` rows."""
        return SamplingValues(*(getattr(self, field.name)[:rows] for field in fields(self)))

    def at(self, rows: torch.Tensor) -> SamplingValues:
        """The values of the rows numbered by `rows`."""
        return SamplingValues(*(getattr(self, field.name)[rows] for field in fields(self)))

    def set(self, rows: list[int], sampling: Sampling, card: int) -> None:
        """Fill in the values of some rows."""
        kind, top_k = sampling_kind(sampling), int(sampling.top_k) or card
        self.temperature[rows] = float(sampling.temperature) if kind != "greedy" else 1.0
        self.top_p[rows] = float(sampling.top_p)
        self.guidance[rows] = float(sampling.cfg_coef)
        self.top_k[rows] = top_k if kind == "top_k" else 1
        self.nucleus[rows] = kind == "top_p"
        self.greedy[rows] = kind == "greedy"

    def copy_row(self, source: int, target: int) -> None:
        """Give row `target` the values of row `source`."""
        for field in fields(self):
            values = getattr(self, field.name)
            values[target] = values[source]


def sampling_kind(sampling: Sampling) -> str:
    """How a row draws: "greedy", "top_p" or "top_k"."""
    if sampling.temperature < COLDEST:
        return "greedy"
    return "top_p" if sampling.top_p > 0 else "top_k"


def check_sampling(sampling: Sampling, card: int) -> None:
    """Raise ValueError if `top_k` counts and is larger than the `card` tokens there are."""
    if sampling_kind(sampling) == "top_k" and sampling.top_k > card:
        raise FieldError("top_k", f"must be between 0 and {card} for this model, got {sampling.top_k}")


def sampling_rule(samplings: Iterable[Sampling], card: int) -> SamplingRule:
    """The narrowest rule that serves rows of these values, of a model of `card` tokens."""
    samplings = list(samplings)
    kinds = [sampling_kind(sampling) for sampling in samplings]
    widths = {
        int(sampling.top_k) or card
        for sampling, kind in zip(samplings, kinds, strict=True)
        if kind == "top_k"
    }
    return SamplingRule(max(widths, default=0), len(widths) == 1, "top_p" in kinds, "greedy" in kinds)


def any_rule(card: int) -> SamplingRule:
    """The rule that serves all rows, whatever their values."""
    return SamplingRule(card, False, True, True)


def row_uniforms(keys: Sequence[NoiseKey], steps: int, n_q: int) -> np.ndarray:
    """Uniform numbers in [0, 1), [rows, steps, n_q] float32, each row from its own generator.

    The same key gives the same numbers whatever the batch, the device or the machine, and a longer
    request begins with the shorter one's.
    """
    return np.stack(
        [np.random.default_rng(seed_sequence(key)).random((steps, n_q), dtype=np.float32) for key in keys]
    )


def seed_sequence(key: NoiseKey) -> np.random.SeedSequence:
    """Spread a key over words of a fixed width, the seed's upper half last: no two keys share them.

    NumPy takes as many words for a number as it needs, so that (2**32 + 42, 1, 0) and (42, 1, 1) would be one key.
    """
    seed, variation, attempt = key
    return np.random.SeedSequence([seed % 2**32, variation, attempt, seed >> 32])


def draw(
    logits: torch.Tensor, uniforms: torch.Tensor, values: SamplingValues, rule: SamplingRule
) -> torch.Tensor:
    """Draw one token per row and codebook.

    Parameters
    ----------
    logits : torch.Tensor
        [rows, n_q, card] float32.
    uniforms : torch.Tensor
        [rows, n_q] in [0, 1).
    values : SamplingValues
        Of the rows.
    rule : SamplingRule
        One that serves them; which of those makes no difference to what is drawn.

    Returns
    -------
    torch.Tensor
        Tokens [rows, n_q] int64.
    """
    drawn = []
    if rule.greedy:
        drawn.append((values.greedy, logits.argmax(dim=-1)))
    if rule.nucleus:
        drawn.append((values.nucleus, _draw_nucleus(logits, uniforms, values)))
    if rule.width:
        drawn.append((values.greedy, _draw_likeliest(logits, uniforms, values, rule)))
    _, tokens = drawn.pop()
    for chosen, others in drawn:
        tokens = torch.where(chosen[:, None], others, tokens)
    return tokens


def draw_apart(logits: torch.Tensor, uniforms: torch.Tensor, values: SamplingValues) -> torch.Tensor:
    """As `draw`, those rows together that draw alike: a CPU need not sort all of them for the sake of one."""
    alike: dict[SamplingRule, list[int]] = {}
    ways = zip(values.top_k.tolist(), values.nucleus.tolist(), values.greedy.tolist(), strict=True)
    for row, (top_k, nucleus, greedy) in enumerate(ways):
        rule = SamplingRule(0 if nucleus or greedy else top_k, True, nucleus, greedy)
        alike.setdefault(rule, []).append(row)
    tokens = torch.empty(uniforms.shape, dtype=torch.long)
    for rule, rows in alike.items():
        tokens[rows] = draw(logits[rows], uniforms[rows], values.at(torch.tensor(rows)), rule)
    return tokens


def _draw_nucleus(logits: torch.Tensor, uniforms: torch.Tensor, values: SamplingValues) -> torch.Tensor:
    """Among the likeliest tokens up to `top_p`."""
    ranked, tokens = logits.sort(dim=-1, descending=True)
    probabilities = (ranked / values.temperature[:, None, None]).softmax(dim=-1)
    # audiocraft keeps the token that crosses p: those before it sum to p or less
    kept = running_sum(probabilities) - probabilities <= values.top_p[:, None, None]
    return tokens.gather(-1, _invert(probabilities * kept, uniforms)[..., None])[..., 0]


def _draw_likeliest(
    logits: torch.Tensor, uniforms: torch.Tensor, values: SamplingValues, rule: SamplingRule
) -> torch.Tensor:
    """Among the `top_k` likeliest tokens, and those as likely as the last of them."""
    if rule.width < logits.shape[-1] or not rule.even:
        likeliest = logits.topk(rule.width, dim=-1, sorted=not rule.even).values
        if rule.even:
            least = likeliest.amin(dim=-1, keepdim=True)
        else:
            last = (values.top_k - 1)[:, None, None].expand(-1, logits.shape[1], 1)
            least = likeliest.gather(-1, last)
        logits = logits.masked_fill(logits < least, -torch.inf)
    return _invert((logits / values.temperature[:, None, None]).softmax(dim=-1), uniforms)


def running_sum(weights: torch.Tensor) -> torch.Tensor:
    """Cumulative sum over the last axis, the same bits whatever the other rows.

    CUDA's scan shares a row among more threads, and so adds in another order, the fewer rows there are
    (ATen's `get_log_num_threads_x_inner_scan`): there it always gets as many.
    """
    if weights.device.type != "cuda":
        return weights.cumsum(dim=-1)
    rows = weights.flatten(0, -2)
    padded = F.pad(rows, (0, 0, 0, -len(rows) % SCANNED))
    return padded.cumsum(dim=-1)[: len(rows)].view_as(weights)


def _invert(weights: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Index into `weights` [..., n] that each uniform number [...] falls on; never one of weight 0."""
    cumulative = running_sum(weights)
    total = cumulative[..., -1:]
    # rounding may lift the product to the total itself, past the last weight
    reached = torch.minimum(uniforms[..., None] * total, total.nextafter(torch.zeros_like(total)))
    return (cumulative <= reached).sum(dim=-1)
