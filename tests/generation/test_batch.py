"""What makes a row independent of its neighbours, and what a batch does when something is wrong."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from looper.checkpoints import load
from looper.generation.batch import Row, text_length
from looper.generation.engine import Engine
from looper.generation.generator import Generator
from looper.generation.lane import Lane
from looper.generation.sampling import row_uniforms
from looper.generation.tasks import DecodeError
from looper.model.beat_clock import clock_features
from looper.model.transformer import Transformer
from looper.request import Sampling
from testkit import stand_ins
from testkit.checkpoints import Shape
from testkit.decoding import TEXT, prompt_codes

pytestmark = pytest.mark.usefixtures("one_thread")


def test_random_numbers_hang_on_the_key_alone():
    whole = row_uniforms([(5, 0, 0), (5, 1, 0), (5, 1, 1)], 50, 4)
    assert np.array_equal(row_uniforms([(5, 1, 0)], 20, 4)[0], whole[1, :20])
    assert len({row.tobytes() for row in whole}) == 3
    assert whole.min() >= 0
    assert whole.max() < 1


def test_no_two_keys_share_their_random_numbers_however_large_the_seed():
    keys = [
        (42, 1, 1),
        (2**32 + 42, 1, 0),
        (2**32 * 42, 1, 1),
        (2**33 + 42, 1, 0),
        (42, 1, 0),
        (2**62 + 42, 1, 0),
    ]
    assert len({row.tobytes() for row in row_uniforms(keys, 10, 4)}) == len(keys)


def test_random_numbers_of_a_seed_below_two_to_the_32_are_those_of_its_numpy_seed_sequence():
    expected = np.random.default_rng([2**32 - 1, 3, 2]).random((9, 4), dtype=np.float32)
    assert np.array_equal(row_uniforms([(2**32 - 1, 3, 2)], 9, 4)[0], expected)


@pytest.mark.parametrize(
    ("shape", "prompt_frames", "cfg_coef"),
    [
        *itertools.product(["t5"], [0, 9], [3.0, 1.0]),
        ("biases", 0, 1.0),
        ("biases", 9, 3.0),
        ("wide", 0, 3.0),
        ("wide", 9, 1.0),
    ],
)
def test_a_row_is_the_same_alone_and_among_twenty(models, shape, prompt_frames, cfg_coef):
    generator = models(shape)
    sampling = Sampling(top_k=20, cfg_coef=cfg_coef)
    prompt = prompt_codes(generator, prompt_frames) if prompt_frames else None
    other = None if prompt is None else prompt.flip(1)
    text, longer = generator.encode_text(TEXT), generator.encode_text("jazz swing piano " * 4)
    longest = generator.encode_text("jazz swing piano " * 40)
    assert text_length(len(longest)) > text_length(len(text)) == text_length(len(longer)) > len(longer)
    crowd = [Row(text, (1, k, 0), prompt) for k in range(12)]
    crowd += [Row(longer, (1, k, 0), other) for k in range(12, 16)]
    crowd += [Row(longest, (1, k, 0), other) for k in range(16, 20)]
    together = generator.engine.decode(crowd, 34, sampling)
    for k in (0, 3, 11, 12, 19):
        assert torch.equal(generator.engine.decode([crowd[k]], 34, sampling)[0], together[k])
    assert torch.equal(generator.engine.decode(crowd[9:14], 34, sampling), together[9:14])
    assert len({row.numpy().tobytes() for row in together}) == 20


def test_twenty_rows_of_the_shipped_model_are_the_same_one_by_one(shipped):
    clock = torch.from_numpy(clock_features(60, 25))
    text = shipped.encode_text(TEXT)
    rows = [Row(text, (9, k, 0), None, clock) for k in range(20)]
    together = shipped.engine.decode(rows, 34, Sampling())
    for k in (0, 7, 19):
        assert torch.equal(shipped.engine.decode([rows[k]], 34, Sampling())[0], together[k])


def without_memory_for_more_than(limit: int, monkeypatch) -> list[int]:
    """Let a lane run out of memory where it has more rows; return how many there were in each try."""
    advance, sizes = Lane.advance, []

    def small_memory(lane):
        sizes.append(len(lane.tasks))
        if len(lane.tasks) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        advance(lane)

    monkeypatch.setattr(Lane, "advance", small_memory)
    return sizes


@pytest.mark.parametrize("limit", [1, 3, 7])
def test_running_out_of_memory_halves_the_slots_with_the_same_result(models, monkeypatch, limit, caplog):
    engine, seen = Engine(models("t5").model), []
    rows = [Row(models("t5").encode_text(TEXT), (0, k, 0)) for k in range(10)]
    whole = engine.decode(rows, 40, Sampling(top_k=20))
    sizes = without_memory_for_more_than(limit, monkeypatch)
    again = engine.decode(rows, 40, Sampling(top_k=20), lambda done, total: seen.append(done))
    assert torch.equal(again, whole)
    assert sizes[0] == 10 and sizes[-1] <= limit
    assert "out of memory with 10 variations at once, going on with 5" in caplog.text
    assert seen == sorted(seen) and seen[-1] == 43


def test_memory_that_runs_out_in_flight_is_given_up_and_the_rows_begin_anew(models, monkeypatch):
    engine = Engine(models("t5").model)
    rows = [Row(models("t5").encode_text(TEXT), (0, k, 0)) for k in range(5)]
    whole = engine.decode(rows, 60, Sampling(top_k=20))
    advance, tries = Lane.advance, []

    def third_round_fails(lane):
        tries.append(len(lane.tasks))
        if len(tries) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        advance(lane)

    monkeypatch.setattr(Lane, "advance", third_round_fails)
    assert torch.equal(engine.decode(rows, 60, Sampling(top_k=20)), whole)


def test_memory_of_idle_lanes_is_given_up_before_the_slots_are_halved(models, monkeypatch):
    monkeypatch.setattr("looper.generation.lane_pool.SHORT_COLUMNS", 96)
    engine, other = Engine(models("t5").model), Engine(models("t5").model)
    rows = [Row(models("t5").encode_text(TEXT), (0, k, 0)) for k in range(6)]
    whole = engine.decode(rows, 20, Sampling(top_k=20))
    engine.decode(rows[:1], 120, Sampling(top_k=20))  # in a lane of longer slots
    other.decode(rows[:1], 20, Sampling(top_k=20))
    assert len(engine.lanes.by_kind) == 2 and other.status().cache_bytes > 0
    advance, sizes = Lane.advance, []

    def small_memory(lane):
        sizes.append(len(lane.tasks))
        if len(engine.lanes.by_kind) > 1 or other.lanes.by_kind:
            raise torch.OutOfMemoryError("CUDA out of memory")
        advance(lane)

    monkeypatch.setattr(Lane, "advance", small_memory)
    assert torch.equal(engine.decode(rows, 20, Sampling(top_k=20)), whole)
    assert sizes[:2] == [6, 6], "as many as before"


@pytest.mark.parametrize(("rows", "limit"), [(3, 3), (1, 1)])
def test_a_single_row_without_memory_waits_until_others_have_left(models, monkeypatch, rows, limit):
    """Other lanes hold it: the row is not too large, and nobody's request is wrong."""
    engine, met = Engine(models("t5").model), threading.Event()
    short, long = (models("t5").encode_text(text) for text in (TEXT, "jazz swing piano " * 40))
    crowd, one = [Row(short, (0, k, 0)) for k in range(rows)], [Row(long, (1, 0, 0))]
    wanted = [engine.decode(given, 60, Sampling(top_k=20)) for given in (crowd, one)]
    advance, tries = Lane.advance, []

    def small_memory(lane):
        tries.append(lane)
        assert len(tries) < 60, "it tries for ever"
        if sum(len(other.tasks) for other in engine.lanes) > limit and len(lane.tasks) == 1:
            met.set()
            raise torch.OutOfMemoryError("CUDA out of memory")
        advance(lane)

    engine.release()
    monkeypatch.setattr(Lane, "advance", small_memory)
    with ThreadPoolExecutor(2) as both:
        got = list(both.map(lambda given: engine.decode(given, 60, Sampling(top_k=20)), (crowd, one)))
    assert met.is_set()
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


