"""A manifest of many images: opening, a query, a reader's start, a plan, an index in which nothing or one file changed.

    python tests/benchmarks/bench_million.py --images 100000,1000000

Every figure is taken in a process of its own, whose peak memory it prints. The manifest is made by SQL, without pixels; for the
index a folder of that many files is made, hard links to few tiny PNGs. The last line of each table is the largest manifest's
figure over the smallest's, to hold against the ratio of their images.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from featstore import manifest

DIGEST = "ab" * 32
RECIPE = {"backbone": {"id": "vit", "input": [518, 518]}, "format": 1, "method": {"name": "made"}}
LINKS = 50_000  # a file system has a limit of hard links to one file


def make_manifest(root: Path, count: int) -> None:
    """List ``count`` images with their features, 128 a shard; no shard is there, and no image."""
    root.mkdir(parents=True)
    name = "printf('%04d/%08d.jpg', i % 1000, i)"
    with manifest.writing(root) as connection:
        connection.execute(
            "INSERT INTO datasets (dataset, layout, source, revision) VALUES ('made', 'folder', '/nowhere', 1)"
        )
        connection.execute(
            "INSERT INTO images (dataset, image_id, path, sha256, bytes, mtime_ns, width, height, mode, splits, label, "
            "first_revision) "
            f"SELECT 'made', {name}, {name}, sha256(i::VARCHAR), 1, i, 500, 375, 'RGB', [], printf('%04d', i % 1000), 1 "
            f"FROM range({count}) t(i)"
        )
        version = {
            "version_id": 1,
            "dataset": "made",
            "backbone": "vit",
            "digest": DIGEST,
            "number": 1,
            "method": "made",
        }
        version |= {"grid_height": 37, "grid_width": 37, "channels": 384, "prefix_tokens": 1, "recipe": RECIPE}
        manifest.insert(connection, "versions", [version | {"provenance": {}, "created_at": manifest.now()}])
        connection.execute(
            "INSERT INTO shards (shard_id, path, dataset, backbone, digest, variants, codec, samples, bytes, sealed_at) "
            f"SELECT i, printf('made/vit/abababababab/shard-%05d.h5', i), 'made', 'vit', '{DIGEST}', ['raw', 'clean'], 'none', "
            f"128, 1, now()::TIMESTAMP FROM range({-(-count // 128)}) t(i)"
        )
        connection.execute(
            "INSERT INTO features (digest, sha256, shard_id, shard_row, checksum_raw, checksum_clean, heldout_r2) "
            f"SELECT '{DIGEST}', sha256(i::VARCHAR), i // 128, i % 128, hash(i), hash(i + 1), (i % 100) / 100 "
            f"FROM range({count}) t(i)"
        )


def make_folder(folder: Path, count: int) -> None:
    """Make a folder of ``count`` tiny images in folders of a thousand."""
    for number in range(count):
        path = folder / f"{number // 1000:04d}" / f"{number:08d}.png"
        if number % LINKS == 0:
            original = folder / f"{number // 1000:04d}" / f"{number:08d}.png"
            original.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((1, 1, 3), number // LINKS, np.uint8)).save(original)
            continue
        if number % 1000 == 0:
            path.parent.mkdir(exist_ok=True)
        os.link(original, path)


def opening(root: Path) -> Any:
    """Open the manifest and ask it for nothing."""
    from featstore.query import restricted

    with restricted(root, "made") as connection:
        return connection.execute("SELECT 1").fetchall()


def query(root: Path) -> Any:
    """Ask for one class's images of good quality."""
    from featstore.query import restricted, select

    with restricted(root, "made") as connection:
        sql = "SELECT image_id FROM stored WHERE label = '0050' AND heldout_r2 > 0.2"
        return len(select(connection, sql).fetchall())


def reader(root: Path) -> Any:
    """Start a reader of everything; torch's import, which takes its own time, is left out."""
    from featstore import FeatureDataset

    return len(FeatureDataset(root, "made", backbone="vit"))


def plan(root: Path) -> Any:
    """Compare what is wanted with what is stored, as a build does first."""
    from featstore.pending import find_pending
    from featstore.query import restricted

    with restricted(root, "made") as connection:
        return find_pending(connection, root, DIGEST, ("raw", "clean"), limit=1).wanted


def index(root: Path) -> Any:
    """Index the folder beside the root."""
    from featstore.index import index_dataset

    return vars(index_dataset(root, "links", root.parent / "links"))["images"]


TASKS: dict[str, Callable[[Path], Any]] = {task.__name__: task for task in (opening, query, reader, plan, index)}


def run(task: str, root: Path) -> tuple[float, float]:
    """Return the seconds and the peak memory [GB] of a task in a fresh process."""
    out = subprocess.run(
        [sys.executable, __file__, "--task", task, str(root)], capture_output=True, text=True, check=True
    ).stdout
    seconds, peak, _ = json.loads(out.splitlines()[-1])
    return seconds, peak


def measure(folder: Path, count: int) -> dict[str, tuple[float, float]]:
    """Return what every task takes with ``count`` images."""
    root = folder / "store"
    make_manifest(root, count)
    figures = {"nothing (imports)": run("nothing", root)}
    figures |= {name: run(name, root) for name in ("opening", "query", "reader", "plan")}
    make_folder(folder / "links", count)
    figures["index: all new"] = run("index", root)
    figures["index: nothing changed"] = run("index", root)
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(folder / "links" / "0000" / "new.png")
    figures["index: one new"] = run("index", root)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", default="10000,100000", help="numbers of images, with commas")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    parser.add_argument("root", nargs="?", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.task:
        import featstore.dataset  # noqa: F401

        started = time.perf_counter()
        found = TASKS[given.task](Path(given.root)) if given.task != "nothing" else None
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(json.dumps([time.perf_counter() - started, peak, found]))
        sys.stdout.flush()
        os._exit(0)
    counts = [int(word) for word in given.images.split(",")]
    tables = []
    for count in counts:
        with TemporaryDirectory() as folder:
            tables.append(measure(Path(folder), count))
            shutil.rmtree(folder, ignore_errors=True)
            Path(folder).mkdir()
    print(
        "| | "
        + " | ".join(f"{count:,} images: s (peak GB)" for count in counts)
        + f" | × (images × {counts[-1] / counts[0]:.0f}) |"
    )
    print("|---" * (len(counts) + 2) + "|")
    for name in tables[0]:
        cells = [f"{table[name][0]:.2f} ({table[name][1]:.2f})" for table in tables]
        print(f"| {name} | " + " | ".join(cells) + f" | {tables[-1][name][0] / max(tables[0][name][0], 1e-9):.1f} |")


if __name__ == "__main__":
    main()
