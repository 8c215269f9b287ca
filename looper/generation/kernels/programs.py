"""The kernels: what runs on the card, in Triton's language.

What makes a row's bits its own: no atomics, sums in a fixed order, and one compiled kernel whatever the number of rows
(`rows` alone is a value at run time, which Triton must not compile for). Products take a fixed tile of rows, of which
those that are not there are zeros.

Partial sums `[split, rows, n]` are added up by the kernel that reads them, from the first to the last. With `PDL` a
kernel may be launched before the one that it depends on has ended: it waits before it reads anything.
"""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def await_others(PDL: tl.constexpr):
    if PDL:
        gdc_wait()
        gdc_launch_dependents()


@triton.jit(do_not_specialize=["rows"])
def summed(parts, at, there, rows, N: tl.constexpr, SPLIT: tl.constexpr):
    """Partial sums at some places of a row's N, added from the first to the last."""
    total = tl.load(parts + at, mask=there, other=0.0)
    for part in tl.static_range(1, SPLIT):
        total += tl.load(parts + part * rows * N + at, mask=there, other=0.0)
    return total


@triton.jit
def embed(
    sequence,
    table,
    positions,
    clock,
    position,
    out,
    length,
    columns,
    Q: tl.constexpr,
    CARD: tl.constexpr,
    DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    CLOCKED: tl.constexpr,
    PDL: tl.constexpr,
):
    """One program a row: its column's codebooks, position and clock, written for both halves."""
    await_others(PDL)
    row = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, WIDTH)
    there = d < DIM
    at = tl.load(position + row)
    x = tl.zeros((WIDTH,), tl.float32)
    for q in tl.static_range(Q):
        token = tl.load(sequence + (row * Q + q) * length + at) + q * (CARD + 1)
        x += tl.load(table + token * DIM + d, mask=there, other=0.0)
    x += tl.load(positions + at * DIM + d, mask=there, other=0.0)
    if CLOCKED:
        x += tl.load(clock + (row * columns + at) * DIM + d, mask=there, other=0.0)
    tl.store(out + 2 * row * DIM + d, x, mask=there)
    tl.store(out + (2 * row + 1) * DIM + d, x, mask=there)


