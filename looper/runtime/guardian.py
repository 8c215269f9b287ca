"""Runs a command that must not outlive the process that asked for it, however that one ends.

Started as `python guardian.py COMMAND ...` in a session of its own, with the reading end of a pipe as its standard
input: the pipe closes when the asking process ends, be it by SIGKILL, and then the whole process group goes. The
standard library alone, so that it starts at once.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

STOP_SECONDS = 10
NOT_STARTED = 126  # as shells say it


def main(command: list[str]) -> int:
    """Run `command` until it ends or the pipe closes; returns its exit code, 128 and the signal's number if killed."""
    orphaned = threading.Event()
    try:
        # what we were given is handed on: files without a name are written through it
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, close_fds=False)
    except OSError:
        return NOT_STARTED
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    threading.Thread(target=_wait_for_the_end, args=(orphaned, child), daemon=True).start()
    code = child.wait()
    if orphaned.is_set():
        os.killpg(0, signal.SIGKILL)  # what the command started and left behind, and this process
    return code if code >= 0 else 128 - code


def _wait_for_the_end(orphaned: threading.Event, child: subprocess.Popen[bytes]) -> None:
    while os.read(0, 4096):  # not sys.stdin, whose lock nobody may hold when Python ends
        pass
    orphaned.set()
    child.terminate()
    try:
        child.wait(STOP_SECONDS)
    finally:
        os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
