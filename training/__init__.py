"""How weights/tiny and the beat grid's scorer were made."""

import looper  # noqa: F401  (it lets audiocraft be imported without PyAV)
