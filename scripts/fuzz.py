"""Search for counterexamples longer than the suite does: `make fuzz MINUTES=60`.

Each round runs the files of tests/fuzz, one after the other, with three times as many examples as the suite, and
others. What fails is kept in
tests/fuzz/found and tried first by every later run, `make test` among them: commit it with the mend.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
TARGETS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests" / "fuzz").glob("test_*.py"))
REPORT = ROOT / ".cache" / "fuzz.xml"


@dataclass
class Tally:
    """Seconds and failures by target, over all rounds."""

    rounds: int = 0
    seconds: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)

    def add(self, report: Path) -> None:
        """Count one round."""
        self.rounds += 1
        for case in ElementTree.parse(report).iter("testcase"):
            name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name', '').partition('[')[0]}"
            self.seconds[name] += float(case.get("time", 0))
            self.failed[name] += case.find("failure") is not None or case.find("error") is not None

    def tell(self) -> None:
        """Print what was tried and what was found."""
        for name, seconds in sorted(self.seconds.items()):
            print(f"{name}: {seconds:.0f} s, {self.failed[name] or 'nothing'} found")
        print(f"{self.rounds} runs; what was found is in tests/fuzz/found")


def one_round(targets: list[str], seconds: float) -> int:
    """Search once; pytest's exit code, 0 too where the time is over."""
    command = [sys.executable, "-m", "pytest", *targets, "-q", "--hypothesis-profile=fuzz", "--timeout=0"]
    REPORT.unlink(missing_ok=True)
    try:
        return subprocess.run([*command, f"--junitxml={REPORT}"], cwd=ROOT, timeout=seconds).returncode
    except subprocess.TimeoutExpired:
        return 0


def main() -> None:
    """Search until the minutes are over; exit code 1 where anything was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("targets", nargs="*", default=TARGETS)
    options = parser.parse_args()
    REPORT.parent.mkdir(exist_ok=True)
    tally, end = Tally(), time.monotonic() + 60 * options.minutes
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for target in itertools.cycle(options.targets):
        if (left := end - time.monotonic()) < 5:
            break
        one_round([target], left)
        if REPORT.exists():
            tally.add(REPORT)
    tally.tell()
    raise SystemExit(bool(sum(tally.failed.values())))


if __name__ == "__main__":
    main()
