"""What the manifest says should lie on the disk: shards with their versions, and the rows of their features."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from . import manifest
from .layout import PREFIX_SUM
from .places import images_folder, joined
from .revisions import as_dicts
from .versions import Version, find_version, list_versions

__all__ = [
    "ListedShard",
    "features_of",
    "image_places",
    "listed_shards",
    "scope_versions",
    "stored_images",
    "sum_column",
]

Row = dict[str, Any]


@dataclass(frozen=True)
class ListedShard:
    """One row of ``shards`` with what its version tells of shapes; ``removed`` where no version is left that has it.

    ``grid`` is its version's, or its own where images keep their shapes; ``own_grid`` is its own row's, None in older ones.
    """

    shard_id: int
    path: str
    dataset: str
    backbone: str
    digest: str
    variants: tuple[str, ...]
    codec: str
    samples: int
    bytes: int
    checksum: str | None
    grid: tuple[int, int] | None
    channels: int | None
    prefix_tokens: int | None
    removed: bool
    own_grid: tuple[int, int] | None = None

    @property
    def folder(self) -> str:
        """Return the folder of its recipe, below the root."""
        return f"{self.dataset}/{self.backbone}/{self.digest[:12]}"


def scope_versions(connection: duckdb.DuckDBPyConnection, name: str | None) -> list[Version]:
    """Return the versions that ``name`` means: a data set, a version, or all where None; raises NotInStoreError."""
    versions = list_versions(connection)
    if name is None:
        return versions
    datasets = {row[0] for row in connection.execute("SELECT dataset FROM datasets").fetchall()}
    if name in datasets:
        return [version for version in versions if version.dataset == name]
    return [find_version(connection, name)]


def listed_shards(connection: duckdb.DuckDBPyConnection, digests: Sequence[str] | None = None) -> list[ListedShard]:
    """Return the shards of some recipes, all where None, ordered by path."""
    condition = "true" if digests is None else "list_contains(CAST(? AS VARCHAR[]), s.digest)"
    rows = connection.execute(
        "SELECT s.shard_id, s.path, s.dataset, s.backbone, s.digest, s.variants, s.codec, s.samples, s.bytes, s.checksum, "
        "CASE WHEN v.own THEN s.grid_height ELSE v.height END, CASE WHEN v.own THEN s.grid_width ELSE v.width END, "
        "s.grid_height, s.grid_width, v.channels, v.prefix_tokens FROM shards s LEFT JOIN (SELECT digest, "
        "any_value(grid_height) AS height, any_value(grid_width) AS width, any_value(channels) AS channels, "
        "any_value(recipe->>'$.backbone.resize' = 'keep') AS own, "
        "any_value(prefix_tokens) AS prefix_tokens FROM versions GROUP BY digest) v USING (digest) "
        f"WHERE {condition} ORDER BY s.path",
        [] if digests is None else [list(digests)],
    ).fetchall()
    made = []
    for row in rows:
        height, width, *own = row[10:14]
        grid = None if height is None else (height, width)
        sizes = *row[14:16], grid is None, None if own[0] is None else (own[0], own[1])
        made.append(ListedShard(*row[:5], tuple(row[5]), *row[6:10], grid, *sizes))  # type: ignore[call-arg]
    return made


def features_of(root: Path, shard_ids: Sequence[int]) -> dict[int, list[Row]]:
    """Return the rows of ``features`` that lie in some shards, by shard, in the order of their samples."""
    found: dict[int, list[Row]] = {shard_id: [] for shard_id in shard_ids}
    with manifest.reading(root) as connection:
        rows = as_dicts(
            connection.execute(
                "SELECT * FROM features WHERE list_contains(CAST(? AS INTEGER[]), shard_id) ORDER BY shard_id, shard_row",
                [list(shard_ids)],
            )
        )
    for row in rows:
        found[row["shard_id"]].append(row)
    return found


def stored_images(root: Path, digest: str, images: Sequence[str]) -> set[str]:
    """Return those of some images, by SHA-256, whose features of a recipe the manifest lists."""
    with manifest.reading(root) as connection:
        rows = connection.execute(
            "SELECT sha256 FROM features WHERE digest = ? AND list_contains(CAST(? AS VARCHAR[]), sha256)",
            [digest, list(images)],
        ).fetchall()
    return {row[0] for row in rows}


def image_places(root: Path, dataset: str, images: Sequence[str]) -> dict[str, list[tuple[str, str]]]:
    """Return (image_id, path) of images by SHA-256, those of ``dataset`` and of its newest revision first."""
    with manifest.reading(root) as connection:
        rows = connection.execute(
            "SELECT i.sha256, i.image_id, d.source, i.path FROM images i JOIN datasets d USING (dataset) "
            "WHERE list_contains(CAST(? AS VARCHAR[]), i.sha256) "
            "ORDER BY i.dataset <> ?, i.last_revision IS NOT NULL, i.image_id",
            [list(images), dataset],
        ).fetchall()
    folders = {source: str(images_folder(source)) for source in {row[2] for row in rows}}
    found: dict[str, list[tuple[str, str]]] = {}
    for sha256, image_id, source, path in rows:
        found.setdefault(sha256, []).append((image_id, joined(folders[source], path)))
    return found


def sum_column(name: str) -> str:
    """Return the column of ``features`` that holds a data set's checksum."""
    return PREFIX_SUM if name == "prefix_tokens" else f"checksum_{name}"
