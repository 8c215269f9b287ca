from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest


def triton_is_here() -> str | None:
    """What is missing to run and compile kernels, in words."""
    spec = importlib.util.find_spec("triton")
    if spec is None:
        return "Triton is not installed"
    tools = Path(str(spec.origin)).parent / "backends/nvidia/bin"
    missing = [name for name in ("ptxas", "cuobjdump", "nvdisasm") if not (tools / name).exists()]
    return f"Triton came without {', '.join(missing)}" if missing else None


@pytest.fixture(scope="session")
def triton_here() -> None:
    """Skips where the kernels can't be tried; but not where that would go unnoticed."""
    missing = triton_is_here()
    if missing is not None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(missing)
