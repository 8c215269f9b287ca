"""Each kernel against the reference, on the card and the model at hand, before anything is decoded with it.

A kernel is taken if its results are those of the reference to within `TOLERANCE`, a row's the same to the bit with other
rows and without, and a step's worth of it is no slower; whatever it raises is a refusal, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from looper.generation.kernels.operations import NAMES, Operations
from looper.generation.slots import HALVES, Slots
from looper.model.transformer import Layer, Transformer
from looper.request import Sampling
from looper.runtime.cuda_graph import Graphed, GraphPool

# largest difference, in parts of the reference's largest number: a rounding or two of the weights' type
TOLERANCE = {torch.float16: 4e-3, torch.bfloat16: 3e-2, torch.float32: 1e-4}
MOST_OTHER_TOKENS = 0.005  # of those drawn: a number that falls on a border may fall on either side of it
COLUMNS, TEXT = 256, 32  # that attention looks at while it is tried
# a clock that wavers by a few percent must not decide which bits the next start gives
LEAST_SPEEDUP = 0.9
DRAWS = 4
SAMPLINGS = (
    Sampling(top_k=250),
    Sampling(top_p=0.9),
    Sampling(temperature=0),
    Sampling(top_k=0, temperature=1.3, cfg_coef=1),
)
REPLAYS = 5

Run = Callable[[Operations], list[Tensor]]
Stopwatch = Callable[[Callable[[], object]], float]


@dataclass(frozen=True)
class Verdict:
    """What came of one operation's trial.

    Attributes
    ----------
    name : str
    refused : str or None
        Why the reference is used in its place.
    error : float
        Largest difference; of `sample`, the share of other tokens.
    speedup : float
        The reference's time over the kernel's, the mean over numbers of rows; 0 where that was not measured.
    """

    name: str
    refused: str | None
    error: float = 0.0
    speedup: float = 0.0


class Bench:
    """Inputs of every operation for `rows` rows: the first of those that `most` rows have."""

    def __init__(self, transformer: Transformer, rows: int, most: int) -> None:
        self.t, self.rows = transformer, rows
        t, device = transformer, transformer.device
        self.random = torch.Generator(device).manual_seed(0)
        normal = lambda *shape: torch.randn(shape, generator=self.random, device=device)
        halves = HALVES * rows
        self.x = normal(HALVES * most, t.dim)[:halves]
        self.wide = normal(HALVES * most, 4 * t.dim).to(t.dtype)[:halves]
        self.parts = normal(1, HALVES * most, 3 * t.dim)[:, :halves]
        self.logits = 3 * normal(1, HALVES * most, t.n_q * t.card)[:, :halves]
        self.slots = self._slots(rows, most)
        (self.cache,) = t.new_cache(halves, COLUMNS, layers=1)
        self.cache.copy_(normal(HALVES * most, *self.cache.shape[1:])[:halves])
        self.position = (37 * torch.arange(rows, device=device) + COLUMNS - 50) % COLUMNS
        (self.text,) = t.new_cache(rows, TEXT, layers=1)
        self.text.copy_(normal(most, *self.text.shape[1:])[:rows])
        self.lengths = 1 + 5 * torch.arange(rows, device=device) % TEXT

    def _slots(self, rows: int, most: int) -> Slots:
        t = self.t
        slots = Slots(t, rows, 2 * DRAWS, 1)
        slots.uniforms.copy_(
            torch.rand((most, *slots.uniforms.shape[1:]), generator=self.random, device=t.device)[:rows]
        )
        shape = (most, *slots.sequence.shape[1:])
        slots.sequence.copy_(torch.randint(t.card, shape, generator=self.random, device=t.device)[:rows])
        if slots.clock is not None:
            shape = (most, *slots.clock.shape[1:])
            slots.clock.copy_(torch.randn(shape, generator=self.random, device=t.device)[:rows])
        for row in range(rows):
            asked = SAMPLINGS[row % len(SAMPLINGS)]
            slots.values.set([row], replace(asked, top_k=min(asked.top_k, t.card)), t.card)
        return slots

    def run(self, name: str, do: Operations, layers: Sequence[Layer]) -> list[Tensor]:
        """Run an operation as often as these layers do; what it has computed."""
        return list(getattr(self, f"_{name}")(do, layers))

    def _embed(self, do: Operations, layers: Sequence[Layer]) -> Iterator[Tensor]:
        self.slots.position.copy_(self.slots.rows % len(self.slots.columns))
        yield do.embed(self.slots, self.rows)

    def _add_norm(self, do: Operations, layers: Sequence[Layer]) -> Iterator[Tensor]:
        parts = self.parts[:, :, : self.t.dim].contiguous()
        few = parts[:, : self.rows].contiguous()
        x = self.x.clone()
        for layer in layers:
            yield do.add_norm(x, parts, layer.norm1, 1)
            yield do.add_norm(x, few, layer.norm_cross, HALVES)
            yield do.add_norm(x, None, layer.norm2, 1)
        yield x

    def _product(self, do: Operations, layers: Sequence[Layer]) -> Iterator[Tensor]:
        x = self.x.to(self.t.dtype)
        for layer in layers:
            for linear in (layer.qkv, layer.out):
                yield do.product(linear, x).sum(dim=0)
            for linear in (layer.cross_q, layer.cross_out):
                yield do.product(linear, x[::HALVES]).sum(dim=0)
            yield do.product(layer.down, self.wide).sum(dim=0)
        yield do.product(self.t.output, x).sum(dim=0)

    def _product_gelu(self, do: Operations, layers: Sequence[Layer]) -> Iterator[Tensor]:
        x = self.x.to(self.t.dtype)
        return (do.product_gelu(layer.up, x) for layer in layers)

    def _self_attention(self, do: Operations, layers: Sequence[Layer]) -> Iterator[Tensor]:
        parts = self.parts.contiguous()
        cache = self.cache.clone() if len(layers) == 1 else self.cache  # it is written to, and compared
        for _ in layers:
            yield do.self_attention(parts, cache, self.position, COLUMNS)
        yield cache

    def _cross_attention(self, do: Operations, layers: Sequence[Layer]) -> Iterator[Tensor]:
        parts = self.parts[:, : self.rows, : self.t.dim].contiguous()
        return (do.cross_attention(parts, self.text, self.lengths) for _ in layers)

    def _sample(self, do: Operations, layers: Sequence[Layer]) -> Iterator[Tensor]:
        logits = self.logits.contiguous()
        draws = DRAWS if len(layers) == 1 else 1
        for column in range(draws):
            self.slots.sequence[:, :, column + 1] = -1
            self.slots.position.fill_(column)
            do.sample(logits, self.slots, self.rows)
        yield self.slots.sequence[:, :, 1 : draws + 1].clone()


def trial(
    transformer: Transformer,
    reference: Operations,
    candidate: Operations,
    row_counts: Sequence[int],
    stopwatch: Stopwatch,
) -> list[Verdict]:
    """Try every operation of `candidate` at some numbers of rows, the largest last."""
    benches = [Bench(transformer, rows, row_counts[-1]) for rows in row_counts]
    verdicts = []
    for name in NAMES:
        try:
            verdicts.append(_verdict(name, benches, reference, candidate, stopwatch))
        except Exception as error:  # no compiler, no such instruction, too little shared memory ...
            if torch.cuda.is_available() and not _card_answers():
                raise  # a fault that nothing on this card survives
            verdicts.append(Verdict(name, f"it failed: {type(error).__name__}: {error}"[:300]))
    return verdicts


def _verdict(
    name: str, benches: Sequence[Bench], reference: Operations, candidate: Operations, stopwatch: Stopwatch
) -> Verdict:
    one = benches[0].t.layers[:1]
    found = [bench.run(name, candidate, one) for bench in benches]
    errors = [
        _difference(name, mine, bench.run(name, reference, one))
        for bench, mine in zip(benches, found, strict=True)
    ]
    most = MOST_OTHER_TOKENS if name == "sample" else TOLERANCE[benches[0].t.dtype]
    if not max(errors) <= most:  # a difference may be no number
        return Verdict(name, f"its results differ by {max(errors):.2g}, more than {most:.2g}", max(errors))
    for bench, few in zip(benches, found, strict=True):
        if not all(torch.equal(a, b[: len(a)]) for a, b in zip(few, found[-1], strict=True)):
            return Verdict(
                name, f"{bench.rows} rows come out other than among {benches[-1].rows}", max(errors)
            )
    speedups = []
    for bench in benches:
        seconds = [
            stopwatch(lambda do=do, bench=bench: bench.run(name, do, bench.t.layers))  # type: ignore[misc]
            for do in (reference, candidate)
        ]
        speedups.append(seconds[0] / max(seconds[1], 1e-9))
    speedup = sum(speedups) / len(speedups)
    slower = f"it takes {1 / max(speedup, 1e-9):.2f} times the reference's time"
    return Verdict(name, None if speedup > LEAST_SPEEDUP else slower, max(errors), speedup)


def _difference(name: str, found: list[Tensor], wanted: list[Tensor]) -> float:
    if name == "sample":
        return max(float((a != b).float().mean()) for a, b in zip(found, wanted, strict=True))
    differences = []
    for a, b in zip(found, wanted, strict=True):
        largest = float(b.float().abs().max())
        difference = float((a.float() - b.float()).abs().max()) / max(largest, 1e-9)
        differences.append(difference if difference == difference else float("inf"))
    return max(differences)


def _card_answers() -> bool:
    try:
        torch.cuda.synchronize()
        return True
    except RuntimeError:
        return False


def graph_seconds(pool: GraphPool | None) -> Stopwatch:
    """Time functions on the current GPU as they will run: as graphs, where there is a pool for them."""

    def seconds(function: Callable[[], object]) -> float:
        graphed = Graphed(function, pool)
        for _ in range(3):  # eagerly, which compiles; captured; and once more
            graphed()
        taken = []
        for _ in range(REPLAYS):
            torch.cuda.synchronize()
            started = time.perf_counter()
            graphed()
            torch.cuda.synchronize()
            taken.append(time.perf_counter() - started)
        return min(taken)

    return seconds
