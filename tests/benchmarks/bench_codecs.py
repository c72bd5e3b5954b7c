"""Size, speed and error of every way to store features, on real ones, against unfiltered float16 and numpy's memory map.

    python tests/benchmarks/bench_codecs.py [SHARD …] [--samples 64] [--repeats 15] [--json]

SHARD are sealed shards of float16 with raw, clean and artifact; without any, `featstore build demo` makes one. Their samples
are written over and over, up to ``--samples``, in every setting: raw, clean and artifact of each by one thread (packing and
writing, to the page cache; a build packs in as many threads as there are cores). Then single samples are read in a random
order, warm, in turns with all other settings within each repeat; medians of the rates and of the ratios to the same repeat's
peers. PyTorch is loaded, as it is in a training; without it int8 takes about four times as long to decode. Errors are over
all tokens of raw, clean and artifact.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from featstore.contents import read_contents
from featstore.filters import CODECS
from featstore.layout import STORES, ShardHeader
from featstore.quantise import residual_of
from featstore.reading import ShardReader
from featstore.shard import ShardWriter

PARTS = ("raw", "clean", "artifact")
NONE, PEER = "float16 none", "numpy.memmap"
Maps = dict[str, NDArray[np.float16]]
Read = Callable[[int], Any]


@dataclass
class Stored:
    """One setting: its file, and what was measured as it was written."""

    path: Path
    variants: tuple[str, ...]
    megabytes: float
    written: float


def demo_shards(folder: Path) -> list[Path]:
    """Build the demo's features."""
    command = [sys.executable, "-m", "featstore.cli", "build", "demo", "--root", str(folder / "demo"), "--json"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return sorted((folder / "demo").rglob("shard-*.h5"))


def load(shards: Sequence[Path]) -> tuple[ShardHeader, list[Maps]]:
    """Return the header of the first shard and every sample of all."""
    samples = []
    for path in shards:
        reader = ShardReader(path)
        samples += [{name: reader.read(name, row) for name in PARTS} for row in range(len(reader))]
    header = replace(read_contents(shards[0]).header, variants=PARTS, prefix_tokens=0, fine_grid=None)
    return header, [maps | {"residual": residual_of(*(maps[name] for name in PARTS))} for maps in samples]


def write(path: Path, header: ShardHeader, samples: Sequence[Maps], count: int) -> Stored:
    """Write one setting; samples a second."""
    with ShardWriter(path, header, count) as shard:
        start = time.perf_counter()
        for row in range(count):
            shard.add(f"{row}", f"{row:064x}", samples[row % len(samples)], None, {})
        rate = count / (time.perf_counter() - start)
        shard.seal()
    return Stored(path, header.variants, path.stat().st_size / 1e6, rate)


def errors(stored: Stored, samples: Sequence[Maps]) -> dict[str, float]:
    """Return mean and lowest cosine of a token, and the error's root mean square over the features' standard deviation."""
    reader, cosines, ratios = ShardReader(stored.path), [], []
    for row, maps in enumerate(samples):
        for name in PARTS:
            exact, found = (m.reshape(-1, m.shape[-1]).astype(np.float64) for m in (maps[name], reader.read(name, row)))
            norms = np.linalg.norm(exact, axis=1) * np.linalg.norm(found, axis=1)
            cosines.append((exact * found).sum(axis=1)[norms > 0] / norms[norms > 0])
            ratios.append(np.square(exact - found).mean() / exact.var())
    joined = np.concatenate(cosines)
    return {
        "cosine": float(joined.mean()),
        "lowest_cosine": float(joined.min()),
        "rms_error": float(np.sqrt(np.mean(ratios))),
    }


def measure(reads: dict[str, Read], count: int, repeats: int) -> dict[str, dict[str, float]]:
    """Return each contestant's median rate [samples/s] and its median ratios to the peers."""
    generator = np.random.default_rng(1)
    rates: dict[str, list[float]] = {name: [] for name in reads}
    ballast: list[bytearray] = []
    for repeat in range(repeats + 1):  # the first brings all into the cache and does not count
        order, names = generator.permutation(count).tolist(), list(reads)
        for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
            ballast.append(bytearray(2**16 + 16 * int(generator.integers(256))))  # other addresses, see bench_read
            start = time.perf_counter()
            for index in order:
                reads[name](index)
            if repeat:
                rates[name].append(count / (time.perf_counter() - start))

    def ratio(name: str, peer: str) -> float:
        return round(statistics.median(a / b for a, b in zip(rates[name], rates[peer], strict=True)), 3)

    return {
        name: {
            "reads_per_second": round(statistics.median(values), 1),
            "to_none": ratio(name, NONE),
            "to_memmap": ratio(name, PEER),
        }
        for name, values in rates.items()
    }


def reader_of(path: Path, name: str) -> Read:
    """Return what reads one variant's sample of an index."""
    reader = ShardReader(path)
    return lambda index: reader.read(name, index)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", nargs="*", type=Path)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        header, samples = load(options.shards or demo_shards(folder))
        count = options.samples
        settings = {
            f"{store} {codec}": replace(header, store=store, codec=codec) for store in STORES for codec in CODECS
        }
        settings["float16 none, residual stored"] = replace(header, variants=(*PARTS, "residual"))
        stored = {
            name: write(folder / f"{place}.h5", setting, samples, count)
            for place, (name, setting) in enumerate(settings.items())
        }
        np.save(folder / "clean.npy", np.stack([samples[row % len(samples)]["clean"] for row in range(count)]))
        flat = np.load(folder / "clean.npy", mmap_mode="r")
        reads: dict[str, Read] = {PEER: lambda index: np.array(flat[index])}
        reads |= {name: reader_of(one.path, "clean") for name, one in stored.items() if "residual" not in one.variants}
        reads["residual stored"] = reader_of(stored["float16 none, residual stored"].path, "residual")
        reads["residual derived"] = reader_of(stored[NONE].path, "residual")
        reads["residual derived, int8"] = reader_of(stored["int8 none"].path, "residual")
        report: dict[str, dict[str, float]] = measure(reads, count, options.repeats)
        whole = stored[NONE]
        for name, one in stored.items():
            report.setdefault(name, {}).update(
                size=round(one.megabytes / whole.megabytes, 3),
                writes_per_second=round(one.written, 1),
                **(errors(one, samples) if name.startswith("int8") else {}),
            )
    if options.json:
        print(json.dumps(report))
        return
    shape = "×".join(map(str, samples[0]["clean"].shape))
    print(
        f"{len(samples)} real samples of {shape}; size and reads as ratios to {NONE!r}; writes are of raw, clean, artifact"
    )
    for name, row in report.items():
        print(f"{name:30}", "  ".join(f"{key} {value:.6g}" for key, value in row.items()))


if __name__ == "__main__":
    main()
