"""In what two versions differ: parameters, provenance, images, variants, and how far their features are apart."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from .distance import Distance, held, measure, shared_images
from .errors import NotInStoreError
from .query import viewed
from .versions import Version, find_version

__all__ = ["ABSENT", "Changed", "Difference", "compare_versions", "flatten"]

ABSENT = "(absent)"
NAMED = 10
STORED = (
    "(SELECT i.sha256, min(i.image_id) AS image_id FROM images i JOIN manifest.features f ON f.digest = ? "
    "AND f.sha256 = i.sha256 WHERE i.dataset = ? GROUP BY i.sha256)"
)


@dataclass(frozen=True)
class Changed:
    """One entry that differs; ``ABSENT`` where one side has none."""

    name: str
    first: Any
    second: Any


@dataclass(frozen=True)
class Difference:
    """What ``compare_versions`` found. Images are told apart by their bytes; of those in one only the first few are named.

    ``variants`` is, for each, how many of its images hold each variant; ``sampled`` of the images in both were to be compared.
    """

    versions: tuple[str, str]
    same_recipe: bool
    parameters: tuple[Changed, ...]
    provenance: tuple[Changed, ...]
    images: tuple[int, int]
    both: int
    only: tuple[tuple[str, ...], tuple[str, ...]]
    variants: tuple[dict[str, int], dict[str, int]]
    sampled: int
    distances: tuple[Distance, ...]


def compare_versions(root: Path, first: str, second: str, images: int | None = 64) -> Difference:
    """Compare two versions; distances over ``images`` of those in both, the first by SHA-256, None over all.

    ``second`` may leave out what ``first`` says: ``voc/dinov2_b/v1`` and ``v2``. Raises NotInStoreError, CorruptError.
    """
    with viewed(root) as connection:
        one = find_version(connection, first)
        pair = one, second_version(connection, one, second)
        (recipe, made), (recipe2, made2) = (documents(connection, version) for version in pair)
        counts, names = images_apart(connection, pair)
        variants = variants_of(connection, pair[0]), variants_of(connection, pair[1])
        common = [name for name in variants[0] if name in variants[1] and images != 0]
        places = {name: shared_images(connection, root, pair, name, images) for name in common}
    recipes = recipe, recipe2
    return Difference(
        versions=(pair[0].name, pair[1].name),
        same_recipe=pair[0].digest == pair[1].digest,
        parameters=tuple(changed(recipe, recipe2)),
        provenance=tuple(changed(made, made2)),
        images=(counts[0] + counts[1], counts[0] + counts[2]),
        both=counts[0],
        only=names,
        variants=variants,
        sampled=counts[0] if images is None else min(images, counts[0]),
        distances=tuple(measure(shared, name, pair, recipes) for name, shared in places.items()),
    )


def second_version(connection: duckdb.DuckDBPyConnection, one: Version, name: str) -> Version:
    """Return what ``name`` means, within the first's data set and backbone where it is but the last part."""
    if "/" not in name.strip("/"):
        try:
            return find_version(connection, f"{one.dataset}/{one.backbone}/{name}")
        except NotInStoreError:
            pass
    return find_version(connection, name)


def documents(connection: duckdb.DuckDBPyConnection, version: Version) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return recipe and provenance of a version."""
    query = "SELECT recipe, provenance FROM versions WHERE version_id = ?"
    recipe, provenance = connection.execute(query, [version.version_id]).fetchall()[0]
    return json.loads(recipe), json.loads(provenance)


def flatten(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the entries of a nested dict with their paths: ``method.views``."""
    for key, entry in value.items():
        if isinstance(entry, Mapping) and entry:
            yield from flatten(entry, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", entry


def changed(one: Mapping[str, Any], two: Mapping[str, Any]) -> Iterator[Changed]:
    """Yield the entries in which two nested dicts differ, the first's first, in order."""
    before, after = dict(flatten(one)), dict(flatten(two))
    for name in [*before, *(name for name in after if name not in before)]:
        pair = before.get(name, ABSENT), after.get(name, ABSENT)
        if pair[0] != pair[1]:
            yield Changed(name, *pair)


def images_apart(
    connection: duckdb.DuckDBPyConnection, pair: tuple[Version, Version]
) -> tuple[tuple[int, int, int], tuple[tuple[str, ...], tuple[str, ...]]]:
    """Return how many stored images are in both, only in the first, only in the second; and the first few names of those."""
    known = [value for version in pair for value in (version.digest, version.dataset)]
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE apart AS SELECT a.image_id AS first, b.image_id AS second "
        f"FROM {STORED} a FULL JOIN {STORED} b USING (sha256)",
        known,
    )
    row = connection.execute(
        "SELECT count(*) FILTER (first IS NOT NULL AND second IS NOT NULL), count(*) FILTER (second IS NULL), "
        "count(*) FILTER (first IS NULL) FROM apart"
    ).fetchall()[0]
    named = []
    for mine, other in (("first", "second"), ("second", "first")):
        query = f"SELECT {mine} FROM apart WHERE {other} IS NULL ORDER BY 1 LIMIT {NAMED}"
        named.append(tuple(name for (name,) in connection.execute(query).fetchall()))
    return (row[0], row[1], row[2]), (named[0], named[1])


def variants_of(connection: duckdb.DuckDBPyConnection, version: Version) -> dict[str, int]:
    """Return how many images of a version hold each variant, the prefix tokens among them."""
    rows = connection.execute(
        "SELECT s.variants, count(DISTINCT f.sha256) FROM images i JOIN manifest.features f ON f.digest = ? "
        "AND f.sha256 = i.sha256 JOIN manifest.shards s USING (shard_id) WHERE i.dataset = ? GROUP BY s.variants",
        [version.digest, version.dataset],
    ).fetchall()
    counts: dict[str, int] = {}
    for variants, count in rows:
        for name in held(variants, version.prefix_tokens):
            counts[name] = counts.get(name, 0) + count
    return counts
