"""The figures in the README, each beside a named baseline."""

import looper  # noqa: F401  (it lets audiocraft be imported without PyAV)
