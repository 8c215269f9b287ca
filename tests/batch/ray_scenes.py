"""What may befall a batch on Ray, to be run in a network and process namespace of its own.

python -m tests.batch.ray_scenes FOLDER plays every scene, each into a folder of its name, on one cluster: Ray takes
longer to start than any of them. What records say goes to NAME.txt beside it.
"""

import os
import pathlib
import signal
import subprocess
import sys
import time
from contextlib import redirect_stdout, suppress
from dataclasses import replace

from looper.batch.ray_driver import RayPlan, run_on_ray
from testkit.fakes import FakeMaker

WISHES = [
    {"prompt": "slow", "bpm": 90 + k, "variations": 1, "max_duration": 2, "seed": k, "model": "tiny"}
    for k in range(12)
]
WITH_FAULTS = [*WISHES]
WITH_FAULTS[3] = {**WISHES[3], "prompt": "deadly"}
WITH_FAULTS[5] = {**WISHES[5], "prompt": "broken"}

# one at a time, so that lines are left when something happens
PLAN = RayPlan(workers=2, in_flight=1, load=FakeMaker.load)
STORE = {"object_store_memory": 80_000_000}


def workers():
    """Process ids of Ray's workers that have a `PackWorker`; there are no others in this namespace."""
    found = []
    for place in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # gone
            if place.read_bytes().startswith(b"ray::PackWorker"):
                found.append(int(place.parent.name))
    return found


def tell(record):
    print(record.status, record.line, record.tries, flush=True)


def faults(out, plan):
    for record in run_on_ray(WITH_FAULTS, out, replace(plan, in_flight=3)):
        tell(record)


def driver(out, plan):
    for record in run_on_ray(WISHES, out, plan):
        tell(record)


def driver_killed(out, plan):
    """A driver that is killed after three records, and another one that goes on."""
    words = (sys.executable, "-m", "tests.batch.ray_scenes", out, plan.address)
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        said = "".join(process.stdout.readline() for _ in range(3))
        process.kill()
        print(said + process.stdout.read() + "killed", flush=True)
    driver(out, plan)


def folder_gone(out, plan):
    """A folder that goes away under the workers stands for all that is not a line's fault."""
    try:
        for k, record in enumerate(run_on_ray(WISHES, out, plan)):
            tell(record)
            if k == 2:
                pathlib.Path(out).rename(out + "-away")
    except OSError as error:
        print(error, flush=True)


def all_killed(out, plan, cluster, nodes):
    """A worker is killed, then both nodes; only on one that joins after that can the rest be made."""
    for k, record in enumerate(run_on_ray(WISHES, out, plan)):
        tell(record)
        if k == 2:
            os.kill(workers()[0], signal.SIGKILL)
        if k == 5:
            for node in nodes:
                cluster.remove_node(node, allow_graceful=False)
            cluster.add_node(num_cpus=1, **STORE)  # by the main thread: Ray sets signal handlers


def alone(out, plan):
    """No cluster is there: Ray is started on this machine for the time of the batch."""
    driver(out, replace(plan, address="local"))


def play(folder, scene, *more):
    """One scene; what it prints is kept beside its folder."""
    out = f"{folder}/{scene.__name__}"
    with pathlib.Path(f"{out}.txt").open("w") as said, redirect_stdout(said):
        scene(out, *more)
    end = time.monotonic() + 60
    while workers() and time.monotonic() < end:  # of a batch that has ended, or whose driver was killed
        time.sleep(0.1)


def main(folder):
    """Two nodes with a worker each, and a head without; the last scene there kills both."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **STORE}
    )
    nodes = [cluster.add_node(num_cpus=1, **STORE) for _ in range(2)]
    plan = replace(PLAN, address=cluster.address)
    for scene in (faults, driver_killed, folder_gone):
        play(folder, scene, plan)
    play(folder, all_killed, plan, cluster, nodes)
    cluster.shutdown()
    play(folder, alone, plan)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        driver(sys.argv[1], replace(PLAN, address=sys.argv[2]))
    else:
        main(sys.argv[1])
