"""Batches with weights/tiny: what they lose, what they cost, and how many lines a driver can hand out.

    python -m bench.reliability.batch [--lines 200] [--ray] [--json]

Lines are short loops of five styles, every tenth twice in the file. With --ray (which needs the extra `batch`),
one line in 50 ends its worker's process and one in 50 fails, on two workers, of which one is killed besides.
Figures, and what they should be:

  lost, twice            ids without a record, and with two (0 and 0)
  wrong                  what `verify` finds (0)
  different              packs that are not byte for byte those of one process (0)
  rss_mb_per_100         slope of one process' memory over the second half, MiB per 100 lines (<= 1)
  overhead_ms            wall time of a line beyond the model's own, one at a time (<= 50)
  loops_per_minute       of one process, one load
  one_by_one_per_minute  of one `looper make --pack` a line
  ratio                  the first over the second (>= 3)
  ray_1, ray_2           loops a minute on one and two Ray workers, from the first record on
  handed_out_per_s       lines a second through the driver to two workers that do nothing (>= 200)
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

from bench.reliability.soak import slope
from looper.batch import read_manifest, run, run_on_ray, verify
from looper.batch.ray_driver import RayPlan
from looper.batch.record import Record
from looper.batch.requests import BatchLine
from looper.batch.worker import PackWorker, load_model
from looper.pipeline.result import Loops
from looper.request import LoopRequest

STYLES = ("boom bap, dusty drums", "techno", "house, bass", "drum and bass", "trap, deep bass")
DEADLY, BROKEN = "deadly", "broken"
ONE_BY_ONE = 5  # lines that have a process each
IN_TURN = 30  # lines made one at a time


class FaultyMaker:
    """A model among whose lines are some that end its process or fail."""

    def __init__(self, maker: Any) -> None:
        self.maker = maker

    @classmethod
    def load(cls, model: str, device: str | None) -> FaultyMaker:
        return cls(load_model(model, device))

    def make(self, request: LoopRequest, progress: Any = None) -> Loops:
        if request.prompt == DEADLY:
            os._exit(9)
        if request.prompt == BROKEN:
            raise RuntimeError("broken on purpose")
        return self.maker.make(request, progress)


class IdleWorker(PackWorker):
    """Makes nothing, at once."""

    def make(self, line: BatchLine, tries: int = 1) -> Record:
        return Record.of(line, "ok", tries=tries)


def wishes(count: int) -> list[dict[str, Any]]:
    """Short lines, every tenth twice."""
    lines = [
        {
            "prompt": STYLES[k % len(STYLES)],
            "bpm": round(90 + 7.3 * (k % 12), 1),
            "variations": 1,
            "max_duration": 2,
            "seed": k,
            "model": "tiny",
        }
        for k in range(count)
    ]
    return lines + lines[::10]


def with_faults(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same, one in 50 deadly and one in 50 broken."""
    named = {10: DEADLY, 35: BROKEN}
    return [{**line, "prompt": named.get(line["seed"] % 50, line["prompt"])} for line in lines]


def memory_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def packs(out: Path) -> dict[str, dict[str, str]]:
    """Files by the id of their request."""
    return {record.id: record.files for record in read_manifest(out) if record.status == "ok"}


def one_process(lines: list[dict[str, Any]], out: Path) -> dict[str, Any]:
    """All lines through one load."""
    memory, records, started = [], [], 0.0
    for record in run(lines, out):
        memory.append(memory_mb())
        records.append(record)
        if len(records) == 1:
            started = time.perf_counter()
        if len(records) % 20 == 0:
            print(f"  {len(records)} lines, {memory[-1]:.0f} MiB", flush=True)
    taken = time.perf_counter() - started
    return {
        "rss_mb_per_100": round(slope(memory), 2),
        "rss_mb": round(memory[-1]),
        "loops_per_minute": round(60 * (len(records) - 1) / taken, 1),
    }


def overhead_ms(lines: list[dict[str, Any]], out: Path) -> float:
    """Wall time of a line beyond the model's own, one line at a time: those made together share theirs."""
    records, started = [], 0.0
    for record in run(lines, out, in_flight=1):
        records.append(record)
        started = started or time.perf_counter()
    taken, rest = time.perf_counter() - started, records[1:]
    return 1000 * (taken - sum(record.seconds or 0 for record in rest)) / len(rest)