def test_running_out_of_memory_with_one_row_is_an_error(models, monkeypatch):
    engine = Engine(models("t5").model)
    row = Row(models("t5").encode_text(TEXT), (0, 0, 0))
    without_memory_for_more_than(0, monkeypatch)
    with pytest.raises(DecodeError, match="out of memory with a single variation"):
        engine.decode([row] * 4, 20, Sampling(top_k=20))
    monkeypatch.undo()
    assert engine.decode([row], 20, Sampling(top_k=20)).shape == (1, 4, 20)


def test_the_slots_are_planned_from_the_free_memory(models, monkeypatch):
    rows = [Row(models("t5").encode_text(TEXT), (0, k, 0)) for k in range(9)]
    whole = models("t5").engine.decode(rows, 20, Sampling(top_k=20))
    engine = Engine(models("t5").model)
    monkeypatch.setattr("looper.generation.lane_pool.free_bytes", lambda device: 6_000_000)
    assert torch.equal(engine.decode(rows, 20, Sampling(top_k=20)), whole)
    ((lane,),) = engine.lanes.by_kind.values()
    assert 1 <= lane.size < 9 and lane.most == lane.size


class Cancelled(BaseException):
    """As Cog's: not an Exception."""


def test_progress_is_told_every_round(models):
    engine, seen = Engine(models("t5").model), []
    rows = [Row(models("t5").encode_text(TEXT), (0, k, 0)) for k in range(3)]
    rows.append(Row(models("t5").encode_text("jazz " * 60), (0, 4, 0)))  # in a lane of its own
    engine.decode(rows, 60, Sampling(top_k=20), lambda done, total: seen.append((done, total)))
    assert seen[0] == (0, 63) and seen[-1] == (63, 63)
    assert seen == sorted(seen)


