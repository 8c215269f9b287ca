"""All but the sampling's tests run models through whole passages, which is slow."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent
QUICK = {"test_sampling.py"}


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents and item.path.name not in QUICK:
            item.add_marker(pytest.mark.slow)
