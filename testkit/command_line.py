"""The command line, in a process of its own and without one."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any
from unittest import mock

from looper.cli.main import main


@dataclass(frozen=True)
class Done:
    """What a command left behind, named as `subprocess.run` names it."""

    returncode: int
    stdout: str
    stderr: str


def process(*words: object, **how: Any) -> subprocess.CompletedProcess[str]:
    """Run `python -m looper WORDS...`; `how` goes to `subprocess.run`."""
    command = [sys.executable, "-m", "looper", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, **how)


def run(*words: object, text: str = "") -> Done:
    """Run `looper WORDS...` here: the same function a process would call, on streams that are kept.

    `text` is what it finds on its standard input.
    """
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in "12")
    root = logging.getLogger()
    with (
        mock.patch.object(sys, "argv", ["looper", *map(str, words)]),
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8")),
        mock.patch.object(root, "handlers", []),  # a fresh process has none, and main() sets one up
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    return Done(code, *(stream.buffer.getvalue().decode() for stream in (out, err)))
