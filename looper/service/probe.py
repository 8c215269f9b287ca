"""Ask this container's own probes, where an orchestrator can run a command but not ask another port.

    python -m looper.service.probe ready      exit code 0 if `GET /ready` says so, else 1; so for live and idle
    python -m looper.service.probe drained    waits until no prediction is under way: Kubernetes' preStop

Predictions that are awaited over a webhook do not survive SIGTERM, which comes after preStop. Where there is no
port of metrics, or nobody answers there any more, nothing is waited for.
"""

from __future__ import annotations

import sys
import time
import urllib.error
import urllib.request
from enum import Enum

from looper.service.probes import port

WORDS = ("live", "ready", "idle", "drained")
QUIET_SECONDS = 5.0  # as long as a balancer may need to hear that no more shall be sent
POLL_SECONDS = 0.5


class Answer(Enum):
    """What came of asking."""

    YES = "yes"
    NO = "no"
    NOBODY = "nobody"


def ask(number: int, path: str) -> Answer:
    """Ask a path of the probes on this machine's port `number`."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy leads to loopback
    try:
        with direct.open(f"http://127.0.0.1:{number}{path}", timeout=5):
            return Answer.YES
    except urllib.error.HTTPError:
        return Answer.NO
    except OSError:
        return Answer.NOBODY


def wait_until_drained(number: int, quiet: float = QUIET_SECONDS, poll: float = POLL_SECONDS) -> None:
    """Return when nothing has been under way for `quiet` seconds without a break."""
    since = time.monotonic()
    while time.monotonic() - since < quiet:
        time.sleep(poll)
        if ask(number, "/idle") is Answer.NO:
            since = time.monotonic()


def main(words: list[str]) -> int:
    """Answer one word; see the module."""
    if len(words) != 1 or words[0] not in WORDS:
        print(f"say one of {', '.join(WORDS)}", file=sys.stderr)
        return 2
    number = port()
    if words == ["drained"]:
        if number is not None:
            wait_until_drained(number)
        return 0
    return 0 if number is not None and ask(number, f"/{words[0]}") is Answer.YES else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
