"""Which stored samples a reader is asked for: one version, a condition, and where each sample lies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from .compute import VARIANTS
from .errors import InputError, NotInStoreError, QueryError
from .manifest import first_line
from .places import images_folder, placed
from .query import check_condition, restricted
from .text_columns import text_column
from .versions import Version, find_version, list_versions

__all__ = ["Selection", "select_samples"]

DERIVABLE = ("raw", "clean", "artifact")


@dataclass(frozen=True)
class Selection:
    """Samples ordered by image_id, as columns: which shard, which row, which checksums (N, variants), which files.

    ``ids``, ``paths`` and ``mask_paths`` are UTF-8 bytes; files lie below ``source``, and their columns are empty where they
    were not asked for; ``mask_paths`` is b"" for an image without. ``grids`` (S, 2) are rows and columns of patches of each of
    ``shards``.
    """

    version: Version
    recipe: str
    shards: list[Path]
    ids: NDArray[np.bytes_]
    shard: NDArray[np.int32]
    row: NDArray[np.int32]
    checksums: NDArray[np.uint64]
    source: Path
    paths: NDArray[np.bytes_]
    mask_paths: NDArray[np.bytes_]
    grids: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def image_ids(self) -> NDArray[np.str_]:
        """Return every image_id as text."""
        return np.char.decode(self.ids, "utf-8")

    @property
    def images(self) -> list[Path]:
        """Return every photograph's file."""
        return [placed(self.source, path.decode()) for path in self.paths.tolist()]

    @property
    def masks(self) -> list[Path | None]:
        """Return every mask's file, None where there is none."""
        return [placed(self.source, path.decode()) if path else None for path in self.mask_paths.tolist()]

    def take(self, places: slice | NDArray[np.intp]) -> "Selection":
        """Return some of the samples."""
        names = ["ids", "shard", "row", "checksums"]
        names += ["paths", "mask_paths"] if len(self.paths) else []
        return replace(self, **{name: getattr(self, name)[places] for name in names})


def select_samples(
    root: Path,
    dataset: str,
    backbone: str,
    variants: Sequence[str],
    version: str | None,
    where: str | None,
    files: bool = True,
) -> Selection:
    """Find the samples. ``version`` None is the newest that stores the variants; ``files`` tells where images lie, too.

    Raises InputError for unknown variants, NotInStoreError for what is not there (saying what is) or where nothing is
    left, QueryError for a wrong condition.
    """
    wrong = [name for name in variants if name not in VARIANTS]
    if wrong or not variants:
        raise InputError(f"unknown variants {wrong}: choose from {', '.join(VARIANTS)}")
    condition = check_condition(where) if where else "true"
    with restricted(root, dataset) as connection:
        for chosen in candidates(connection, dataset, backbone, variants, version):
            found = columns_of(connection, chosen, variants, condition, where, files)
            if len(found["image_id"]) or holds_any(connection, chosen, variants):
                break
        else:
            raise NotInStoreError(
                f"no version of {dataset}/{backbone} holds a current image of {dataset} yet: build it"
            )
        if not len(found["image_id"]):
            raise NotInStoreError(f"no stored image of {chosen.name} is left by where={where!r}")
        source = images_folder(connection.execute("SELECT source FROM datasets").fetchall()[0][0])
        recipe = connection.execute("SELECT recipe FROM versions WHERE version_id = ?", [chosen.version_id]).fetchall()
        height, width = chosen.grid
        paths = connection.execute(
            f"SELECT shard_id, path, coalesce(grid_height, {height}) AS height, coalesce(grid_width, {width}) AS width "
            "FROM manifest.shards ORDER BY shard_id"
        ).fetchnumpy()
    return selection(chosen, str(recipe[0][0]), root, source, found, paths)


