"""Images in a tar, in Parquet and in a folder: how long indexing, indexing again and reading them in random order take.

    python tests/benchmarks/bench_containers.py --images 4000

All three hold the same JPEGs, and the folder is the peer: every figure is also given as its ratio to the folder's in the same
round. Warm: the files have just been written.
"""

import argparse
import io
import statistics
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image

from featstore.index import index_dataset
from featstore.members import read_bytes

READS = 2000
GROUP = 100


def make_images(count: int) -> dict[str, bytes]:
    """Return JPEGs of 256×256 of smooth noise, about 12 kB each."""
    found = {}
    for number in range(count):
        coarse = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(coarse).resize((256, 256), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        found[f"{number:06d}.jpg"] = buffer.getvalue()
    return found


def lay_out(folder: Path, images: dict[str, bytes]) -> dict[str, tuple[Path, list[str]]]:
    """Write the images in each form; returns the source and the path of every image."""
    (folder / "folder").mkdir()
    with tarfile.open(folder / "train.tar", "w") as tar:
        for name, data in images.items():
            (folder / "folder" / name).write_bytes(data)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    rows = [{"bytes": data, "path": name} for name, data in images.items()]
    pyarrow.parquet.write_table(pyarrow.table({"image": rows}), folder / "train.parquet", row_group_size=GROUP)
    return {
        "folder": (folder / "folder", [f"{folder}/folder/{name}" for name in images]),
        "tar": (folder / "train.tar", [f"{folder}/train.tar::{name}" for name in images]),
        "parquet": (folder / "train.parquet", [f"{folder}/train.parquet::{n}/image" for n in range(len(images))]),
    }


def seconds(work: Callable[[], object]) -> float:
    """Return how long it takes [s]."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure(root: Path, source: Path, paths: list[str]) -> dict[str, float]:
    """Return what an image takes in each respect [µs]."""
    order = np.random.default_rng(0).integers(0, len(paths), min(READS, len(paths)))
    return {
        "index": seconds(lambda: index_dataset(root, "made", source)) / len(paths) * 1e6,
        "again": seconds(lambda: index_dataset(root, "made", None)) / len(paths) * 1e6,
        "in order": seconds(lambda: [read_bytes(path) for path in paths]) / len(paths) * 1e6,
        "random": seconds(lambda: [read_bytes(paths[n]) for n in order]) / len(order) * 1e6,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with TemporaryDirectory() as place:
        images = make_images(asked.images)
        forms = lay_out(Path(place), images)
        size = statistics.mean(map(len, images.values()))
        print(
            f"{asked.images} JPEGs of {size / 1000:.1f} kB, {asked.rounds} rounds; µs an image and ratio to the folder (median)"
        )
        rounds = [
            {name: measure(Path(place) / f"store-{name}-{turn}", *form) for name, form in forms.items()}
            for turn in range(asked.rounds)
        ]
        for what in rounds[0]["folder"]:
            figures = []
            for name in forms:
                took = statistics.median(one[name][what] for one in rounds)
                ratio = statistics.median(one[name][what] / one["folder"][what] for one in rounds)
                figures.append(f"{name} {took:8.1f} ({ratio:.2f})")
            print(f"{what:9}", "  ".join(figures))


if __name__ == "__main__":
    main()
