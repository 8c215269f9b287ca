"""The command line's entry point: runs `looper.cli.commands` and turns what goes wrong into one sentence and an exit code."""

from __future__ import annotations

import os
import sys

INTERRUPTED = 130  # what shells say of Ctrl-C


def main() -> None:
    """Run the command line; errors become one sentence on stderr and exit code 1, wrong usage 2, Ctrl-C 130."""
    try:
        _run()
    except KeyboardInterrupt:  # while modules are imported; in a command, typer sees to it
        raise SystemExit(INTERRUPTED) from None


def _run() -> None:
    import logging

    from looper.cli.commands import app
    from looper.cli.options import named_as_option
    from looper.cli.output import err
    from looper.files.text import displayable
    from looper.runtime.validation import FieldError

    for stream in (sys.stdout, sys.stderr):  # a name that the terminal cannot show stops nothing
        if hasattr(stream, "reconfigure"):  # a notebook's need not be a file
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        app()
    except (ValueError, RuntimeError, OSError, ModuleNotFoundError, MemoryError) as error:
        if isinstance(error, FieldError):
            error = named_as_option(error)
        # a file's name may hold what moves a terminal's cursor
        words = "\n".join(map(displayable, _words(error).split("\n")))
        err.print(f"looper: {words}", markup=False, style="red")
        raise SystemExit(1) from None


def _words(error: Exception) -> str:
    """What `error` says, without the number that Python puts before the system's errors."""
    if isinstance(error, MemoryError):
        return "out of memory: ask for fewer or shorter loops, or cut the recording first"
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    said = error.strerror or os.strerror(error.errno)
    return said if error.filename is None else f"{error.filename}: {said}"


if __name__ == "__main__":
    main()