def one_by_one(lines: list[dict[str, Any]], out: Path) -> float:
    """Loops a minute of a process a line."""
    started = time.perf_counter()
    for line in lines:
        words = [
            "--bpm",
            line["bpm"],
            "-n",
            1,
            "--max-duration",
            2,
            "--seed",
            line["seed"],
            "--model",
            "tiny",
        ]
        command = [sys.executable, "-m", "looper", "make", line["prompt"], *map(str, words)]
        subprocess.run([*command, "--pack", "--out", str(out)], check=True, capture_output=True)
    return 60 * len(lines) / (time.perf_counter() - started)


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def ray_workers() -> Iterator[int]:
    """Process ids of the workers of the Ray that this process has started."""
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        pid = int(place.parent.name)
        with suppress(OSError):  # gone meanwhile
            if place.read_bytes().startswith(b"ray::PackWorker") and parent(parent(pid)) == os.getpid():
                yield pid


def on_ray(lines: list[dict[str, Any]], out: Path, workers: int, kill: bool) -> float:
    """Loops a minute from the first record on; a worker is killed after a third of the lines."""
    done, started = 0, 0.0
    for record in run_on_ray(lines, out, RayPlan(workers=workers, load=FaultyMaker.load)):
        done += record.status == "ok"
        if done == 1 and not started:
            started = time.perf_counter()
        if kill and done == len(lines) // 3:
            kill = False
            os.kill(next(ray_workers()), signal.SIGKILL)
    return 60 * (done - 1) / (time.perf_counter() - started)


def handed_out(count: int, out: Path) -> float:
    """Lines a second, from the first record to the last."""
    lines = [{"prompt": "x", "seed": k, "model": "tiny"} for k in range(count)]
    started = 0.0
    for record in run_on_ray(lines, out, RayPlan(workers=2, worker=IdleWorker)):
        started = started or time.perf_counter()
        assert record.status == "ok"
    return (count - 1) / (time.perf_counter() - started)


def faults(lines: list[dict[str, Any]], out: Path, expected: dict[str, dict[str, str]]) -> dict[str, Any]:
    """Two workers, with faults; then what is lost, twice or different."""
    faulty = with_faults(lines)
    rate = on_ray(faulty, out, 2, kill=True)
    ids = Counter(record.id for record in read_manifest(out))
    statuses = Counter(record.status for record in read_manifest(out))
    made = packs(out)
    return {
        "lost": len({json.dumps(line) for line in faulty}) - len(ids),
        "twice": sum(count > 1 for count in ids.values()),
        "wrong": len(verify(out)),
        "different": sum(files != expected[key] for key, files in made.items()),
        "ok": statuses["ok"],
        "failed": statuses["failed"],
        "given_up": statuses["lost"],
        "ray_2": round(rate, 1),
    }


def measure(count: int, ray: bool, folder: Path) -> dict[str, Any]:
    lines = wishes(count)
    figures = {"lines": len(lines)} | one_process(lines, folder / "one")
    rate = one_by_one(lines[:ONE_BY_ONE], folder / "each")
    figures |= {
        "overhead_ms": round(overhead_ms(lines[:IN_TURN], folder / "turn"), 1),
        "one_by_one_per_minute": round(rate, 1),
        "ratio": round(figures["loops_per_minute"] / rate, 1),
        "wrong": len(verify(folder / "one")),
    }
    if ray:
        figures["ray_1"] = round(on_ray(lines[: count // 4], folder / "ray", 1, kill=False), 1)
        figures |= faults(lines, folder / "faults", packs(folder / "one"))
        figures["handed_out_per_s"] = round(handed_out(2000, folder / "idle"), 1)
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lines", type=int, default=200, help="different ones")
    parser.add_argument("--ray", action="store_true", help="also on Ray")
    parser.add_argument("--json", action="store_true", help="progress goes to standard error then")
    args = parser.parse_args()
    with redirect_stdout(sys.stderr if args.json else sys.stdout), tempfile.TemporaryDirectory() as folder:
        figures = measure(args.lines, args.ray, Path(folder))
    if args.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:22}{value:>10}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
