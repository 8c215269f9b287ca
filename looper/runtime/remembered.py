"""The last few results of costly work."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Remembered(Generic[T]):
    """Results by a key, the `most` that were asked for last; from any thread.

    What two threads ask for at once before it is made, both make.

    Examples
    --------
    >>> lengths = Remembered[int](most=2)
    >>> [lengths.get(word, lambda: len(word)) for word in ("beat", "bar", "beat")]
    [4, 3, 4]
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._results: OrderedDict[Hashable, T] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The result of a key, made where it is not remembered; what `make` raises is not."""
        with self._lock:
            if key in self._results:
                self._results.move_to_end(key)
                return self._results[key]
        made = make()
        with self._lock:
            kept = self._results.setdefault(key, made)
            self._results.move_to_end(key)
            while len(self._results) > self.most:
                self._results.popitem(last=False)
        return kept

    def clear(self) -> None:
        """Forget all of them."""
        with self._lock:
            self._results.clear()
