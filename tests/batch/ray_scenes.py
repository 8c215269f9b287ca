"""What may befall a batch on Ray, to be run in a network and process namespace of its own.

python -m tests.batch.ray_scenes SCENE FOLDER
"""

import os
import pathlib
import signal
import sys
import threading
import time

from looper.batch.ray_driver import RayPlan, run_on_ray
from testkit.fakes import FakeMaker

WISHES = [
    {"prompt": "slow", "bpm": 90 + k, "variations": 1, "max_duration": 2, "seed": k, "model": "tiny"}
    for k in range(12)
]
WITH_FAULTS = [*WISHES]
WITH_FAULTS[3] = {**WISHES[3], "prompt": "deadly"}
WITH_FAULTS[5] = {**WISHES[5], "prompt": "broken"}

PLAN = RayPlan(workers=2, in_flight=1, load=FakeMaker.load)  # so that lines are left when something happens


def workers():
    """Process ids of Ray's workers that have a `PackWorker`; there are no others in this namespace."""
    found = []
    for place in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if place.read_bytes().startswith(b"ray::PackWorker"):
                found.append(int(place.parent.name))
        except OSError:  # gone
            continue
    return found


def faults(out):
    for record in run_on_ray(WITH_FAULTS, out, PLAN):
        print(record.status, record.line, record.tries, flush=True)


def two_at_a_time(out):
    plan = RayPlan(workers=2, in_flight=3, load=FakeMaker.load)
    for record in run_on_ray(WITH_FAULTS, out, plan):
        print(record.status, record.line, record.tries, flush=True)


def worker_killed(out):
    for k, record in enumerate(run_on_ray(WISHES, out, PLAN)):
        print(record.status, record.line, record.tries, flush=True)
        if k in (2, 5):
            os.kill(workers()[0], signal.SIGKILL)


def driver(out):
    for record in run_on_ray(WISHES, out, PLAN):
        print(record.status, record.line, record.tries, flush=True)


def full(out):
    """A folder that goes away under the workers stands for all that is not a line's fault."""
    for k, record in enumerate(run_on_ray(WISHES, out, PLAN)):
        print(record.status, record.line, record.tries, flush=True)
        if k == 2:
            pathlib.Path(out).rename(out + "-away")


def node_killed(out):
    """Three nodes, the first without workers; the third is killed, and a fourth joins later."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    store = {"object_store_memory": 80_000_000}
    head = {"num_cpus": 0, "include_dashboard": False, **store}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [cluster.add_node(num_cpus=1, **store) for _ in range(2)]
    plan = RayPlan(cluster.address, 2, load=FakeMaker.load)
    for k, record in enumerate(run_on_ray(WISHES, out, plan)):
        print(record.status, record.line, record.tries, flush=True)
        if k == 2:
            cluster.remove_node(nodes[1], allow_graceful=False)
            threading.Thread(target=join_later, args=(cluster, store), daemon=True).start()
    cluster.shutdown()


def join_later(cluster, store):
    time.sleep(2)
    cluster.add_node(num_cpus=1, **store)


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2])
