"""How many examples a property is tried on."""

from hypothesis import settings


def examples(usual: int) -> settings:
    """`usual` examples, times what the chosen profile tries for each of Hypothesis's usual 100."""
    return settings(max_examples=usual * settings.default.max_examples // 100)
