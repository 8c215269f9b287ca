"""The command line without a process of its own."""

from __future__ import annotations

import io
import logging
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from unittest import mock

from looper.cli.main import main


@dataclass(frozen=True)
class Done:
    """What a command left behind, named as `subprocess.run` names it."""

    returncode: int
    stdout: str
    stderr: str


def run(*words: object) -> Done:
    """Run `looper WORDS...` here: the same function a process would call, on streams that are kept."""
    out, err = io.StringIO(), io.StringIO()
    root = logging.getLogger()
    with (
        mock.patch.object(sys, "argv", ["looper", *map(str, words)]),
        mock.patch.object(root, "handlers", []),  # a fresh process has none, and main() sets one up
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    return Done(code, out.getvalue(), err.getvalue())
