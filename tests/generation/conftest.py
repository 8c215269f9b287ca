"""Models are run here through whole passages, and draws counted by the ten thousand: nearly all of it is slow."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent
QUICK = HERE / "test_exact_draws.py"


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents and item.path != QUICK:
            item.add_marker(pytest.mark.slow)
