"""`python -m looper.service.drain`: wait until no prediction is under way, before a container is stopped.

For Kubernetes' preStop: predictions that are awaited over a webhook do not survive SIGTERM. Ends with 0 when
the service has been idle for a moment, and when there is nothing to ask; the grace period bounds it.
"""

from __future__ import annotations

import sys
import time
import urllib.error
import urllib.request

from looper.service.probes import port

QUIET_SECONDS = 5.0  # as long as a balancer may need to hear that no more shall be sent
POLL_SECONDS = 0.5


def drained(number: int) -> bool:
    """Ask once; nobody there is as good as idle."""
    nobody = urllib.request.ProxyHandler({})  # what the environment says of proxies is not for loopback
    try:
        with urllib.request.build_opener(nobody).open(f"http://127.0.0.1:{number}/idle", timeout=5):
            return True
    except urllib.error.HTTPError:
        return False
    except OSError:
        return True


def wait_until_drained(number: int, quiet: float = QUIET_SECONDS, poll: float = POLL_SECONDS) -> None:
    """Return when the service has been idle for `quiet` seconds without a break."""
    since = time.monotonic()
    while time.monotonic() - since < quiet:
        time.sleep(poll)
        if not drained(number):
            since = time.monotonic()


def main() -> int:
    """Wait; without a port of metrics there is nothing to ask."""
    number = port()
    if number is not None:
        wait_until_drained(number)
    return 0


if __name__ == "__main__":
    sys.exit(main())
