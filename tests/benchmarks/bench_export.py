"""How fast a version leaves the store and comes back, and how large it is, against a plain copy of the shards.

    python tests/benchmarks/bench_export.py [--images 256] [--repeats 3] [--folder DIR] [--formats npy,zarr] [--json]

A version of random features, (37, 37, 384) float16 of one variant, is exported in every format and imported again from it, in
turns within each repeat, beside a copy of the shards' bytes to the same disk (read, written, flushed, as an export is). All
files lie in the page cache before. Reported: median MB/s of stored features, its ratio to the copy in the same repeat, and the
size against that of the shards.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench_read import CHANNELS, GRID, RECIPE, make_store

from featstore import manifest
from featstore.exchange.export import ExportRequest, export_version
from featstore.exchange.formats import FORMATS
from featstore.exchange.imports import ImportRequest, import_version
from featstore.exchange.source import Wanted

PEER = "copy of the shards"


def copy_shards(root: Path, target: Path) -> None:
    """Copy every shard as an export writes: through memory, flushed, with its name last."""
    for path in sorted(root.rglob("*.h5")):
        target.mkdir(parents=True, exist_ok=True)
        with path.open("rb") as source, (target / f"{path.name}.part").open("wb") as file:
            while data := source.read(2**20):
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
        (target / f"{path.name}.part").rename(target / path.name)


def seconds(work: Callable[[], object]) -> float:
    """Return how long a piece of work takes [s]."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def size_of(folder: Path) -> int:
    """Return what the files of a folder hold [bytes]."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def export(root: Path, form: str, output: Path, per_file: int | None) -> None:
    """Export the one version."""
    export_version(root, ExportRequest(Wanted("noise/random/v1", ("clean",)), form, output, per_file))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", help="where to put the files; a temporary folder is made in it")
    parser.add_argument("--formats", default="npy,safetensors,safetensors/64,parquet,zarr,webdataset,dvt")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    names = options.formats.split(",")
    if wrong := [name for name in names if name.split("/")[0] not in FORMATS]:
        parser.error(f"unknown format {wrong[0]}: choose from {', '.join(FORMATS)}")
    amount = options.images * GRID[0] * GRID[1] * CHANNELS * 2 / 1e6
    out: dict[str, list[float]] = {name: [] for name in (PEER, *names)}
    back: dict[str, list[float]] = {name: [] for name in names}
    sizes: dict[str, float] = {PEER: 1.0}
    files: dict[str, int] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        root = Path(folder) / "store"
        whole = sum(path.stat().st_size for path in make_store(root, options.images))
        (root / "all.npy").unlink()
        with manifest.writing(root) as connection:
            connection.execute("UPDATE versions SET recipe = ?", [RECIPE])
        files[PEER] = len(list(root.rglob("*.h5")))
        for repeat in range(options.repeats):
            turn = repeat % (len(names) + 1)
            for name in [PEER, *names][turn:] + [PEER, *names][:turn]:
                output, second = Path(folder) / "out", Path(folder) / "second"
                if name == PEER:
                    out[name].append(amount / seconds(partial(copy_shards, root, output)))
                else:
                    form, _, several = name.partition("/")
                    each = int(several) if several else None
                    out[name].append(amount / seconds(partial(export, root, form, output, each)))
                    sizes[name], files[name] = size_of(output) / whole, sum(p.is_file() for p in output.rglob("*"))
                    second.mkdir()
                    shutil.copy(root / "manifest.duckdb", second)
                    request = ImportRequest(output, "noise", "imported")
                    back[name].append(amount / seconds(partial(import_version, second, request)))
                    shutil.rmtree(second)
                shutil.rmtree(output)
    report = {}
    for name in (PEER, *names):
        report[name] = {
            "export_mb_s": round(statistics.median(out[name]), 1),
            "ratio": round(statistics.median(a / b for a, b in zip(out[name], out[PEER], strict=True)), 3),
            "import_mb_s": round(statistics.median(back[name]), 1) if name in back else None,
            "size": round(sizes[name], 4),
            "files": files[name],
        }
    if options.json:
        print(json.dumps(report))
        return
    print(f"{'':20} export MB/s  of copy  import MB/s  size of shards   files")
    for name, row in report.items():
        imported = f"{row['import_mb_s']:11.0f}" if row["import_mb_s"] else " " * 11
        print(
            f"{name:20} {row['export_mb_s']:11.0f}  {row['ratio']:7.2f}  {imported}  {row['size']:14.3f}  {row['files']:6}"
        )


if __name__ == "__main__":
    main()
