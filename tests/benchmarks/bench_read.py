"""How fast features are read, beside other ways to keep them: one run, the same samples, (37, 37, 384) float16.

    python tests/benchmarks/bench_read.py [--samples 1024] [--rounds 7] [--folder DIR] [--random] [--json]

The samples are DINOv2 features of six photographs (extra `demo`), each rolled over its grid by a way of its own, so that no
two are the same; ``--random`` takes random numbers instead. Every contestant reads all of them in random order: single
samples, and shuffled epochs of batches of 16 through a DataLoader with 0 and 2 workers. In each round all take turns, each
time beginning with the next, and every one reads the same samples in the same order (streams their own); reported is the
median of the ratios to np.memmap in the same round, the smallest and the largest.

Some libraries hand out views of a file that nobody has read. So every sample, and every batch where it arrives, is touched:
one value is taken of every page of 4 KB, within the time measured; np.memmap and safetensors must copy single samples into
memory of their own, as the others do, while in epochs collating their views is the one copy. Warm: a pass that does not
count has brought the files into the page cache. Written: the same before they have left it since they were written. Cold: the
kernel is asked to forget all files before each pass (posix_fadvise), which a disk's own cache does not hear of; with workers,
their start counts.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peers import RANDOM, SHARD, WebDataset
from torch import Tensor
from torch.utils.data import DataLoader

from featstore import FeatureDataset, FeatureStream, loader, manifest
from featstore.registry import commit_shard
from featstore.shard import ShardHeader, ShardWriter

GRID, CHANNELS = (37, 37), 384
DIGEST = "5" * 64
RECIPE = {"format": 1, "backbone": {"id": "bench", "input": [518, 518]}, "method": {"name": "raw"}}
PEER, BATCH = "np.memmap", 16
VIEWS = (PEER, "safetensors")  # hand out views of a mapped file
Pass = Callable[[list[int]], Iterable[Tensor]]


def real_features(folder: Path) -> NDArray[np.float16]:
    """Return the raw features of the demo's photographs (6, 37, 37, 384), computed by the command line."""
    command = [sys.executable, "-m", "featstore.cli", "build", "demo", "--method", "raw", "--root", str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    data = FeatureDataset(folder, "demo", backbone="dinov2_s", variants="raw")
    return np.stack([data[i]["raw"].permute(1, 2, 0).numpy() for i in range(len(data))])


def make_samples(count: int, photographs: NDArray[np.float16] | None) -> NDArray[np.float16]:
    """Return ``count`` samples that all differ."""
    generator = np.random.default_rng(0)
    samples = np.empty((count, *GRID, CHANNELS), np.float16)
    for index in range(count):
        if photographs is None:
            samples[index] = generator.standard_normal((*GRID, CHANNELS), dtype=np.float32)
        else:
            turn = index // len(photographs)
            samples[index] = np.roll(photographs[index % len(photographs)], (turn % 37, turn // 37), axis=(0, 1))
    return samples


def make_store(root: Path, samples: NDArray[np.float16], variant: str = "clean") -> None:
    """Write samples as shards with a manifest."""
    header = ShardHeader("bench", "bench", DIGEST, json.dumps(RECIPE), (variant,), GRID, CHANNELS, 0, "{}")
    folder = root / "bench" / "bench" / DIGEST[:12]
    folder.mkdir(parents=True)
    images, sealed = [], []
    for start in range(0, len(samples), SHARD):
        path = folder / f"shard-{start // SHARD:05d}.h5"
        with ShardWriter(path, header, SHARD) as shard:
            for row in range(start, min(start + SHARD, len(samples))):
                images.append({"image_id": f"{row:06d}", "sha256": f"{row:064x}", "path": f"{row:06d}.jpg"})
                shard.add(images[-1]["image_id"], images[-1]["sha256"], {variant: samples[row]}, None, {})
            sealed.append((path, shard.seal()))
    same = {"dataset": "bench", "bytes": 0, "mtime_ns": 0, "width": 1, "height": 1, "mode": "RGB", "splits": []}
    version = {"version_id": 1, "dataset": "bench", "backbone": "bench", "digest": DIGEST, "number": 1}
    version |= {"method": "raw", "grid_height": GRID[0], "grid_width": GRID[1], "channels": CHANNELS}
    version |= {"prefix_tokens": 0, "recipe": json.dumps(RECIPE), "provenance": "{}", "created_at": manifest.now()}
    with manifest.writing(root) as connection:
        about = {"dataset": "bench", "layout": "folder", "source": str(root), "revision": 1}
        manifest.insert(connection, "datasets", [about])
        counts = {"added": len(images), "changed": 0, "removed": 0, "images": len(images), "created_at": manifest.now()}
        manifest.insert(connection, "revisions", [{k: about[k] for k in ("dataset", "revision", "source")} | counts])
        manifest.insert(connection, "images", [image | same | {"first_revision": 1} for image in images])
        manifest.insert(connection, "versions", [version])
    for path, contents in sealed:
        commit_shard(root, path, contents, {})


def write_all(folder: Path, samples: NDArray[np.float16]) -> dict[str, Any]:
    """Write the samples in every format; returns the peers by name, featstore's data set as the first."""
    make_store(folder / "store", samples)
    made: dict[str, Any] = {"featstore": FeatureDataset(folder / "store", "bench", backbone="bench")}
    for number, (name, kind) in enumerate([*RANDOM.items(), ("WebDataset", WebDataset)]):
        own = folder / f"peer{number}"
        own.mkdir()
        peer: Any = kind(own, len(samples))
        peer.write(samples)
        made[name] = peer
    for name, peer in made.items():  # all must hold the same
        for index in (0, len(samples) // 2, len(samples) - 1) if name != "WebDataset" else ():
            read = peer[index]["clean"].permute(1, 2, 0) if name == "featstore" else peer[index]
            if not np.array_equal(read.numpy(), samples[index]):
                raise SystemExit(f"{name} reads sample {index} otherwise than it was written")
    return made


def touched(values: Tensor) -> float:
    """Take one value of every page, whatever the strides."""
    flat = values.permute(0, 2, 3, 1) if values.ndim == 4 and values.stride(1) == 1 else values
    flat = values.permute(1, 2, 0) if values.ndim == 3 and values.stride(0) == 1 else flat
    return float(flat.reshape(-1)[::2048].sum(dtype=torch.float32))


def singles(peers: dict[str, Any]) -> dict[str, Pass]:
    """Return, by name, what reads single samples in a given order."""

    def featstore(order: list[int]) -> Iterable[Tensor]:
        return (peers["featstore"][index]["clean"] for index in order)

    def other(name: str) -> Pass:
        if name in VIEWS:
            return lambda order: (torch.from_numpy(np.array(peers[name][index].numpy())) for index in order)
        return lambda order: (peers[name][index] for index in order)

    return {"featstore": featstore} | {name: other(name) for name in RANDOM}


class Fixed(list[int]):
    """A sampler of an order that changes from pass to pass."""


def epochs(peers: dict[str, Any], workers: int) -> dict[str, Pass]:
    """Return, by name, what reads an epoch of batches; the loaders are made once, with workers that stay."""
    keep: Any = {"num_workers": workers, "persistent_workers": workers > 0}
    passes: dict[str, Pass] = {}

    def through(name: str, data: Any) -> Pass:
        order = Fixed()
        batches = DataLoader(data, BATCH, sampler=order, **keep)

        def run(wanted: list[int]) -> Iterable[Tensor]:
            order[:] = wanted
            return (batch["clean"] if isinstance(batch, dict) else batch for batch in batches)

        return run

    passes["featstore"] = through("featstore", peers["featstore"])
    stream = DataLoader(FeatureStream(peers["featstore"], BATCH), None, **keep)
    passes["featstore, FeatureStream"] = lambda _: (batch["clean"] for batch in stream)
    threads = loader(peers["featstore"], BATCH, shuffle=True, workers=workers)
    passes["featstore.loader, threads"] = lambda _: (batch["clean"] for batch in threads)
    for name in RANDOM:
        passes[name] = through(name, peers[name])
    tars = peers["WebDataset"].loader(BATCH, workers)
    passes["WebDataset"] = lambda _: tars
    return passes


def forget(folder: Path) -> None:
    """Ask the kernel to drop every file below a folder from its page cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def close(peers: dict[str, Any]) -> None:
    """Let go of what is mapped: pages that are mapped are not dropped."""
    for reader in peers["featstore"].stored[0].pool.readers.values():
        reader.map = reader.ahead = None
    for name in RANDOM:
        peers[name].opened = None


def measure(
    make: Callable[[], dict[str, Pass]], peers: dict[str, Any], folder: Path, rounds: int, cold: bool, skip: int = 1
) -> dict[str, dict[str, float]]:
    """Return each contestant's median rate [samples/s] and its ratio to np.memmap: median, smallest, largest."""
    generator = np.random.default_rng(1)
    passes = make()
    names, count = list(passes), len(peers["featstore"])
    rates: dict[str, list[float]] = {name: [] for name in names}
    ballast: list[bytearray] = []
    for number in range(rounds + skip):
        order = generator.permutation(count).tolist()
        for name in names[number % len(names) :] + names[: number % len(names)]:
            if cold:
                passes = {}
                close(peers)
                forget(folder)
                passes = make()
            # A fixed heap gives every copy the same address; how that falls against a file's offsets, modulo a page, is luck
            # worth a quarter of the speed. So each pass gets other addresses.
            ballast.append(bytearray(2**16 + 16 * int(generator.integers(256))))
            start, seen = time.perf_counter(), 0
            for values in passes[name](order):
                touched(values)
                seen += len(values) if values.ndim == 4 else 1
            rates[name].append(seen / (time.perf_counter() - start))
            if seen != count:
                raise SystemExit(f"{name} gave {seen} of {count} samples")
    peer = rates[PEER][skip:]
    report = {}
    for name, values in rates.items():
        ratios = [a / b for a, b in zip(values[skip:], peer, strict=True)]
        spread = {"smallest": min(ratios), "largest": max(ratios)}
        report[name] = {
            "samples_per_second": statistics.median(values[skip:]),
            "ratio": statistics.median(ratios),
        } | spread
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cold-rounds", type=int, default=3)
    parser.add_argument("--folder", help="where to put the files; a temporary folder is made in it")
    parser.add_argument("--random", action="store_true", help="random numbers in place of features (no extra `demo`)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    report: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        photographs = None if options.random else real_features(folder / "demo")
        peers = write_all(folder, make_samples(options.samples, photographs))

        def run(
            title: str, make: Callable[[], dict[str, Pass]], rounds: int, cold: bool = False, skip: int = 1
        ) -> None:
            report[title] = measure(make, peers, folder, rounds, cold, skip)
            if not options.json:
                show(title, report[title])

        run("single samples, written", lambda: singles(peers), options.rounds)
        close(peers)
        forget(folder)
        run("single samples, warm", lambda: singles(peers), options.rounds)
        for workers in (0, 2):
            run(f"epochs, {workers} workers, warm", lambda w=workers: epochs(peers, w), options.rounds)  # type: ignore[misc]
        run("single samples, cold", lambda: singles(peers), options.cold_rounds, cold=True, skip=0)
        for workers in (0, 2):
            title = f"epochs, {workers} workers, cold"
            run(title, lambda w=workers: epochs(peers, w), options.cold_rounds, True, 0)  # type: ignore[misc]
    if options.json:
        print(json.dumps(report))


def show(title: str, results: dict[str, dict[str, float]]) -> None:
    """Print one table."""
    print(f"\n{title:34} samples/s  of {PEER} (smallest-largest)")
    for name, result in results.items():
        spread = f"({result['smallest']:.2f}-{result['largest']:.2f})"
        print(f"  {name:32} {result['samples_per_second']:9.0f}  {result['ratio']:.2f} {spread}", flush=True)


if __name__ == "__main__":
    main()
