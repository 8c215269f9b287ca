"""The decode loop: all rows in one batch, one static step, codes out.

Sequence and pattern are audiocraft's (Copet et al., "Simple and Controllable Music Generation",
2023): column 0 holds the special token, and codebook q of frame t stands in column 1 + t + delay_q.
A row's codes depend on its own text, key, prompt and clock alone: see `looper.model.linear` for the
arithmetic, `looper.generation.sampling` for the random numbers, and `batches` for what may share a batch.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any, TypeVar

import torch
from torch import Tensor

from looper.generation.batch import (
    TEXT_LENGTHS,
    Row,
    batches,
    check_rows,
    codes_of,
    given_sequence,
    lengths_of,
    round_up,
    sharing,
    split,
    text_length,
)
from looper.generation.sampling import SamplingRule, row_uniforms, sampling_rule
from looper.generation.step import State, finish_step, kept_bytes, make_step, state_bytes
from looper.model.kv_cache import Cache, windows
from looper.model.musicgen import Model
from looper.model.transformer import Transformer
from looper.request import Sampling
from looper.runtime.cuda_graph import Graphed, graphs_wanted
from looper.runtime.memory import free_bytes, out_of_memory

logger = logging.getLogger(__name__)
Progress = Callable[[int, int], None]
T = TypeVar("T")
Graphs = dict[tuple[SamplingRule, int], Graphed]
MOST_GRAPHS = 64  # for a state

COLUMNS = 256  # caches have room for a multiple of this
# attention looks at the cache in steps of so many columns: each is a graph of its own on CUDA
LENGTH_STEP = {"cpu": 16, "cuda": 64}
MOST_ROWS = 32  # with guidance, one tile of products on CUDA
ROW_BLOCK = {"cpu": 1, "cuda": 4}  # rows are padded to a multiple, so that fewer graphs serve all requests
FEWEST_PER_WORKER = 4  # fewer rows are mostly Python, which threads do not share
HOST_EVERY = 16  # steps between looks at the device, for progress and cancellation


class DecodeError(RuntimeError):
    """Decoding failed in flight; the message says why."""


class Decoder:
    """Decode codes from a loaded model.

    Parameters
    ----------
    model : looper.model.musicgen.Model
    disable_graphs : bool
        Run every step eagerly on CUDA too; so does the environment's ``LOOPER_NO_CUDA_GRAPH=1``.
    workers : int
        Threads that share a batch on a CPU, each with rows of its own. For a small model they do better
        than threads within each product, which wait for each other a thousand times a step.
    """

    def __init__(self, model: Model, disable_graphs: bool = False, workers: int = 1) -> None:
        self.workers = workers
        self.transformer = Transformer(model.lm, model.clock.weight if model.clock else None)
        self.delays = self.transformer.delays
        self.graphs = graphs_wanted(self.transformer.device) and not disable_graphs
        self._lock = threading.Lock()
        self._states: dict[tuple[Any, ...], tuple[State, Graphs]] = {}
        # all graphs share their scratch memory: they run one after another and leave nothing in it
        self._pool = torch.cuda.graph_pool_handle() if self.graphs else None

    @torch.inference_mode()
    def decode(
        self, rows: Sequence[Row], frames: int, sampling: Sampling, progress: Progress | None = None
    ) -> Tensor:
        """Decode codes [rows, n_q, frames], prompts included; -1 after the end of a shorter row.

        Parameters
        ----------
        rows : sequence of Row
            Prompts, where there are any, all of one length below the rows'. A row that has all its
            frames leaves the batch as soon as half of it can go.
        frames : int
            Frames of a row that does not say, and the most one may have.
        sampling : Sampling
        progress : callable, optional
            Called with (steps done, steps in all) every few steps, from this thread; what it raises
            ends the decoding.

        Raises
        ------
        ValueError
            For arguments that don't fit together or the model.
        DecodeError
            If the model's numbers stop being finite, or memory runs out at a single row.
        """
        rule = sampling_rule(sampling, self.transformer.card)
        prompt_frames = check_rows(rows, frames)
        steps = frames + max(self.delays) - prompt_frames
        report = progress or (lambda done, total: None)
        limit = self.rows_that_fit(frames, sampling.guided)
        groups = list(batches(rows))
        if self.workers > 1 and len(rows) >= 2 * FEWEST_PER_WORKER:
            share = max(FEWEST_PER_WORKER, -(-len(rows) // self.workers))
            pieces = [piece for group in groups for piece in split(group, min(limit, share))]
            return self._decode_in_threads(rows, pieces, (frames, sampling, rule), steps, report)
        return self._decode_in_turn(rows, groups, limit, (frames, sampling, rule), steps, report)

    def _decode_in_turn(
        self,
        rows: Sequence[Row],
        groups: list[list[int]],
        limit: int,
        what: tuple[int, Sampling, SamplingRule],
        steps: int,
        report: Progress,
    ) -> Tensor:
        """Decode one batch after the other, in smaller ones where memory runs out."""
        codes: dict[int, Tensor] = {}
        queue = [(group, limit) for group in groups]
        while queue:
            batch, limit = queue.pop(0)
            if len(batch) > limit:
                queue[:0] = [(piece, limit) for piece in split(batch, limit)]
                continue

            def report_batch(done: int, batch: list[int] = batch) -> None:
                report((len(codes) * steps + len(batch) * done) // len(rows), steps)

            try:
                made = self._decode_batch([rows[i] for i in batch], *what, report_batch)
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                others = bool(self._states)  # of other requests: without them it may fit
                self.forget()
                if len(batch) == 1 and not others:
                    raise DecodeError("out of memory with a single variation: ask for less audio") from error
                limit = len(batch) if others else (len(batch) + 1) // 2
                logger.warning(
                    "out of memory with %d variations at once, going on with %d", len(batch), limit
                )
                queue.insert(0, (batch, limit))
                continue
            codes.update(zip(batch, made, strict=True))
        return torch.stack([codes[i] for i in range(len(rows))])

    def _decode_in_threads(
        self,
        rows: Sequence[Row],
        pieces: list[list[int]],
        what: tuple[int, Sampling, SamplingRule],
        steps: int,
        report: Progress,
    ) -> Tensor:
        """Decode pieces of a batch in threads; progress comes from, and ends, this one."""
        done, stop = [0] * len(pieces), threading.Event()

        @torch.inference_mode()
        def work(slot: int) -> Tensor:
            torch.set_num_threads(1)

            def note(step: int) -> None:
                done[slot] = step * len(pieces[slot])
                if stop.is_set():
                    raise DecodeError("stopped, because another part of the batch was")

            return self._decode_batch([rows[i] for i in pieces[slot]], *what, note, slot)

        with ThreadPoolExecutor(self.workers) as pool:
            futures = [pool.submit(work, slot) for slot in range(len(pieces))]
            try:
                pending = set(futures)
                while pending:
                    finished, pending = wait(pending, timeout=0.05, return_when=FIRST_EXCEPTION)
                    for future in finished:
                        future.result()
                    report(sum(done) // len(rows), steps)
            finally:
                stop.set()
        made = torch.cat([future.result() for future in futures])
        codes = dict(zip(itertools.chain(*pieces), made, strict=True))
        return torch.stack([codes[i] for i in range(len(rows))])

    def rows_that_fit(self, frames: int, guided: bool) -> int:
        """How many rows the free memory holds, at most 32."""
        t = self.transformer
        columns = round_up(frames + max(self.delays), COLUMNS)
        halves = 2 if guided else 1
        size = t.embeddings.element_size() if t.device.type == "cpu" else 2
        free = free_bytes(t.device) + sum(state.nbytes for state, _ in self._states.values())
        per_row = 2 * len(t.layers) * t.dim * size * (halves * columns + TEXT_LENGTHS[0])
        return max(1, min(MOST_ROWS, int(0.8 * free / per_row)))

    def _decode_batch(
        self,
        rows: list[Row],
        frames: int,
        sampling: Sampling,
        rule: SamplingRule,
        report: Callable[[int], None],
        slot: int = 0,
    ) -> Tensor:
        lengths, last = lengths_of(rows, frames), max(self.delays)
        longest = max(lengths)
        columns = longest + last  # the last column drawn is never fed
        codes = torch.full((len(rows), len(self.delays), frames), -1, device=self.transformer.device)
        start = 1 + (0 if rows[0].prompt is None else rows[0].prompt.shape[1])
        left, batch = list(range(len(rows))), self._padded(rows)
        key, state, graphs = self._prepare(batch, columns, sampling, slot)
        self._fill(state, batch, longest, columns)
        self._prefill(state, batch, start, rule)
        self._report(state, 1, report)
        for position in range(start, columns):
            self._step(state, graphs, rule, position)
            done = position - start + 2
            if self.transformer.device.type == "cpu" or done % HOST_EVERY == 0 or position == columns - 1:
                self._report(state, done, report)
            if (ended := position + 1 - last) not in lengths:
                continue
            for place, row in enumerate(left):
                if lengths[row] == ended:
                    codes[row, :, :ended] = codes_of(state.sequence[place], ended, self.delays)
            going = [place for place, row in enumerate(left) if lengths[row] > ended]
            if going and 2 * len(self._padded(going)) <= len(state.sequence):
                left, whole = [left[place] for place in going], state
                batch = self._padded([rows[i] for i in left])
                smaller = self._prepare(batch, columns, sampling, slot)
                smaller[1].adopt(whole, self._padded(going))
                self._keep(key, state, graphs)
                key, state, graphs = smaller
        self._keep(key, state, graphs)
        return codes

    def _padded(self, rows: list[T]) -> list[T]:
        """Repeat the first row until there are whole blocks of them."""
        return rows + rows[:1] * (-len(rows) % ROW_BLOCK[self.transformer.device.type])

    def _step(self, state: State, graphs: Graphs, rule: SamplingRule, position: int) -> None:
        """Feed the column at `position`, looking at as many columns as the next graph does."""
        length = round_up(position + 1, LENGTH_STEP[self.transformer.device.type])
        if (rule, length) not in graphs:
            while len(graphs) >= MOST_GRAPHS:
                del graphs[next(iter(graphs))]
            one = make_step(self.transformer, state, rule, length)
            graphs[rule, length] = Graphed(one, not self.graphs, self._pool)
        graphs[rule, length]()

    def _report(self, state: State, done: int, report: Callable[[int], None]) -> None:
        if not state.check.isfinite().item():
            raise DecodeError(
                f"the model's output stopped being finite at step {done}: its weights are broken or "
                "overflow; check them with `looper weights verify`"
            )
        report(done)

    def _prepare(
        self, rows: list[Row], columns: int, sampling: Sampling, slot: int
    ) -> tuple[tuple[Any, ...], State, Graphs]:
        """Take an earlier request's state and graphs where they fit, else make new ones.

        They are nobody else's until `_keep` puts them back; what a failure leaves behind never comes back.
        """
        t = self.transformer
        text = 0 if rows[0].text is None else text_length(rows[0].text.shape[0])
        key = (len(rows), round_up(columns, COLUMNS), text, sampling.guided, slot)
        with self._lock:
            found = self._states.pop(key, None)
            if found is None:
                self._forget_beyond(kept_bytes(t.device) - state_bytes(t, *key[:4]))
        state, graphs = found or (State(t, *key[:4]), {})
        state.set_sampling(sampling)
        return key, state, graphs

    def _keep(self, key: tuple[Any, ...], state: State, graphs: Graphs) -> None:
        """Put back what `_prepare` gave; the youngest stand last."""
        with self._lock:
            self._states[key] = state, graphs

    def forget(self) -> None:
        """Let all states and graphs of earlier requests go."""
        with self._lock:
            self._forget_beyond(-1)

    def _forget_beyond(self, room: int) -> None:
        """Let the oldest states go until the others fit."""
        while self._states and sum(state.nbytes for state, _ in self._states.values()) > room:
            if self.graphs:
                torch.cuda.synchronize()  # a replay may still read it
            del self._states[next(iter(self._states))]

    def _fill(self, state: State, rows: list[Row], frames: int, columns: int) -> None:
        """Write a request into the state: given tokens, random numbers, clock, texts."""
        t = self.transformer
        state.check.zero_()
        state.sequence[:, :, : columns + 1] = given_sequence(rows, frames, self.delays, t.special).to(
            t.device
        )
        numbers = torch.from_numpy(row_uniforms([row.key for row in rows], columns + 1, t.n_q))
        state.uniforms[:, : columns + 1] = numbers.to(t.device)
        if state.clock is not None:
            for mates in sharing(rows, lambda row: (id(row.clock),)):
                state.clock[mates] = t.clock(rows[mates[0]].clock, state.clock.shape[1])
        if state.cross is not None:
            for mates in sharing(rows, lambda row: (id(row.text),)):
                text = rows[mates[0]].text
                assert text is not None
                t.write_text(state.cross, mates, text)

    def _prefill(self, state: State, rows: list[Row], start: int, rule: SamplingRule) -> None:
        """Feed columns 0..start-1 in one pass per different (text, prompt, clock), and draw the next."""
        t, n = self.transformer, state.sequence.shape[0]
        position = torch.arange(start, device=t.device)
        causal = t.mask(position[None, :] <= position[:, None])
        hidden = torch.zeros(n * state.halves, t.dim, device=t.device)
        for mates in sharing(rows, lambda row: (id(row.text), id(row.prompt), id(row.clock))):
            one = mates[0]
            x = t.embed(state.sequence[one : one + 1, :, :start]) + state.positions[:start]
            if state.clock is not None:
                x = x + state.clock[one : one + 1, :start]
            cross = state.cross and state.cross.of(slice(one, one + 1))
            scratch = t.new_cache(state.halves, start)
            out = t(x.repeat(state.halves, 1, 1), windows(scratch, start), cross, position, causal)
            for half in range(state.halves):
                there = [half * n + i for i in mates]
                hidden[there] = out[half]
                _store(state.cache, scratch, there, half, start)
        finish_step(t, state, hidden, rule, position[-1:] + 1)
        state.position.fill_(start)


def _store(cache: Cache, scratch: Cache, rows: list[int], half: int, length: int) -> None:
    for target, source in zip(cache, scratch, strict=True):
        target[rows, :, :length] = source[half]
