"""The sampler as one kernel: what `looper.generation.sampling.draw` draws, row by row, with guidance and greedy rows.

Nothing is sorted. A number's bits, read as an integer that is ordered as the numbers are, make a key; the key of the
k-th likeliest token, or that at which a mass of p is reached, is found by halving the range of keys 33 times.
"""

import triton
import triton.language as tl

from looper.generation.kernels.programs import await_others, summed

LOWEST = tl.constexpr(-(1 << 33))  # below the key of any float32


@triton.jit
def below_by_count(key, k):
    """The largest threshold that k keys reach."""
    low, high = tl.min(tl.where(key == LOWEST, 1 << 33, key), 0), tl.max(key, 0) + 1
    for _ in range(33):
        middle = (low + high) >> 1
        enough = tl.sum((key >= middle).to(tl.int32), 0) >= k
        low, high = tl.where(enough, middle, low), tl.where(enough, high, middle)
    return low


@triton.jit
def below_by_mass(key, p, most, low):
    """The smallest threshold, above `low`, above which there is no more than a mass of `most`."""
    high = tl.max(key, 0)
    for _ in range(34):
        middle = (low + high) >> 1
        fits = tl.sum(tl.where(key > middle, p, 0.0), 0) <= most
        inside = high - low > 1
        low, high = tl.where(inside & (fits == 0), middle, low), tl.where(inside & fits, middle, high)
    return high


@triton.jit
def largest_below(total):
    """The number before a positive one."""
    return (total.to(tl.int32, bitcast=True) - 1).to(tl.float32, bitcast=True)


@triton.jit
def from_nucleus(key, p, c, u, top_p):
    """Invert the running sum over tokens from the likeliest down, of those that start within a mass of top_p."""
    lowest = tl.min(tl.where(key == LOWEST, 1 << 33, key), 0) - 1
    least = below_by_mass(key, p, top_p, lowest)
    above = tl.sum(tl.where(key > least, p, 0.0), 0)
    alike = tl.sum((key == least).to(tl.int32), 0)
    each = tl.max(tl.where(key == least, p, 0.0), 0)
    kept = tl.minimum(alike, tl.floor((top_p - above) / tl.maximum(each, 1e-30)).to(tl.int32) + 1)
    total = above + kept.to(tl.float32) * each
    reached = tl.minimum(u * total, largest_below(total))
    found = below_by_mass(key, p, reached, least - 1)
    above = tl.sum(tl.where(key > found, p, 0.0), 0)
    each = tl.max(tl.where(key == found, p, 0.0), 0)
    alike = tl.where(found == least, kept, tl.sum((key == found).to(tl.int32), 0))
    place = tl.floor((reached - above) / tl.maximum(each, 1e-30)).to(tl.int32)
    place = tl.minimum(tl.maximum(place, 0), alike - 1)
    rank = tl.cumsum((key == found).to(tl.int32), 0)
    return tl.sum(tl.where((key == found) & (rank == place + 1), c, 0), 0)


@triton.jit
def from_likeliest(key, scaled, u, k):
    """Invert the running sum over the k likeliest tokens, in the tokens' order."""
    kept = key >= below_by_count(key, k)
    weight = tl.where(kept, tl.exp(scaled - tl.max(scaled, 0)), 0.0)
    weight /= tl.sum(weight, 0)
    running = tl.cumsum(weight, 0)
    total = tl.max(running, 0)
    reached = tl.minimum(u * total, largest_below(total))
    return tl.sum((running <= reached).to(tl.int32), 0)


@triton.jit(do_not_specialize=["rows"])
def sample(
    parts,
    uniforms,
    sequence,
    position,
    temperature,
    top_k,
    top_p,
    guidance,
    nucleus,
    greedy,
    check,
    rows,
    length,
    Q: tl.constexpr,
    CARD: tl.constexpr,
    WIDTH: tl.constexpr,
    SPLIT: tl.constexpr,
    PDL: tl.constexpr,
):
    """One program for each row and codebook: guide, draw, and write what of the next column is not given."""
    await_others(PDL)
    row = tl.program_id(0) // Q
    q = tl.program_id(0) % Q
    c = tl.arange(0, WIDTH)
    there = c < CARD
    told = summed(parts, (2 * row * Q + q) * CARD + c, there, 2 * rows, Q * CARD, SPLIT)
    null = summed(parts, ((2 * row + 1) * Q + q) * CARD + c, there, 2 * rows, Q * CARD, SPLIT)
    scale = tl.load(guidance + row)
    x = tl.where(scale == 1.0, told, null + (told - null) * scale)
    # whoever finds a number that is not finite writes the same: no order matters
    total = tl.sum(tl.where(there, x, 0.0), 0)
    tl.store(check + row, float("nan"), mask=(total - total) != 0.0)
    bits = (x + 0.0).to(tl.int32, bitcast=True)
    key = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(tl.int64)  # ordered as the numbers are
    key = tl.where(there, key, LOWEST)
    column = tl.load(position + row) + 1
    u = tl.load(uniforms + (row.to(tl.int64) * length + column) * Q + q)
    if tl.load(greedy + row):
        token = tl.argmax(tl.where(there, x, -float("inf")), 0).to(tl.int32)
    else:
        scaled = tl.where(there, x / tl.load(temperature + row), -float("inf"))
        if tl.load(nucleus + row):
            p = tl.where(there, tl.exp(scaled - tl.max(scaled, 0)), 0.0)
            token = from_nucleus(key, p / tl.sum(p, 0), c, u, tl.load(top_p + row))
        else:
            token = from_likeliest(key, scaled, u, tl.load(top_k + row))
    place = sequence + (row.to(tl.int64) * Q + q) * length + column
    given = tl.load(place)
    drawn = tl.minimum(token, CARD - 1).to(tl.int64)  # what is not finite draws anything, but a token
    tl.store(place, tl.where(given < 0, drawn, given))
