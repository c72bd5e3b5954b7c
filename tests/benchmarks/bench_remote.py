"""How fast single samples come from an S3 server on this machine, against the whole shard's download and against the disk.

    python tests/benchmarks/bench_remote.py [--samples 256] [--reads 64] [--json]

The server is moto, in a process of its own: written in Python, it is slower than S3 in its own network, and has none of its
latency, so that rates are this machine's and only their ratios mean something. Samples are (37, 37, 384) float16, 1.05 MB.

cold     nothing is in the cache: the shard's tables and one sample are fetched
opened   the shard's tables are known, the sample is not: one ranged request
warm     the sample is in the local cache
batch    16 samples not in the cache at once, as a DataLoader asks
whole    the shard of 128 samples is downloaded to read one, with nothing kept: what there is without ranges
disk     the same store on the local disk
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import numpy as np
from bench_read import CHANNELS, GRID, make_samples, make_store

from featstore.dataset import FeatureDataset
from featstore.reading import ShardReader
from featstore.remote import RemotePath
from featstore.root import resolve_root

SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@contextmanager
def s3_server() -> Iterator[None]:
    """Run an S3 server and point the environment to it."""
    command = [sys.executable, "-c", SERVER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, **pipes) as process:  # type: ignore[call-overload]
        port = process.stdout.readline().strip()
        os.environ |= {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
        os.environ |= {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench"}
        try:
            yield
        finally:
            process.kill()


def seconds(do: Callable[[], object]) -> float:
    """Return how long a call takes [s]."""
    started = time.perf_counter()
    do()
    return time.perf_counter() - started


def measure(local: Path, remote: Path, cache: Path, reads: int) -> dict[str, float]:
    """Return the median time of one sample, each way [ms]."""
    generator = np.random.default_rng(1)
    shards = [RemotePath(str(path)) for path in sorted(remote.rglob("*.h5"))]
    data = FeatureDataset(remote, "bench", backbone="bench", variants=("clean",))
    near = FeatureDataset(local, "bench", backbone="bench", variants=("clean",))
    places = generator.permutation(len(data))[:reads].tolist()
    times: dict[str, list[float]] = {name: [] for name in ("cold", "opened", "warm", "batch", "whole", "disk")}
    copy = cache.parent / "whole.h5"

    def whole(shard: RemotePath) -> None:
        shard.download(copy)
        ShardReader(copy).read("clean", 0)

    for turn in range(5):
        shutil.rmtree(cache, ignore_errors=True)
        shard = shards[turn % len(shards)]
        times["cold"].append(seconds(lambda shard=shard: ShardReader(shard).read("clean", 0)))  # type: ignore[misc]
        times["whole"].append(seconds(lambda shard=shard: whole(shard)))  # type: ignore[misc]
    data.stored[0].pool.fetch(("clean",), [(number, 0) for number in range(len(shards))])
    for place in places:
        times["opened"].append(seconds(lambda place=place: data[place]))
        times["warm"].append(seconds(lambda place=place: data[place]))
        near[place]
        times["disk"].append(seconds(lambda place=place: near[place]))
    shutil.rmtree(cache, ignore_errors=True)
    for start in range(0, len(places) - 15, 16):
        batch = places[start : start + 16]
        times["batch"].append(seconds(lambda batch=batch: data.__getitems__(batch)) / 16)
    return {name: 1000 * statistics.median(taken) for name, taken in times.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--reads", type=int, default=64)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, s3_server():
        local, cache = Path(folder) / "store", Path(folder) / "cache"
        os.environ["FEATSTORE_CACHE"] = str(cache)
        make_store(local, make_samples(options.samples, None))
        client = boto3.client("s3")
        client.create_bucket(Bucket="bench")
        for path in local.rglob("*"):
            if path.is_file() and path.suffix != ".npy":
                client.upload_file(str(path), "bench", f"store/{path.relative_to(local).as_posix()}")
        found = measure(local, resolve_root("s3://bench/store"), cache, options.reads)
    if options.json:
        print(json.dumps(found))
        return
    size = 2 * CHANNELS * GRID[0] * GRID[1] / 1e6
    print(f"one sample of {size:.2f} MB, median [ms]")
    for name, taken in found.items():
        print(f"  {name:<8}{taken:9.2f}   {taken / found['disk']:8.1f} × disk   {taken / found['whole']:8.4f} × whole")


if __name__ == "__main__":
    main()
