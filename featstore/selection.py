"""Which stored samples a reader is asked for: one version, a condition, and where each sample lies."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from .compute import VARIANTS
from .errors import InputError, NotInStoreError, QueryError
from .manifest import first_line
from .places import stored_path
from .query import check_condition, restricted
from .versions import Version, find_version, list_versions

__all__ = ["Selection", "select_samples"]

DERIVABLE = ("raw", "clean", "artifact")


@dataclass(frozen=True)
class Selection:
    """Samples ordered by image_id, as columns: which shard, which row, which files, which checksums (N, variants)."""

    version: Version
    recipe: str
    shards: list[Path]
    image_ids: NDArray[np.str_]
    shard: NDArray[np.int32]
    row: NDArray[np.int32]
    images: list[Path]
    masks: list[Path | None]
    checksums: NDArray[np.uint64]


def select_samples(
    root: Path, dataset: str, backbone: str, variants: Sequence[str], version: str | None, where: str | None
) -> Selection:
    """Find the samples. ``version`` None is the newest that stores the variants.

    Raises InputError for unknown variants, NotInStoreError for what is not there (saying what is) or where nothing is
    left, QueryError for a wrong condition.
    """
    wrong = [name for name in variants if name not in VARIANTS]
    if wrong or not variants:
        raise InputError(f"unknown variants {wrong}: choose from {', '.join(VARIANTS)}")
    condition = check_condition(where) if where else "true"
    with restricted(root, dataset) as connection:
        chosen = choose(connection, dataset, backbone, variants, version)
        scope = f"backbone = ? AND version = ? AND {has_variants(variants)}"
        known = [chosen.backbone, f"v{chosen.number}"]
        sums = ", ".join(f"checksum_{name}" for name in variants)
        sql = (
            f"SELECT image_id, shard, shard_row, path, mask_path, {sums} FROM "
            f"(SELECT * FROM stored WHERE {scope}) AS stored WHERE ({condition}\n) ORDER BY image_id"
        )
        try:
            rows = connection.execute(sql, known).fetchall()
        except duckdb.Error as error:
            raise QueryError(f"where={where!r}: {first_line(str(error))}") from error
        source = stored_path(connection.execute("SELECT source FROM datasets").fetchall()[0][0])
        recipe = connection.execute("SELECT recipe FROM versions WHERE version_id = ?", [chosen.version_id]).fetchall()
    if not rows:
        raise NotInStoreError(f"no stored image of {chosen.name} is left by where={where!r}")
    return columns(chosen, str(recipe[0][0]), root, source, rows)


def choose(
    connection: duckdb.DuckDBPyConnection, dataset: str, backbone: str, variants: Sequence[str], version: str | None
) -> Version:
    """Return the version named, or the newest that stores the variants for any image."""
    named = find_version(connection, f"{dataset}/{backbone}/{version}") if version is not None else None
    numbers = connection.execute(
        f"SELECT DISTINCT version FROM stored WHERE backbone = ? AND {has_variants(variants)}", [backbone]
    ).fetchall()
    fits = {f"{row[0]}" for row in numbers}
    versions = list_versions(connection)
    found = [v for v in versions if v.backbone == backbone and f"v{v.number}" in fits and named in (None, v)]
    if not found and named:
        have = stored_variants(connection, named)
        raise NotInStoreError(f"{named.name} does not store {', '.join(variants)}, only {have}")
    if not found:
        have = ", ".join(f"{v.name} ({v.method})" for v in versions) or "none is built yet"
        raise NotInStoreError(f"no version of {dataset}/{backbone} stores {', '.join(variants)}; there are: {have}")
    return found[-1]


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


def columns(version: Version, recipe: str, root: Path, source: Path, rows: list[tuple[Any, ...]]) -> Selection:
    """Turn rows into columns, shard paths into numbers."""
    names = sorted({row[1] for row in rows})
    number = {name: index for index, name in enumerate(names)}
    return Selection(
        version=version,
        recipe=recipe,
        shards=[root / name for name in names],
        image_ids=np.array([row[0] for row in rows]),
        shard=np.array([number[row[1]] for row in rows], np.int32),
        row=np.array([row[2] for row in rows], np.int32),
        images=[source / row[3] for row in rows],
        masks=[source / row[4] if row[4] else None for row in rows],
        checksums=np.array([[value or 0 for value in row[5:]] for row in rows], np.uint64),
    )
