"""Attention on a CPU, bit for bit the same for a row whatever the batch, the threads and the window.

With more than one thread torch's kernel gives a row other bits in each thread's share of the batch; within one
thread it does not: there neither the batch, nor the place in it, nor masked columns after the last one change a
bit, where windows are whole multiples of 16 columns. So each share is computed by one thread, and the shares are
of whole rows.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

WORTH_SHARING = 1 << 21  # products of a query and a key in a call: fewer take less time than waking a thread


def attention_by_rows(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Scaled dot-product attention [rows, heads, time, head_dim]; `mask` is added, a row's or all rows' alike."""
    threads = torch.get_num_threads()
    if threads == 1:
        return F.scaled_dot_product_attention(q, k, v, mask)
    torch.set_num_threads(1)
    try:
        if q.numel() * k.shape[2] < WORTH_SHARING or len(q) == 1:
            return F.scaled_dot_product_attention(q, k, v, mask)
        return _shared(q, k, v, mask, threads)
    finally:
        torch.set_num_threads(threads)


def _shared(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, threads: int) -> Tensor:
    size = -(-len(q) // threads)
    masks = mask.split(size) if mask.dim() == 4 and len(mask) == len(q) else [mask] * threads
    shares = list(zip(q.split(size), k.split(size), v.split(size), masks, strict=False))
    futures = [_helpers(threads - 1).submit(_one_share, *share) for share in shares[1:]]
    first = F.scaled_dot_product_attention(*shares[0])
    return torch.cat([first, *(future.result() for future in futures)])


@torch.inference_mode()
def _one_share(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    torch.set_num_threads(1)  # of this thread
    return F.scaled_dot_product_attention(q, k, v, mask)


@cache
def _helpers(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="attention")
