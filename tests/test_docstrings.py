"""Every public name shows its use, and what it shows is true."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
from pathlib import Path

import pytest

import looper
from looper.runtime import paths

ROOMS = (
    "request.py",
    "samples.py",
    "beats/grid.py",
    "files/*.py",
    "loops/*.py",
)  # where nothing waits for a model
SLOW = {"looper.pipeline.maker"}  # makes a loop with weights/tiny


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(paths.PROJECT).with_suffix("").parts)


SHOWN = [name_of(path) for path in sorted(paths.PACKAGE.rglob("*.py")) if ">>> " in path.read_text()]
PURE = [path for room in ROOMS for path in sorted(paths.PACKAGE.glob(room))]


def functions(path: Path) -> list[ast.FunctionDef]:
    return [
        node
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    ]


@pytest.mark.parametrize("name", looper.__all__)
def test_every_public_name_has_an_example(name):
    assert ">>> " in (inspect.getdoc(getattr(looper, name)) or "")


@pytest.mark.parametrize("path", PURE, ids=name_of)
def test_every_public_function_that_needs_no_model_has_an_example(path):
    assert [f.name for f in functions(path) if ">>> " not in (ast.get_docstring(f) or "")] == []


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in SHOWN])
def test_what_the_examples_show_is_so(name):
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    found = doctest.testmod(importlib.import_module(name), optionflags=options)
    assert found.attempted > 0 and found.failed == 0
