"""How fast single samples are read, against numpy's own memory map of the same samples in one .npy file.

    python tests/benchmarks/bench_read.py [--samples 512] [--repeats 9] [--folder DIR] [--json]

Every contestant copies the same random samples, (37, 37, 384) float16, into memory of its own, in turns within each
repeat; what is reported is the median over the repeats of each rate and of each ratio to numpy in the same repeat. Warm:
all files lie in the page cache, where a first pass that does not count has brought them from the disk. (As they were
written they lie there differently, a file written at one go in larger pieces, and training reads what others wrote.) Cold:
the kernel is asked to forget the files before each pass (posix_fadvise), which a disk's own cache does not hear of.
"""

import argparse
import json
import os
import pickle
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from featstore import manifest
from featstore.dataset import FeatureDataset
from featstore.reading import ShardReader
from featstore.registry import commit_shard
from featstore.shard import ShardHeader, ShardWriter

GRID, CHANNELS = (37, 37), 384
DIGEST = "5" * 64
RECIPE = json.dumps({"format": 1, "backbone": {"id": "random", "input": [518, 518]}, "method": {"name": "random"}})
PEER = "numpy.memmap"
Read = Callable[[int], Any]


def make_store(root: Path, samples: int, shard_size: int = 128) -> list[Path]:
    """Write random features as shards with a manifest, and as one .npy; returns the shards' paths."""
    generator = np.random.default_rng(0)
    root.mkdir(parents=True)
    everything = np.empty((samples, *GRID, CHANNELS), np.float16)
    header = ShardHeader("noise", "random", DIGEST, RECIPE, ("clean",), GRID, CHANNELS, 0, "{}")
    images, sealed = [], []
    for number, start in enumerate(range(0, samples, shard_size)):
        path = root / "noise" / "random" / DIGEST[:12] / f"shard-{number:05d}.h5"
        with ShardWriter(path, header, shard_size) as shard:
            for row in range(start, min(start + shard_size, samples)):
                everything[row] = generator.standard_normal((*GRID, CHANNELS), dtype=np.float32)
                images.append({"image_id": f"{row:06d}", "sha256": f"{row:064x}", "path": f"{row:06d}.jpg"})
                shard.add(images[-1]["image_id"], images[-1]["sha256"], {"clean": everything[row]}, None, {})
            sealed.append((path, shard.seal()))
    np.save(root / "all.npy", everything)
    same = {"dataset": "noise", "bytes": 0, "mtime_ns": 0, "width": 1, "height": 1, "mode": "RGB", "splits": []}
    version = {"version_id": 1, "dataset": "noise", "backbone": "random", "digest": DIGEST, "number": 1}
    version |= {"method": "random", "grid_height": GRID[0], "grid_width": GRID[1], "channels": CHANNELS}
    version |= {"prefix_tokens": 0, "recipe": RECIPE, "provenance": "{}", "created_at": manifest.now()}
    with manifest.writing(root) as connection:
        about = {"dataset": "noise", "layout": "folder", "source": str(root), "revision": 1}
        manifest.insert(connection, "datasets", [about])
        manifest.insert(connection, "images", [image | same | {"first_revision": 1} for image in images])
        manifest.insert(connection, "versions", [version])
    for path, contents in sealed:
        commit_shard(root, path, contents, {})
    return [path for path, _ in sealed]


def contestants(root: Path, shards: Sequence[Path]) -> dict[str, Callable[[], Read]]:
    """Return, by name, how to open each contestant afresh; what that gives reads the sample of one index."""
    data = FeatureDataset(root, "noise", backbone="random")
    readers = [ShardReader(path) for path in shards]
    size = len(readers[0])

    def numpy_memmap() -> Read:
        array = np.load(root / "all.npy", mmap_mode="r")
        return lambda index: np.array(array[index])

    def shard_reader() -> Read:
        fresh: list[ShardReader] = pickle.loads(pickle.dumps(readers))  # a pickled copy has no maps open
        return lambda index: fresh[index // size].read("clean", index % size)

    def feature_dataset() -> Read:
        fresh: FeatureDataset = pickle.loads(pickle.dumps(data))
        return lambda index: fresh[index]["clean"]

    def plain_h5py() -> Read:
        files = [h5py.File(path, "r")["clean"] for path in shards]
        return lambda index: files[index // size][index % size]

    return {PEER: numpy_memmap, "ShardReader": shard_reader, "FeatureDataset": feature_dataset, "h5py": plain_h5py}


def check(openers: dict[str, Callable[[], Read]], indices: Sequence[int]) -> None:
    """Raise where two contestants disagree on a sample."""
    reads = {name: opener() for name, opener in openers.items()}
    for index in indices:
        expected = reads[PEER](index)
        for name, read in reads.items():
            sample = read(index)
            values = sample.permute(1, 2, 0).numpy() if name == "FeatureDataset" else sample
            if not np.array_equal(values, expected):
                raise SystemExit(f"{name} reads sample {index} otherwise than {PEER}")


def forget(files: Sequence[Path]) -> None:
    """Ask the kernel to drop files from its page cache."""
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def measure(
    openers: dict[str, Callable[[], Read]], files: Sequence[Path], samples: int, repeats: int, cold: bool
) -> dict[str, dict[str, float]]:
    """Return each contestant's median rate [samples/s] and median ratio to numpy."""
    generator = np.random.default_rng(1)
    rates: dict[str, list[float]] = {name: [] for name in openers}
    forget(files)
    reads = {name: opener() for name, opener in openers.items()}
    ballast: list[bytearray] = []
    for repeat in range(repeats + 1):
        order = generator.permutation(samples).tolist()
        names = list(openers)
        for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
            if cold:
                reads, read = {}, None  # pages that are mapped are not dropped
                forget(files)
                reads[name] = openers[name]()
            read = reads[name]
            # A fixed heap gives every copy the same address; how that falls against a file's offsets, modulo a page, is luck
            # worth a quarter of the speed. So each pass gets other addresses.
            ballast.append(bytearray(2**16 + 16 * int(generator.integers(256))))
            start = time.perf_counter()
            for index in order:
                read(index)
            rates[name].append(samples / (time.perf_counter() - start))
    rates = {name: values[1:] for name, values in rates.items()}  # the first brings the files into the cache
    peer = rates[PEER]
    return {
        name: {
            "samples_per_second": round(statistics.median(values), 1),
            "ratio": round(statistics.median(a / b for a, b in zip(values, peer, strict=True)), 3),
        }
        for name, values in rates.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument("--cold-repeats", type=int, default=3)
    parser.add_argument("--folder", help="where to put the files; a temporary folder is made in it")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        root = Path(folder) / "store"
        shards = make_store(root, options.samples)
        openers = contestants(root, shards)
        check(openers, range(0, options.samples, max(1, options.samples // 16)))
        files = [root / "all.npy", *shards]
        report = {
            "warm": measure(openers, files, options.samples, options.repeats, cold=False),
            "cold": measure(openers, files, options.samples, options.cold_repeats, cold=True),
        }
    if options.json:
        print(json.dumps(report))
        return
    for state, results in report.items():
        for name, result in results.items():
            print(f"{state}  {name:15} {result['samples_per_second']:9.1f} samples/s  {result['ratio']:.3f} of {PEER}")


if __name__ == "__main__":
    main()
