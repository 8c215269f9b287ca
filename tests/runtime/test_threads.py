"""The pool that a request's loops are worked on in."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from looper.runtime.threads import cores, map_in_threads, thread_pool


def blas_threads():
    np.ones((2, 2)) @ np.ones((2, 2))
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_rows_come_back_in_order_from_other_threads():
    with thread_pool() as pool:
        found = list(pool.map(lambda k: (k, threading.get_ident()), range(50)))
    assert [k for k, _ in found] == list(range(50))
    assert threading.get_ident() not in {thread for _, thread in found}
    assert len({thread for _, thread in found}) <= cores()


def test_matrix_products_keep_to_their_thread_inside_and_only_there():
    before = blas_threads()
    with thread_pool() as pool:
        assert set(pool.submit(blas_threads).result()) == {1}
    assert blas_threads() == before


def test_an_error_comes_through_and_what_waits_is_cancelled():
    begun, before = [], blas_threads()
    gate = threading.Event()

    def one(k):
        begun.append(k)
        if k == 0:
            raise ValueError("loop 0 is broken")
        gate.wait(10)

    with pytest.raises(ValueError, match="loop 0"), thread_pool() as pool:
        list(pool.map(one, range(1000)))
    gate.set()
    assert len(begun) < 1000
    assert blas_threads() == before


def test_blas_gets_its_threads_back_after_pools_that_overlap():
    before, first, second = blas_threads(), thread_pool(), thread_pool()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert set(blas_threads()) == {1}
    second.__exit__(None, None, None)
    assert blas_threads() == before


def test_columns_that_are_not_equally_long_are_no_rows():
    with pytest.raises(ValueError, match="shorter"):
        map_in_threads(pow, [2, 3], [3])
