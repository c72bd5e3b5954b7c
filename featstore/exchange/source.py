"""What is exported: the samples of one version in the order of their image_ids, read one at a time and verified."""

import hashlib
import json
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featstore.aligned import one_grid
from featstore.compute import FINE, VARIANTS
from featstore.errors import InputError, NotInStoreError, StoreError
from featstore.layout import sample_shapes
from featstore.query import restricted, viewed
from featstore.reading import PREFIX, ShardPool
from featstore.selection import Selection, select_samples
from featstore.versions import Version, find_version

__all__ = ["DTYPES", "PREFIX", "Sample", "Source", "Wanted", "open_source"]

DTYPES = ("float16", "float32")
FACTS = ("image_id", "sha256", "path", "split", "splits", "label", "width", "height", "mask_path")
BLOCK = 1024
AHEAD = 2


@dataclass(frozen=True)
class Wanted:
    """Which features are to leave the store, and how each is written.

    ``variants`` empty means all that every sample has. ``limit`` counts images by image_id. ``channels`` is ``last``
    (H, W, C), as stored, or ``first`` (C, H, W); prefix tokens are (T, C) always. ``dtype`` None is the format's own.
    """

    version: str
    variants: tuple[str, ...] = ()
    where: str | None = None
    limit: int | None = None
    prefix: bool = False
    dtype: str | None = None
    channels: str = "last"


@dataclass(frozen=True)
class Sample:
    """One image on its way out: what the manifest tells of it, and its arrays by variant, ``prefix_tokens`` among them."""

    number: int
    facts: dict[str, Any]
    arrays: dict[str, NDArray[np.floating]]

    @property
    def image_id(self) -> str:
        """Return the image_id."""
        return str(self.facts["image_id"])


