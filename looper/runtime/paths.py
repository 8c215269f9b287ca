"""Where the project's own files lie."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
CHECKOUT = PACKAGE.parent
WEIGHTS = CHECKOUT / "weights"
PAGE = PACKAGE / "web" / "page"