def many_rows(models) -> list[Row]:
    text, other = models("t5").encode_text(TEXT), models("t5").encode_text("jazz " * 60)
    return [Row(text if k % 3 else other, (0, k, 0)) for k in range(13)]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_share_a_batch_with_the_same_result_and_progress_in_this_thread(models, workers):
    decoder, seen = Engine(models("t5").model, workers=workers), []
    alone = Engine(models("t5").model).decode(many_rows(models), 30, Sampling(top_k=20))

    def note(done, total):
        seen.append((done, total, threading.get_ident()))

    assert torch.equal(decoder.decode(many_rows(models), 30, Sampling(top_k=20), note), alone)
    assert seen == sorted(seen)
    assert seen[-1] == (33, 33, threading.get_ident())
    assert len({row[2] for row in seen}) == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_cancelling_in_flight_leaves_an_engine_that_works(models, workers):
    engine = Engine(models("t5").model, workers=workers)
    before = engine.decode(many_rows(models), 30, Sampling(top_k=20))

    def cancel(done, total):
        if done:
            raise Cancelled

    with pytest.raises(Cancelled):
        engine.decode(many_rows(models), 1000, Sampling(top_k=20), cancel)
    assert torch.equal(engine.decode(many_rows(models), 30, Sampling(top_k=20)), before)
    assert engine.status().rows_running == engine.status().rows_waiting == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_end_the_decoding_with_a_message(tmp_path, value):
    model = load.load(stand_ins.weights(tmp_path / "mini", Shape(num_layers=1)), "cpu")
    model.lm.transformer.layers[0].linear2.weight[0, 0] = value
    generator = Generator(model)
    rows = [Row(generator.encode_text(TEXT), (0, 0, 0))]
    with pytest.raises(DecodeError, match=r"stopped being finite at step 1.*looper weights verify"):
        generator.engine.decode(rows, 30, Sampling(top_k=20))
    model.lm.transformer.layers[0].linear2.weight[0, 0] = 0
    assert generator.engine.decode(rows, 30, Sampling(top_k=20)).max() < 64  # nothing of it is left


@pytest.mark.parametrize(
    ("prompts", "frames", "message"),
    [
        ([], 10, "0 rows"),
        ([10, 10], 10, "leaves nothing to generate in 10 frames"),
        ([12], 10, "leaves nothing"),
    ],
)
def test_rows_that_cannot_be_decoded_are_refused(models, prompts, frames, message):
    generator = models("t5")
    text = generator.encode_text(TEXT)
    rows = [Row(text, (0, 0, 0), prompt_codes(generator, n) if n else None) for n in prompts]
    with pytest.raises(ValueError, match=message):
        generator.engine.decode(rows, frames, Sampling(top_k=20))


def test_unsupported_models_are_named(models):
    lm = models("t5").model.lm
    lm.fuser.cross_attention_pos_emb = True
    try:
        with pytest.raises(ValueError, match="positions in cross-attention"):
            Transformer(lm)
    finally:
        lm.fuser.cross_attention_pos_emb = False


@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize("cfg_coef", [3.0, 1.0])
def test_rows_that_are_done_leave_and_the_others_do_not_notice(models, cfg_coef, few, monkeypatch):
    monkeypatch.setattr("looper.generation.lane.few_shapes", lambda device: few)
    generator, sampling = models("t5"), Sampling(top_k=20, cfg_coef=cfg_coef)
    engine, prompt = Engine(generator.model), prompt_codes(generator, 6)
    text, longer = generator.encode_text(TEXT), generator.encode_text("jazz swing piano " * 4)
    lengths = [50, 9, 33, 50, 20, 33, 7, 30, 8, 7, 12, 7]
    rows = [
        Row(text if k % 2 else longer, (3, k, 0), prompt, None, frames) for k, frames in enumerate(lengths)
    ]
    run, fed = Transformer.run, []

    def watched(self, x, *args):
        fed.append(len(x))
        return run(self, x, *args)

    monkeypatch.setattr(Transformer, "run", watched)
    together = engine.decode(rows, 50, sampling)
    stepped = [batch // 2 for batch in fed[2:]]  # the others are prefills
    assert stepped == sorted(stepped, reverse=True)
    assert stepped[0] == (16 if few else 12) and stepped[-1] == 2
    for k, frames in enumerate(lengths):
        alone = engine.decode([rows[k]], frames, sampling)
        assert torch.equal(together[k, :, :frames], alone[0])
        assert (together[k, :, frames:] == -1).all()


def test_rows_longer_than_the_call_are_refused(models):
    row = Row(models("t5").encode_text(TEXT), (0, 0, 0), frames=11)
    with pytest.raises(ValueError, match="up to 10 frames, got 11"):
        models("t5").engine.decode([row], 10, Sampling(top_k=20))