class Source:
    """Samples of one version, numbered from 0 by image_id. May be read by several threads at once."""

    def __init__(self, root: Path, wanted: Wanted, chosen: Selection, facts: dict[str, Any]) -> None:
        self.root, self.wanted, self.chosen = root, wanted, chosen
        self.version: Version = chosen.version
        self.recipe: dict[str, Any] = json.loads(chosen.recipe)
        self.provenance: dict[str, Any] = facts["provenance"]
        self.source: str = facts["source"]
        self.without: int = facts["without"]
        self.pool = ShardPool(chosen.shards, limit=64, verify=True)
        if (chosen.grids != chosen.grids[0]).any():
            raise InputError(
                f"{chosen.version.name} is on several grids, an export has one: {one_grid(chosen.grids[chosen.shard])}"
            )
        self.block: tuple[int, list[dict[str, Any]]] = (-1, [])
        self.lock = Lock()

    def __len__(self) -> int:
        return len(self.chosen)

    @cached_property
    def image_ids(self) -> list[str]:
        """Every image_id, in order."""
        return [str(name) for name in self.chosen.image_ids]

    @cached_property
    def paths(self) -> list[str]:
        """Every image's path below the data set's folder, or absolute, in order."""
        with viewed(self.root, self.version.dataset) as connection:
            known = dict(connection.execute("SELECT image_id, path FROM images").fetchall())
        return [known[name] for name in self.image_ids]

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of one sample of each array, as it is exported."""
        fine = self.recipe.get("method", {}).get("clean_grid")
        tokens = self.version.prefix_tokens if self.wanted.prefix else 0
        grid = (int(fine[0]), int(fine[1])) if fine else None
        names = self.wanted.variants
        rows, columns = self.chosen.grids[0].tolist()
        shapes = sample_shapes(names, (rows, columns), grid if FINE in names else None, self.version.channels, tokens)
        first = self.wanted.channels == "first"
        return {n: (s[2], s[0], s[1]) if first and len(s) == 3 else s for n, s in shapes.items()}

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the type of every array, little-endian."""
        return np.dtype(self.wanted.dtype or DTYPES[0]).newbyteorder("<")

    @property
    def sample_bytes(self) -> int:
        """Return how many bytes the arrays of one sample are."""
        return sum(int(np.prod(shape)) for shape in self.shapes.values()) * self.dtype.itemsize

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of which samples these are and of their checksums, in hex: the same for the same export."""
        digest = hashlib.sha256(json.dumps(self.image_ids).encode())
        digest.update(np.ascontiguousarray(self.chosen.checksums, "<u8").tobytes())
        return digest.hexdigest()

    def facts(self, number: int) -> dict[str, Any]:
        """Return what the manifest tells of one sample; it is asked for a block of them at a time.

        Raises StoreError where the store has changed since it was opened.
        """
        with self.lock:
            if self.block[0] != number // BLOCK:
                self.block = number // BLOCK, self.ask(number // BLOCK * BLOCK)
            return self.block[1][number % BLOCK]

    def ask(self, start: int) -> list[dict[str, Any]]:
        """Ask the manifest for one block."""
        names = self.image_ids[start : start + BLOCK]
        scope = "backbone = ? AND version = ? AND list_contains(CAST(? AS VARCHAR[]), image_id)"
        sql = f"SELECT {', '.join(FACTS)} FROM stored WHERE {scope} ORDER BY image_id"
        with viewed(self.root, self.version.dataset) as connection:
            values = [self.version.backbone, f"v{self.version.number}", names]
            rows = connection.execute(sql, values).fetchall()
        if [row[0] for row in rows] != names:
            raise StoreError(f"images of {self.version.name} came or went during the export: start it again")
        return [dict(zip(FACTS, row, strict=True)) for row in rows]

    def read(self, number: int) -> Sample:
        """Read one sample; raises CorruptError where a shard is missing or its bytes are not what was written."""
        reader, row = self.pool[self.chosen.shard.item(number)], self.chosen.row.item(number)
        arrays: dict[str, NDArray[np.floating]] = {}
        for name in self.shapes:
            column = self.wanted.variants.index(name) if name != PREFIX else None
            # 0 stands for a sum that the manifest does not have, as of a residual that is worked out from its parts.
            expected = None if column is None else self.chosen.checksums.item(number, column) or None
            values = reader.read(name, row, expected)
            if self.wanted.channels == "first" and values.ndim == 3:
                values = values.transpose(2, 0, 1)
            arrays[name] = np.ascontiguousarray(values, self.dtype)
        return Sample(number, self.facts(number), arrays)

    def samples(self, start: int, stop: int) -> Iterator[Sample]:
        """Yield samples ``start`` to ``stop`` - 1 in order, reading a few ahead."""
        jobs: deque[Future[Sample]] = deque()
        with ThreadPoolExecutor(AHEAD) as pool:
            try:
                for number in range(start, stop):
                    jobs.append(pool.submit(self.read, number))
                    if len(jobs) > AHEAD:
                        yield jobs.popleft().result()
                while jobs:
                    yield jobs.popleft().result()
            finally:
                for job in jobs:
                    job.cancel()


def open_source(root: Path, wanted: Wanted, among: Sequence[str] = VARIANTS) -> Source:
    """Choose the samples; ``among`` are the variants to take where none is named.

    Raises NotInStoreError for a version or variant that is not stored, saying what is, and where nothing is left;
    InputError for unknown variants, QueryError for a wrong condition.
    """
    with viewed(root) as connection:
        version = find_version(connection, wanted.version)
        provenance = connection.execute(
            "SELECT provenance FROM versions WHERE version_id = ?", [version.version_id]
        ).fetchall()[0][0]
    with viewed(root, version.dataset) as connection:
        source = connection.execute("SELECT source FROM datasets").fetchall()[0][0]
        held = connection.execute(
            "SELECT DISTINCT variants FROM stored WHERE backbone = ? AND version = ?",
            [version.backbone, f"v{version.number}"],
        ).fetchall()
    if not held:
        raise NotInStoreError(f"{version.name} holds no features of images that are indexed now")
    everywhere = set.intersection(*(set(row[0]) for row in held))
    variants = wanted.variants or tuple(name for name in among if name in everywhere)
    if not variants:
        raise InputError(f"no one of {', '.join(among)} is stored of every image of {version.name}: give --variants")
    if wanted.prefix and not version.prefix_tokens:
        raise NotInStoreError(f"{version.name} holds no prefix tokens: its backbone has none; leave out --prefix")
    names = (root, version.dataset, version.backbone, variants, f"v{version.number}", wanted.where)
    chosen = select_samples(*names)
    facts = {"provenance": json.loads(provenance), "source": source}
    facts["without"] = (
        0 if set(variants) <= everywhere else count_all(root, version, wanted.where) - len(chosen.image_ids)
    )
    return Source(root, replace(wanted, variants=variants), first(chosen, wanted.limit), facts)


def count_all(root: Path, version: Version, where: str | None) -> int:
    """Return how many images a version holds anything of, among those for which the condition holds."""
    with restricted(root, version.dataset) as connection:
        return int(
            connection.execute(
                "SELECT count(*) FROM (SELECT * FROM stored WHERE backbone = ? AND version = ?) AS stored "
                f"WHERE ({where or 'true'}\n)",
                [version.backbone, f"v{version.number}"],
            ).fetchall()[0][0]
        )


def first(chosen: Selection, limit: int | None) -> Selection:
    """Return the first ``limit`` samples."""
    if limit is None:
        return chosen
    return chosen.take(slice(limit))