@triton.jit(do_not_specialize=["rows"])
def add_norm(
    x,
    parts,
    weight,
    bias,
    out,
    rows,
    eps,
    DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    SPLIT: tl.constexpr,
    EVERY: tl.constexpr,
    PDL: tl.constexpr,
):
    """One program a row: x += its partial sums, which only every EVERY-th row has; out = layer norm of x."""
    await_others(PDL)
    row = tl.program_id(0)
    d = tl.arange(0, WIDTH)
    there = d < DIM
    value = tl.load(x + row * DIM + d, mask=there, other=0.0)
    if SPLIT:
        adds = there & (row % EVERY == 0)
        value += summed(parts, row // EVERY * DIM + d, adds, rows // EVERY, DIM, SPLIT)
        tl.store(x + row * DIM + d, value, mask=there)
    mean = tl.sum(value, 0) / DIM
    centred = tl.where(there, value - mean, 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(centred * centred, 0) / DIM + eps)
    normed = centred * scale * tl.load(weight + d, mask=there, other=0.0)
    normed += tl.load(bias + d, mask=there, other=0.0)
    tl.store(out + row * DIM + d, normed.to(out.dtype.element_ty), mask=there)


@triton.jit(do_not_specialize=["rows"])
def product(
    x,
    weight,
    out,
    rows,
    STRIDE: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
    SPLIT: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    TILE: tl.constexpr,
    GELU: tl.constexpr,
    PDL: tl.constexpr,
):
    """x [rows, K] times weight [N, K]: one program for BLOCK_N outputs of all rows over one part of K."""
    await_others(PDL)
    part = tl.program_id(1)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    r = tl.arange(0, TILE)
    k = part * (K // SPLIT) + tl.arange(0, BLOCK_K)
    weights = weight + n[:, None] * K + k[None, :]
    inputs = x + r[None, :] * STRIDE + k[:, None]
    total = tl.zeros((BLOCK_N, TILE), tl.float32)
    for start in range(0, K // SPLIT, BLOCK_K):
        w = tl.load(weights + start)
        a = tl.load(inputs + start, mask=r[None, :] < rows, other=0.0)
        total = tl.dot(w, a, total, input_precision="ieee")
    if GELU:
        total = 0.5 * total * (1.0 + tl.erf(total * 0.7071067811865476))
    places = out + part * rows * N + r[None, :] * N + n[:, None]
    tl.store(places, total.to(out.dtype.element_ty), mask=r[None, :] < rows)


@triton.jit
def attended(q, k, v, seen, top, weight, mixed):
    """Take a chunk of keys and values into a softmax that is under way."""
    score = tl.where(seen, tl.sum(k * q[None, :], 1), -float("inf"))
    higher = tl.maximum(top, tl.max(score, 0))
    before = tl.exp(top - higher)
    share = tl.exp(score - higher)
    return higher, weight * before + tl.sum(share, 0), mixed * before + tl.sum(share[:, None] * v, 0)


@triton.jit(do_not_specialize=["rows"])
def self_attention(
    parts,
    cache,
    position,
    out,
    rows,
    columns,
    scale,
    H: tl.constexpr,
    D: tl.constexpr,
    SPLIT: tl.constexpr,
    CHUNK: tl.constexpr,
    PDL: tl.constexpr,
):
    """One program for each half of a row and head: writes this column's key and value, looks at the row's own columns."""
    await_others(PDL)
    row = tl.program_id(0) // H
    h = tl.program_id(0) % H
    t = tl.load(position + row // 2).to(tl.int32)
    d = tl.arange(0, D)
    kind = cache.dtype.element_ty
    own = row * 3 * H * D + h * D + d
    q = summed(parts, own, d < D, rows, 3 * H * D, SPLIT).to(kind).to(tl.float32) * scale
    new_k = summed(parts, own + H * D, d < D, rows, 3 * H * D, SPLIT).to(kind)
    new_v = summed(parts, own + 2 * H * D, d < D, rows, 3 * H * D, SPLIT).to(kind)
    keys = cache + (row.to(tl.int64) * 2 * H + h) * columns * D
    values = keys + H * columns * D
    tl.store(keys + t * D + d, new_k)
    tl.store(values + t * D + d, new_v)
    top, weight, mixed = -float("inf"), 0.0, tl.zeros((D,), tl.float32)
    for start in tl.range(0, t + 1, CHUNK, num_stages=2):
        j = start + tl.arange(0, CHUNK)
        places, known = j[:, None] * D + d[None, :], j[:, None] < t
        # this column's own do not come through memory: nothing has to be waited for
        k = tl.where(j[:, None] == t, new_k[None, :], tl.load(keys + places, mask=known, other=0.0))
        v = tl.where(j[:, None] == t, new_v[None, :], tl.load(values + places, mask=known, other=0.0))
        top, weight, mixed = attended(q, k.to(tl.float32), v.to(tl.float32), j <= t, top, weight, mixed)
    tl.store(out + row * H * D + h * D + d, (mixed / weight).to(out.dtype.element_ty))


@triton.jit(do_not_specialize=["rows"])
def cross_attention(
    parts,
    text,
    lengths,
    out,
    rows,
    room,
    stride,
    scale,
    H: tl.constexpr,
    D: tl.constexpr,
    SPLIT: tl.constexpr,
    CHUNK: tl.constexpr,
    PDL: tl.constexpr,
):
    """One program for each row and head: looks at the row's own text, as long as that is."""
    await_others(PDL)
    row = tl.program_id(0) // H
    h = tl.program_id(0) % H
    length = tl.load(lengths + row).to(tl.int32)
    d = tl.arange(0, D)
    q = summed(parts, row * H * D + h * D + d, d < D, rows, H * D, SPLIT)
    q = q.to(text.dtype.element_ty).to(tl.float32) * scale
    keys = text + row.to(tl.int64) * stride + h * room * D
    values = keys + H * room * D
    top, weight, mixed = -float("inf"), 0.0, tl.zeros((D,), tl.float32)
    for start in range(0, length, CHUNK):
        j = start + tl.arange(0, CHUNK)
        places, known = j[:, None] * D + d[None, :], j[:, None] < length
        k = tl.load(keys + places, mask=known, other=0.0).to(tl.float32)
        v = tl.load(values + places, mask=known, other=0.0).to(tl.float32)
        top, weight, mixed = attended(q, k, v, j < length, top, weight, mixed)
    # an empty slot has no text; what comes of it is nobody's, but must be a number
    mixed = tl.where(weight > 0, mixed / weight, 0.0)
    tl.store(out + row * H * D + h * D + d, mixed.to(out.dtype.element_ty))
