"""What a second node brings: `--engine ray` on two nodes of this machine, one worker each, against one node.

The model is a stand-in: per image a share of computing (numpy, one thread) and one of sleep, as a card computes while the CPU
waits. The cluster is up and its workers' processes have been started once before anything is timed; starting an actor counts,
as in a build. Peers, in the same run: the same build in this process, and by two local worker processes.
Limit: two nodes at least 1.7 times as fast as one.

    python tests/benchmarks/bench_engines.py [--images 200] [--compute 0.05] [--sleep 0.15] [--rounds 2]
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SUPPORT = Path(__file__).parents[1] / "support"
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
os.environ["PYTHONPATH"] = os.pathsep.join([str(SUPPORT), str(Path(__file__).parent)])
sys.path[:0] = [str(SUPPORT), str(Path(__file__).parent)]

from fakes import FakeDecomposer, Maps, make_folder  # noqa: E402

from featstore.build import build_version  # noqa: E402
from featstore.engines import Engine, LocalEngine  # noqa: E402
from featstore.engines.ray import RayEngine  # noqa: E402
from featstore.index import index_dataset  # noqa: E402
from featstore.plan import Request  # noqa: E402
from featstore.worker import Worker  # noqa: E402

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


class Busy(FakeDecomposer):
    """Computes for so long, and waits for so long, with every image [s]."""

    def __init__(self, compute: float, sleep: float) -> None:
        super().__init__(batch_size=1)
        self.compute, self.sleep = compute, sleep

    def decompose(self, prepared: Sequence[tuple[NDArray[np.uint8], str]]) -> list[Maps]:
        until = time.thread_time() + self.compute
        values = np.ones((64, 64))
        while time.thread_time() < until:
            values = np.tanh(values @ values)
        time.sleep(self.sleep)
        return super().decompose(prepared)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--compute", type=float, default=0.05, help="seconds of CPU an image")
    parser.add_argument("--sleep", type=float, default=0.15, help="seconds of waiting an image")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    make = partial(stand_in, options.compute, options.sleep)
    from ray.cluster_utils import Cluster

    took: dict[str, list[float]] = {"here": [], "two processes": [], "one node": [], "two nodes": []}
    cluster = Cluster(initialize_head=True, head_node_args=NODE | {"num_cpus": 0, "include_dashboard": False})
    cluster.add_node(**NODE)
    cluster.add_node(**NODE)
    try:
        with tempfile.TemporaryDirectory() as folder:
            images = make_folder(Path(folder) / "images", options.images)
            timed = partial(build, Path(folder), images, make)
            worker = Worker("cpu", make)
            timed(RayEngine(worker, cluster.address, actors=2))  # the first of all starts the nodes' own processes
            for _ in range(options.rounds):
                took["one node"].append(timed(RayEngine(worker, cluster.address, actors=1)))
                took["two nodes"].append(timed(RayEngine(worker, cluster.address, actors=2)))
                took["two processes"].append(timed(LocalEngine([worker, worker])))
                took["here"].append(timed(LocalEngine()))
    finally:
        cluster.shutdown()
    for name, seconds in took.items():
        rate = options.images / statistics.median(seconds)
        print(
            f"{name:15} {statistics.median(seconds):6.1f} s  {rate:5.2f} images/s  ({min(seconds):.1f}-{max(seconds):.1f})"
        )
    pairs = zip(took["one node"], took["two nodes"], strict=True)
    ratio = statistics.median(one / two for one, two in pairs)
    alone = options.images * (options.compute + options.sleep)
    print(f"two nodes against one: {ratio:.2f} (limit 1.7); the stand-in alone {alone:.1f} s, by two {alone / 2:.1f} s")
    over = statistics.median(took["two nodes"]) - alone / 2
    print(
        f"what limits: {over:.1f} s beside it with two nodes: joining the cluster, actors' start, the last shard's odd image"
    )


def stand_in(compute: float, sleep: float) -> Busy:
    """Make one; a worker finds it by this module's name."""
    import bench_engines

    return bench_engines.Busy(compute, sleep)


def build(folder: Path, images: Path, make: Callable[[], Any], engine: Engine) -> float:
    """Return how long a build takes [s]."""
    with tempfile.TemporaryDirectory(dir=folder) as root:
        index_dataset(Path(root), "bench", images)
        started = time.perf_counter()
        report = build_version(Path(root), Request("bench", "fake", shard_size=4), make(), engine=engine)
        if report.computed != report.wanted:
            raise SystemExit(f"{report.computed} of {report.wanted} images computed")
        return time.perf_counter() - started


if __name__ == "__main__":
    import bench_engines

    bench_engines.main()
