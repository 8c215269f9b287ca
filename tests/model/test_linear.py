"""What makes a row of a product, and of attention, independent of its neighbours and of its place."""

from __future__ import annotations

import itertools
from functools import cache

import pytest
import torch

from looper.model import linear
from looper.model.transformer import attend

pytestmark = pytest.mark.usefixtures("one_thread")


LINEAR_SHAPES = {
    "tiny's": [(480, 160), (640, 160), (160, 640), (2048, 160)],
    "dim 512's": [(1536, 512), (512, 512), (512, 2048), (8192, 512)],
    "odd": [(40, 30), (1024, 256), (2400, 100)],
}


EVERY_WAY = list(itertools.product(LINEAR_SHAPES, (True, False), (True, False), (1, 2)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shapes", "biased", "packing", "threads"),
    # wide products with a bias are shared among threads as those without, and the smaller ones with one
    [way for way in EVERY_WAY if (way[0], way[1], way[3]) != ("dim 512's", True, 2)],
)
def test_a_row_of_a_product_is_the_same_at_every_place_of_every_batch(shapes, biased, packing, threads):
    torch.set_num_threads(threads)
    random = torch.Generator().manual_seed(5)
    for n_out, n_in in LINEAR_SHAPES[shapes]:
        weight, x = torch.randn(n_out, n_in, generator=random), torch.randn(24, n_in, generator=random)
        layer = linear.BatchInvariantLinear(
            weight, torch.randn(n_out, generator=random) if biased else None, None, packing
        )
        alone = torch.cat([layer(row[None]) for row in x])
        expected = x @ weight.T + (layer.bias if biased else 0)
        torch.testing.assert_close(alone, expected, atol=1e-3, rtol=1e-4)
        for rows in (2, 3, 7, 8, 20, 31, 64, 70):
            for order in (torch.full((rows,), 6), torch.arange(rows).flip(0) % len(x)):
                assert torch.equal(layer(x[order]), alone[order]), (n_out, n_in, rows, order[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("tile", [None, 8])
@pytest.mark.parametrize("rows", [1, 7, 8, 9, 70])
def test_a_product_is_the_matrix_product_with_or_without_bias_and_tile(rows, tile, biased, dtype):
    random = torch.Generator().manual_seed(rows)
    weight, bias = torch.randn(40, 30, generator=random), torch.randn(40, generator=random)
    shared = {}
    layers = [
        linear.BatchInvariantLinear(weight, bias if biased else None, tile, buffers=shared) for _ in "ab"
    ]
    assert len(shared) == (tile is not None) and (tile is None or layers[0].buffer is layers[1].buffer)
    for layer in layers:
        x = torch.randn(rows, 30, generator=random, dtype=dtype)
        found = layer(x)
        assert found.shape == (rows, 40) and found.dtype == torch.float32
        torch.testing.assert_close(found, x.float() @ weight.T + (bias if biased else 0))


@pytest.mark.parametrize("odd", ["place", "count", "everything"])
def test_a_product_that_treats_some_rows_otherwise_is_found_out_and_gone_round(odd, monkeypatch):
    """As oneDNN's: a kernel of six rows and a rest of two, in tiles of 8."""

    def multiply(x, weight, packed, bias):
        product = x @ weight.T
        if odd == "place":
            product[6::8] += 1e-3
            product[7::8] += 1e-3
        if odd == "count" and len(x) % 6 not in (0, 4, 5):
            product[-2:] += 1e-3
        if odd == "everything":
            product += 1e-3 * torch.arange(len(x))[:, None]
        return product

    monkeypatch.setattr(linear, "multiply", multiply)
    linear.padded_counts.cache_clear()
    try:
        layer, x = linear.BatchInvariantLinear(torch.randn(40, 30), None), torch.randn(41, 30)
        alone = torch.cat([layer(row[None]) for row in x])
        assert torch.equal(layer(x), alone) and torch.equal(layer(x.flip(0)), alone.flip(0))
        counts = linear.padded_counts(40, 30, 1, False, False)
        assert len(counts) - 1 == {"place": 4, "count": 64, "everything": 1}[odd]
        if odd == "count":
            assert counts[:13] == (0, 4, 4, 4, 4, 5, 6, 10, 10, 10, 10, 11, 12)
    finally:
        linear.padded_counts.cache_clear()


@pytest.fixture
def fresh_counts():
    """No counts of a CPU that a test makes up are left to others."""
    linear.padded_counts.cache_clear()
    yield
    linear.padded_counts.cache_clear()


@pytest.mark.usefixtures("fresh_counts")
@pytest.mark.parametrize(
    ("alike", "most"),
    [(1, 1), (2, 2), (3, 2), (4, 4), (7, 4), (8, 8), (16, 16), (31, 16), (32, 32), (63, 32), (64, 64)],
)
def test_only_as_many_rows_are_multiplied_at_once_as_come_out_alike(alike, most, monkeypatch):
    def multiply(x, weight, packed, bias):
        product = x[:, :1] * weight[:, 0]  # alike on every CPU
        product[alike:] += 1e-3
        return product

    monkeypatch.setattr(linear, "multiply", multiply)
    assert linear.padded_counts(6, 5, 1, False, False) == tuple(range(most + 1))


@pytest.mark.usefixtures("fresh_counts")
@pytest.mark.parametrize("count", [1, 3, 8, 63, 64])
def test_a_number_of_rows_with_a_kernel_of_its_own_is_padded_to_the_next(count, monkeypatch):
    """Its rows come out alike, and other than in every other number."""

    def multiply(x, weight, packed, bias):
        return x[:, :1] * weight[:, 0] + 1e-3 * (len(x) == count)

    monkeypatch.setattr(linear, "multiply", multiply)
    found = linear.padded_counts(6, 5, 1, False, False)
    assert found == tuple(64 if count == 64 and m else m + (m == count) for m in range(65))


@pytest.mark.usefixtures("fresh_counts")
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("packed", [True, False])
def test_products_are_tried_as_they_will_be_made(packed, biased, monkeypatch):
    tried = set()

    def multiply(x, weight, ready, bias):
        assert weight.shape == (400, 500) and (bias is None or bias.shape == (400,))
        tried.add((ready is not None, bias is not None))
        return x[:, :1] * weight[:, 0]

    monkeypatch.setattr(linear, "multiply", multiply)
    monkeypatch.setattr(linear, "pack", lambda weight: weight)
    linear.padded_counts(400, 500, 1, packed, biased)
    assert tried == {(packed, biased)}


@pytest.mark.usefixtures("fresh_counts")
@pytest.mark.parametrize("odd", [0, 1, 2])
def test_a_single_row_that_comes_out_otherwise_is_enough(odd, monkeypatch):
    seen = []

    def multiply(x, weight, packed, bias):
        if not any(torch.equal(x[0], row) for row in seen):
            seen.append(x[0].clone())
        product = x[:, :1] * weight[:, 0]
        product[1:] += 1e-3 * (len(seen) > odd and torch.equal(x[0], seen[odd]))
        return product

    monkeypatch.setattr(linear, "multiply", multiply)
    assert linear.padded_counts(6, 5, 1, False, False) == (0, 1)


@pytest.mark.parametrize(
    ("rows", "dtype", "multiplied"),
    [
        (1, torch.float32, 8),
        (7, torch.float64, 8),
        (8, torch.float32, 8),
        (8, torch.float64, 8),
        (9, torch.float32, 9),
        (70, torch.float64, 70),
    ],
)
def test_up_to_a_tile_there_are_always_as_many_rows(rows, dtype, multiplied, monkeypatch):
    shapes = []
    real = linear.multiply
    monkeypatch.setattr(linear, "multiply", lambda x, *rest: shapes.append(tuple(x.shape)) or real(x, *rest))
    layer = linear.BatchInvariantLinear(torch.randn(3, 5), None, 8)
    x = torch.randn(rows, 5, dtype=dtype)
    torch.testing.assert_close(layer(x), x.float() @ layer.weight.T)
    assert shapes == [(multiplied, 5)] and layer.padded(x).shape == (multiplied, 3)
    assert layer.packed is None and layer.buffer.shape == (8, 5)


@pytest.mark.parametrize(
    ("shape", "dtype", "device", "taken"),
    [
        ((400, 500), torch.float32, "cpu", True),
        ((199_999, 1), torch.float32, "cpu", False),
        ((400, 500), torch.float64, "cpu", False),
        ((400, 500), torch.bfloat16, "cpu", False),
        ((400, 500), torch.float32, "meta", False),
    ],
)
def test_large_float32_weights_on_a_cpu_are_packed(shape, dtype, device, taken):
    packed = linear.pack(torch.ones(shape, dtype=dtype, device=device))
    assert (packed is not None) == (taken and torch.backends.mkldnn.is_available())


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="needs oneDNN")
@pytest.mark.parametrize("biased", [True, False])
def test_a_packed_weight_gives_the_matrix_product(biased):
    random = torch.Generator().manual_seed(1)
    weight, x = torch.randn(400, 500, generator=random), torch.randn(7, 500, generator=random)
    bias = torch.randn(400, generator=random) if biased else None
    found = linear.multiply(x, weight, linear.pack(weight), bias)
    torch.testing.assert_close(found, x @ weight.T + (bias if biased else 0), atol=1e-3, rtol=1e-4)


NINE, FEW = (0, 8, 8, 8, 8, 8, 8, 8, 8), (0, 1, 9, 9, 9, 9, 9, 9, 9, 9)


@pytest.mark.parametrize(
    ("counts", "taken"),
    [(NINE, True), (FEW, True), (NINE[:8], False), ((0, 9, 9, 9, 9, 9, 9, 9, 9, 9), False), ((0, 1), False)],
)
@pytest.mark.parametrize("biased", [True, False])
def test_a_packed_weight_is_taken_where_it_serves_a_few_rows(counts, taken, biased, monkeypatch):
    asked, plain = [], (0, 1, 2)

    def padded_counts(*what):
        asked.append(what)
        return counts if what[3] else plain

    monkeypatch.setattr(linear, "padded_counts", padded_counts)
    monkeypatch.setattr(linear, "pack", lambda weight: weight.clone())
    bias = torch.zeros(6) if biased else None
    layer = linear.BatchInvariantLinear(torch.ones(6, 5), bias)
    assert (layer.packed is not None) == taken and layer.counts == (counts if taken else plain)
    assert asked == [(6, 5, 1, True, biased), (6, 5, 1, False, biased)][: 1 if taken else 2]
    unpacked = linear.BatchInvariantLinear(torch.ones(6, 5), bias, packing=False)
    assert unpacked.packed is None and asked[-1] == (6, 5, 1, False, biased)


@cache
def attended_to(heads: int, head_dim: int) -> tuple[torch.Tensor, ...]:
    """Queries, keys and values of 40 rows."""
    random = torch.Generator().manual_seed(1)
    q = torch.randn(40, heads, 1, head_dim, generator=random)
    return q, *torch.randn(2, 40, heads, 1504, head_dim, generator=random)


@pytest.mark.slow
@pytest.mark.parametrize(("heads", "head_dim"), [(4, 8), (8, 64), (5, 32)])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_attention_of_a_row_depends_on_neither_batch_nor_place_nor_window(heads, head_dim, threads):
    torch.set_num_threads(threads)
    q, k, v = attended_to(heads, head_dim)
    for last in (0, 17, 100, 513, 1490):

        def attended(rows, length, last=last):
            mask = torch.where(torch.arange(length) <= last, 0.0, -torch.inf).expand(len(rows), 1, 1, length)
            return attend(q[rows], k[rows, :, :length], v[rows, :, :length], mask)

        own = last // 16 * 16 + 16  # windows are whole sixteens: a register of AVX-512
        whole = attended(list(range(40)), own)
        for rows, length in (([7], 1504), ([3, 7, 4], own), (list(range(39, -1, -1)), own + 64)):
            assert torch.equal(attended(rows, min(1504, length)), whole[rows])