def columns_of(
    connection: duckdb.DuckDBPyConnection,
    chosen: Version,
    variants: Sequence[str],
    condition: str,
    where: str | None,
    files: bool,
) -> dict[str, Any]:
    """Return the samples of one version as columns; raises QueryError for a wrong condition."""
    sums = ", ".join(f"coalesce(checksum_{name}, 0) AS checksum_{name}" for name in variants)
    more = "path, mask_path, " if files else ""
    sql = (
        f"SELECT image_id, shard_id, shard_row, {more}{sums} FROM (SELECT * FROM stored WHERE backbone = ? AND version = ? "
        f"AND {has_variants(variants)}) AS stored WHERE ({condition}\n) ORDER BY image_id"
    )
    try:
        return connection.execute(sql, [chosen.backbone, f"v{chosen.number}"]).fetchnumpy()
    except duckdb.Error as error:
        raise QueryError(f"where={where!r}: {first_line(str(error))}") from error


def candidates(
    connection: duckdb.DuckDBPyConnection, dataset: str, backbone: str, variants: Sequence[str], version: str | None
) -> list[Version]:
    """Return the version named, or those that have shards with the variants, newest first; raises NotInStoreError for none."""
    named = find_version(connection, f"{dataset}/{backbone}/{version}") if version is not None else None
    rows = connection.execute(f"SELECT DISTINCT digest FROM manifest.shards WHERE {has_variants(variants)}").fetchall()
    fits = {row[0] for row in rows}
    versions = list_versions(connection)
    found = [v for v in versions if v.backbone == backbone and v.digest in fits and named in (None, v)]
    if not found and named:
        have = stored_variants(connection, named)
        raise NotInStoreError(f"{named.name} does not store {', '.join(variants)}, only {have}")
    if not found:
        have = ", ".join(f"{v.name} ({v.method})" for v in versions) or "none is built yet"
        raise NotInStoreError(f"no version of {dataset}/{backbone} stores {', '.join(variants)}; there are: {have}")
    return found[::-1]


def holds_any(connection: duckdb.DuckDBPyConnection, version: Version, variants: Sequence[str]) -> bool:
    """Whether a version stores the variants for any image of its data set."""
    sql = f"SELECT 1 FROM stored WHERE backbone = ? AND version = ? AND {has_variants(variants)} LIMIT 1"
    return bool(connection.execute(sql, [version.backbone, f"v{version.number}"]).fetchall())


def stored_variants(connection: duckdb.DuckDBPyConnection, version: Version) -> str:
    """Return in words what a version holds."""
    rows = connection.execute(
        "SELECT DISTINCT unnest(variants) FROM manifest.shards WHERE digest = ? ORDER BY 1", [version.digest]
    ).fetchall()
    return ", ".join(row[0] for row in rows) or "nothing yet"


def has_variants(variants: Sequence[str]) -> str:
    """Return the SQL condition that the variants are stored, or can be derived in the case of the residual."""
    stored = ", ".join(f"'{name}'" for name in variants if name != "residual")
    condition = f"list_has_all(variants, CAST([{stored}] AS VARCHAR[]))"
    if "residual" in variants:
        three = ", ".join(f"'{name}'" for name in DERIVABLE)
        condition += f" AND (list_contains(variants, 'residual') OR list_has_all(variants, [{three}]))"
    return condition


def selection(
    version: Version,
    recipe: str,
    root: Path,
    source: Path,
    found: Mapping[str, NDArray[Any]],
    shards: Mapping[str, Any],
) -> Selection:
    """Turn columns of an answer into those of a selection, shards into places in the list of those that are needed."""
    needed, number = np.unique(found["shard_id"], return_inverse=True)
    at = np.searchsorted(shards["shard_id"], needed)
    names = shards["path"][at]
    sums = [np.asarray(found[name], np.uint64) for name in found if name.startswith("checksum_")]
    nothing = np.array([], np.bytes_)
    return Selection(
        version=version,
        recipe=recipe,
        shards=[root / name for name in names.tolist()],
        ids=text_column(found["image_id"]),
        shard=number.astype(np.int32),
        row=found["shard_row"].astype(np.int32),
        checksums=np.stack(sums, axis=1),
        source=source,
        paths=text_column(found["path"]) if "path" in found else nothing,
        mask_paths=text_column(found["mask_path"]) if "mask_path" in found else nothing,
        grids=np.stack([np.asarray(shards[side][at], np.int64) for side in ("height", "width")], axis=1),
    )
