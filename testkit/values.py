"""Values that nobody should send, for searches."""

from __future__ import annotations

from hypothesis import strategies as st

EDGES = (
    0,
    -0.0,
    1,
    -1,
    1e-320,
    1e308,
    -1e308,
    2**31,
    2**32,
    2**63,
    2**64,
    10**400,
    float("inf"),
    float("nan"),
)

NUMBERS = st.sampled_from(EDGES) | st.integers() | st.floats()
PLAIN = st.none() | st.booleans() | NUMBERS | st.text(max_size=50)
ANYTHING = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)
"""What JSON or YAML may hold."""
