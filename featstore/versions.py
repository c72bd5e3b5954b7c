"""Versions as people name them: ``voc/dinov2_s/v3``, ``v3``, a tag, or the first digits of a digest."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from .errors import NotInStoreError
from .query import viewed

__all__ = ["STATISTICS", "Version", "describe_version", "described", "find_version", "list_versions"]


STATISTICS: tuple[str, ...] = (
    *("norm_min", "norm_median", "norm_max", "cos_raw_clean", "heldout_r2", "heldout_cos"),
    *("artifact_share", "residual_share", "smooth", "seconds"),
)


SHARD = ("path", "variants", "codec", "samples", "bytes", "grid_height", "grid_width")


@dataclass(frozen=True)
class Version:
    """One row of ``versions``, in the store's terms. ``name`` is ``dataset/backbone/vN``."""

    version_id: int
    dataset: str
    backbone: str
    number: int
    tag: str | None
    digest: str
    method: str
    grid: tuple[int, int]
    channels: int
    prefix_tokens: int

    @property
    def name(self) -> str:
        """Return ``dataset/backbone/vN``."""
        return f"{self.dataset}/{self.backbone}/v{self.number}"


def list_versions(connection: duckdb.DuckDBPyConnection) -> list[Version]:
    """Return every version that a restricted connection sees."""
    rows = connection.execute(
        "SELECT version_id, dataset, backbone, number, tag, digest, method, grid_height, grid_width, channels, "
        "prefix_tokens FROM versions ORDER BY dataset, backbone, number"
    ).fetchall()
    return [Version(*row[:7], (row[7], row[8]), row[9], row[10]) for row in rows]  # type: ignore[call-arg]


def find_version(connection: duckdb.DuckDBPyConnection, name: str) -> Version:
    """Return the one version that ``name`` means.

    ``name`` is ``[dataset/[backbone/]]LAST`` where LAST is ``vN``, a tag, or at least four digits of the digest. Raises
    NotInStoreError, naming what there is, where none or several fit.
    """
    *scope, last = name.strip("/").split("/")
    versions = list_versions(connection)
    fits = [version for version in versions if in_scope(version, scope) and is_named(version, last)]
    if len(fits) == 1:
        return fits[0]
    if fits:
        raise NotInStoreError(f"{name!r} means several: {', '.join(v.name for v in fits)}; give the whole name")
    have = ", ".join(version.name for version in versions) or "none is built yet"
    raise NotInStoreError(f"no version {name!r} in the store; there are: {have}")


def in_scope(version: Version, scope: list[str]) -> bool:
    """Whether the folders named before the last part are the version's."""
    return scope in ([], [version.dataset], [version.backbone], [version.dataset, version.backbone])


def is_named(version: Version, last: str) -> bool:
    """Whether ``last`` is the version's number, tag or digest."""
    return last in (f"v{version.number}", version.tag) or (len(last) >= 4 and version.digest.startswith(last.lower()))


def describe_version(root: Path, name: str) -> dict[str, Any]:
    """Return all that is known of a version: recipe, provenance, coverage, shards, quality, failures.

    ``grid`` is [H, W] of its maps, ``fine_grid`` [H', W'] of ``clean_fine`` or None where the recipe gives none.
    """
    with viewed(root) as connection:
        return described(connection, root, find_version(connection, name))


def described(connection: duckdb.DuckDBPyConnection, root: Path, version: Version) -> dict[str, Any]:
    """Return what ``describe_version`` does, as a restricted connection sees it."""
    digest = version.digest
    recipe, provenance, created = connection.execute(
        "SELECT recipe, provenance, created_at FROM versions WHERE version_id = ?", [version.version_id]
    ).fetchall()[0]
    cover = connection.execute(
        "SELECT stored, images, failed FROM coverage WHERE dataset = ? AND backbone = ? AND version = ?",
        [version.dataset, version.backbone, f"v{version.number}"],
    ).fetchall()[0]
    shards = connection.execute(
        "SELECT path, variants, codec, samples, bytes, grid_height, grid_width FROM shards "
        "WHERE dataset = ? AND backbone = ? AND digest = ? ORDER BY path",
        [version.dataset, version.backbone, digest],
    ).fetchall()
    failures = connection.execute(
        "SELECT image_id, step, error FROM failures WHERE digest = ? AND dataset = ? ORDER BY 1",
        [digest, version.dataset],
    ).fetchall()
    decided = json.loads(recipe)
    return {
        "version": version.name,
        "tag": version.tag,
        "digest": digest,
        "folder": str(root / version.dataset / version.backbone / digest[:12]),
        "created_at": created,
        "method": version.method,
        "grid": list(version.grid),
        "fine_grid": decided.get("method", {}).get("clean_grid"),
        "channels": version.channels,
        "prefix_tokens": version.prefix_tokens,
        "stored": cover[0],
        "images": cover[1],
        "failed": cover[2],
        "shards": [dict(zip(SHARD, row, strict=True)) for row in shards],
        "quality": quality_of(connection, digest),
        "failures": [dict(zip(("image_id", "step", "error"), row, strict=True)) for row in failures],
        "recipe": decided,
        "provenance": json.loads(provenance),
    }


def quality_of(connection: duckdb.DuckDBPyConnection, digest: str) -> dict[str, dict[str, float]]:
    """Return minimum, median and maximum over the images of each statistic that the version has."""
    sums = ", ".join(f"min({n}), median({n}), max({n})" for n in STATISTICS)
    row = connection.execute(f"SELECT {sums} FROM features WHERE digest = ?", [digest]).fetchall()[0]
    triples = {name: row[3 * i : 3 * i + 3] for i, name in enumerate(STATISTICS)}
    keys = ("min", "median", "max")
    return {name: dict(zip(keys, triple, strict=True)) for name, triple in triples.items() if triple[0] is not None}
