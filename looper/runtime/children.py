"""Programs that we start and wait for: none outlives us, whatever ends us."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import IO

from looper.runtime import guardian


def guarded(command: Sequence[str]) -> list[str]:
    """`command` under a guardian, to be started in a session of its own with a pipe as its standard input.

    The pipe closes when this process ends, be it by SIGKILL, and then the guardian ends the command.
    """
    return [sys.executable, "-I", guardian.__file__, *command]


def run(command: Sequence[str], said: IO[bytes], seconds: float, files: Sequence[int] = ()) -> int:
    """Run a program without input or output and return its exit code.

    Parameters
    ----------
    command : sequence of str
    said : file
        Takes what it says on stderr.
    seconds : float
        After which it is killed.
    files : sequence of int
        Open files that it finds as ``/dev/fd/<number>``.

    Raises
    ------
    subprocess.TimeoutExpired
        If it was still running then.
    OSError
        If it cannot be started.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryFile() as said:
    ...     run(["/bin/sh", "-c", "exit 3"], said, 60)
    3
    """
    child = subprocess.Popen(
        guarded(command),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=said,
        start_new_session=True,
        pass_fds=files,
    )
    try:
        code = child.wait(seconds)
    finally:  # an interrupt too
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        assert child.stdin is not None
        child.stdin.close()
    if code == guardian.NOT_STARTED:
        raise OSError(None, "it is no program for this machine, or may not be run")
    return code
