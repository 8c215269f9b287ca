"""How many examples a property is tried on, and where counterexamples are kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hypothesis import seed, settings
from hypothesis.database import DirectoryBasedExampleDatabase

FOUND = Path(__file__).parents[1] / "tests" / "fuzz" / "found"
"""Counterexamples that a search found: every later run tries them first."""


def examples(usual: int) -> settings:
    """`usual` examples, times what the chosen profile tries for each of Hypothesis's usual 100."""
    return settings(max_examples=usual * settings.default.max_examples // 100)


def fuzzed(usual: int) -> Callable:
    """`examples` that begin with the cases in `FOUND`; the same ones each time unless the profile searches."""
    chosen = settings(
        examples(usual), derandomize=False, database=DirectoryBasedExampleDatabase(FOUND), deadline=None
    )

    def decorate(test: Callable) -> Callable:
        test = chosen(test)
        return seed(0)(test) if settings.default.derandomize else test

    return decorate
