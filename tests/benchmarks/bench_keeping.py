"""Keeping a store of many images: time and peak memory of gc's plan, rm and Croissant's tables on a manifest of N rows.

No feature is stored: the manifest alone is as large as asked. The peer of the table of images is the same rows through Python
objects (fetchall, then pyarrow). Run: ``python tests/benchmarks/bench_keeping.py --images 1000000``.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet

from featstore import manifest
from featstore.collection import collect_garbage
from featstore.croissant_tables import MINE, copy_images, image_columns, listed_shards, scope
from featstore.difference import images_apart
from featstore.garbage import plan_garbage
from featstore.query import restricted
from featstore.removal import remove_version
from featstore.versions import find_version

PER_SHARD = 128


def make(root: Path, count: int) -> None:
    """Write a manifest: one data set of ``count`` images, two versions, whose shards are empty files."""
    root.mkdir(parents=True)
    digests = [hashlib.sha256(name).hexdigest() for name in (b"one", b"two")]
    with manifest.writing(root) as connection:
        connection.execute(
            "INSERT INTO datasets (dataset, layout, source, revision) VALUES ('big', 'folder', '/photographs', 1)"
        )
        connection.execute(
            "INSERT INTO images BY NAME SELECT 'big' AS dataset, printf('%08d.jpg', i) AS image_id, image_id AS path, "
            "sha256(i::VARCHAR) AS sha256, 100000 AS bytes, 0 AS mtime_ns, 500 AS width, 375 AS height, 'RGB' AS mode, "
            "'train' AS split, ['main/train'] AS splits, 'cat' AS label, 1 AS first_revision FROM range(?) t(i)",
            [count],
        )
        for number, digest in enumerate(digests, 1):
            first = (number - 1) * (count // PER_SHARD + 1)
            folder = f"big/vit/{digest[:12]}"
            connection.execute(
                "INSERT INTO versions VALUES "
                "(?, 'big', 'vit', ?, ?, NULL, 'raw', 37, 37, 768, 1, '{}', '{}', now()::TIMESTAMP)",
                [number, digest, number],
            )
            connection.execute(
                "INSERT INTO shards BY NAME "
                "SELECT ? + i AS shard_id, ? || printf('/shard-%05d.h5', i) AS path, 'big' AS dataset, "
                "'vit' AS backbone, ? AS digest, ['raw'] AS variants, 'none' AS codec, ? AS samples, 0 AS bytes, "
                "now()::TIMESTAMP AS sealed_at FROM range(?) t(i)",
                [first, folder, digest, PER_SHARD, count // PER_SHARD + 1],
            )
            connection.execute(
                "INSERT INTO features BY NAME SELECT ? AS digest, sha256(i::VARCHAR) AS sha256, ? + i // ? AS shard_id, "
                "i % ? AS shard_row, hash(i) AS checksum_raw, random() AS norm_max FROM range(?) t(i)",
                [digest, first, PER_SHARD, PER_SHARD, count],
            )
            (root / folder).mkdir(parents=True)
            for shard in range(count // PER_SHARD + 1):
                (root / folder / f"shard-{shard:05d}.h5").touch()


SELECTED = {"row": "shard_row", "checksum_raw": "format('{:016x}', checksum_raw)"}


def croissant_tables(root: Path, path: Path) -> None:
    with restricted(root, writable=path) as connection:
        version = find_version(connection, "big/vit/v1")
        columns, _ = image_columns(connection, root, version)
        copy_images(connection, version, columns, path)
        listed_shards(connection, version)


def through_python(root: Path, path: Path) -> None:
    with restricted(root) as connection:
        version = find_version(connection, "big/vit/v1")
        names = [SELECTED.get(column.name, column.name) for column in image_columns(connection, root, version)[0]]
        rows = connection.execute(f"SELECT {', '.join(names)} FROM {MINE} ORDER BY image_id", scope(version)).fetchall()
    table = pyarrow.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows])
    pyarrow.parquet.write_table(table, path, compression="zstd")


def compare(root: Path, _: Path) -> None:
    with restricted(root) as connection:
        images_apart(connection, (find_version(connection, "v1"), find_version(connection, "v2")))


def plan(root: Path, _: Path) -> None:
    plan_garbage(root)


def collect(root: Path, _: Path) -> None:
    collect_garbage(root)


def remove(root: Path, _: Path) -> None:
    remove_version(root, "big/vit/v2")


def peak() -> float:
    """Return the most memory that this process has held [MB]."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1e3


STEPS: dict[str, Callable[[Path, Path], None]] = {
    "gc: plan, nothing to do": plan,
    "diff: images": compare,
    "croissant: table of images": croissant_tables,
    "the same through Python objects": through_python,
    "rm: one version": remove,
    "gc: plan, a version removed": plan,
    "gc: rows and files": collect,
}


def measured(name: str, folder: Path) -> tuple[float, float]:
    """Take a step in a process of its own, whose peak is its own; returns seconds and megabytes."""
    command = [sys.executable, __file__, "--step", name, "--folder", str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    seconds, memory = map(float, done.stdout.split())
    print(f"{name:<34}{seconds:8.2f} s {memory:8.0f} MB", flush=True)
    return seconds, memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        before, started = peak(), time.perf_counter()
        STEPS[given.step](given.folder / "store", given.folder / "images.parquet")
        print(time.perf_counter() - started, peak() - before)
        return
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder) / "store", given.images)
        results = {name: measured(name, Path(folder)) for name in STEPS}
    fast, slow = results["croissant: table of images"], results["the same through Python objects"]
    print(f"\n{given.images:,} images: DuckDB writes the table in 1/{slow[0] / fast[0]:.1f} of the time and ", end="")
    print(f"1/{slow[1] / fast[1]:.1f} of the memory that Python objects take")


if __name__ == "__main__":
    main()
