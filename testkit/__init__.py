"""Stand-in checkpoints, fakes, a hub and a Cog server, for tests and benches."""

import looper  # noqa: F401  (it lets audiocraft be imported without PyAV)
