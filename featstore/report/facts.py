"""What the manifest knows of a version that a report tells, read at one moment."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from featstore.compute import FINE, VARIANTS
from featstore.filters import NONE
from featstore.query import restricted
from featstore.revisions import as_dicts
from featstore.transport import redacted
from featstore.versions import STATISTICS, Version, described, find_version

__all__ = ["GRIDDED", "Facts", "Row", "read_facts"]

Row = dict[str, Any]
"""One row of an answer, by column."""
GRIDDED = tuple(name for name in VARIANTS if name != FINE)
"""Variants that lie on the grid of patches."""
SAMPLE = 64
"""Images of which norms are read patch by patch."""
KEY = "dataset = $dataset AND backbone = $backbone AND version = $version"
STORED = f"(SELECT * FROM stored WHERE {KEY})"
DATASET = """
    SELECT d.layout, d.source, d.revision, (SELECT max(created_at) FROM revisions r WHERE r.dataset = d.dataset) AS indexed_at,
           count(i.image_id) AS images, sum(i.bytes)::BIGINT AS bytes, count(i.mask_path) AS masks,
           count(i.instance_path) AS instances, count(i.depth_path) AS depths, count(i.label) AS labels,
           min(i.width) AS narrowest, max(i.width) AS widest, min(i.height) AS lowest, max(i.height) AS highest,
           median(i.width) AS width, median(i.height) AS height, len(d.mask_classes) AS mask_classes
    FROM datasets d LEFT JOIN images i USING (dataset) WHERE d.dataset = $dataset GROUP BY ALL
"""
SPLITS = f"""
    SELECT i.split, count(*) AS images, count(s.image_id) AS stored,
           count(*) FILTER (s.image_id IS NULL AND i.sha256 IN
               (SELECT sha256 FROM failures WHERE dataset = $dataset AND digest = $digest)) AS failed
    FROM images i LEFT JOIN {STORED} s USING (image_id) WHERE i.dataset = $dataset
    GROUP BY i.split ORDER BY i.split NULLS LAST
"""
CLASSES = """
    SELECT class AS name, count(DISTINCT image_id) AS images, count(*) AS boxes FROM objects WHERE dataset = $dataset
    GROUP BY class ORDER BY images DESC, name
"""
LABELS = """
    SELECT label AS name, count(*) AS images, NULL AS boxes FROM images WHERE dataset = $dataset AND label IS NOT NULL
    GROUP BY label ORDER BY images DESC, name
"""
SHARDS = f"""
    SELECT path, samples, bytes, codec, variants, checksum, sealed_at, grid_height, grid_width FROM manifest.shards
    WHERE dataset = $dataset AND backbone = $backbone AND digest = (SELECT digest FROM versions WHERE dataset = $dataset
    AND backbone = $backbone AND 'v' || number = $version) OR path IN (SELECT shard FROM {STORED}) ORDER BY path
"""
BUILDS = """
    SELECT started_at, finished_at, wanted, present, computed, failed, shards, bytes FROM builds
    WHERE dataset = $dataset AND backbone = $backbone AND digest = $digest ORDER BY started_at, build_id
"""
EVALUATIONS = f"""
    SELECT CASE WHEN {KEY} THEN NULL WHEN backbone = $backbone THEN version ELSE backbone || '/' || version END AS peer,
           dataset || '/' || backbone || '/' || version || ' ' || variant AS named, baseline,
           difference, difference_low, difference_high,
           task, variant, metric, value, low, high, interval, seeds, settings, train_images, val_images, created_at
    FROM evaluations SEMI JOIN (SELECT task, settings FROM evaluations WHERE {KEY}) USING (task, settings)
    WHERE dataset = $dataset
    ORDER BY task, max(created_at) OVER (PARTITION BY task, settings) DESC, settings, peer NULLS FIRST, variant, metric
"""
PROBLEMS = """
    SELECT coalesce(image_id, path) AS image_id, step, error FROM failures WHERE dataset = $dataset AND digest IS NULL
    ORDER BY 1, 2, 3
"""
SAMPLED = f"""
    SELECT image_id FROM (SELECT image_id, row_number() OVER (ORDER BY image_id) - 1 AS n FROM {STORED})
    WHERE list_contains($places, n) ORDER BY image_id
"""
DENOISERS = """
    SELECT n.dataset, 'd' || n.number AS name, 'v' || v.number AS trained_on, n.images, n.heldout_images, n.cosine,
           n.raw_cosine FROM denoisers n LEFT JOIN versions v
           ON v.dataset = n.dataset AND v.backbone = n.backbone AND v.digest = n.trained_on
    WHERE n.digest = $denoiser ORDER BY n.dataset, n.backbone, n.number LIMIT 1
"""
COMMENTS = """
    SELECT column_name, comment FROM duckdb_columns()
    WHERE database_name = 'manifest' AND table_name = 'features' AND comment IS NOT NULL
"""


@dataclass(frozen=True)
class Facts:
    """``told`` is what ``describe_version`` tells; ``values`` holds a number an image of each statistic that there is."""

    version: Version
    told: Row
    dataset: Row
    splits: list[Row]
    classes: list[Row]
    shards: list[Row]
    builds: list[Row]
    evaluations: list[Row]
    problems: list[Row]
    denoisers: list[Row]
    """The one that the recipe names, where the store knows it."""
    values: dict[str, NDArray[np.float64]]
    meanings: dict[str, str]
    sample: tuple[str, ...]
    ranked: tuple[tuple[str, float], ...]
    """(image_id, value) by the ranking's statistic from the smallest: all of them, or the first and last that pictures show."""
    ranking: str | None
    """The statistic that ranks, None where there is none."""

    @property
    def missing(self) -> int:
        """Return how many images are neither stored nor failed."""
        return max(0, int(self.told["images"] - self.told["stored"] - self.told["failed"]))

    @property
    def annotations(self) -> list[tuple[int, str]]:
        """Return how many there are of each kind."""
        kinds = {"masks": "masks", "instances": "instance masks", "depths": "depth maps", "labels": "labels"}
        found = [(int(self.dataset[key]), name) for key, name in kinds.items()]
        found.append((sum(row["boxes"] or 0 for row in self.classes), "boxes"))
        return [(count, name) for count, name in found if count]

    @property
    def codecs(self) -> list[str]:
        """Return how shards are packed, where they are."""
        return sorted({shard["codec"] for shard in self.shards} - {NONE})

    @property
    def judged(self) -> bool:
        """Whether a build has judged the images."""
        return bool({"heldout_r2", "heldout_cos"} & self.values.keys())

    def median(self, statistic: str) -> float:
        """Return the median of a statistic over the images."""
        return float(np.median(self.values[statistic]))


def read_facts(root: Path, name: str, rankings: Sequence[str], pictures: int) -> Facts:
    """Read all of a version at one moment; the first of ``rankings`` that is there ranks, ``pictures`` are listed of each end.

    Raises NotInStoreError for an unknown version.
    """
    with restricted(root) as connection:
        version = find_version(connection, name)
        told = described(connection, root, version)
        key: Row = {"dataset": version.dataset, "backbone": version.backbone, "version": f"v{version.number}"}
        own: Row = {"dataset": version.dataset}
        values = values_of(connection, key)
        ranking = next((column for column in rankings if column in values), None)
        places = np.unique(np.linspace(0, max(0, told["stored"] - 1), SAMPLE).round().astype(int)).tolist()
        dataset = answer(connection, DATASET, own)[0]
        return Facts(
            version,
            told,
            dataset | {"source": redacted(dataset["source"])},
            answer(connection, SPLITS, key | {"digest": version.digest}),
            answer(connection, CLASSES, own) or answer(connection, LABELS, own),
            answer(connection, SHARDS, key),
            answer(connection, BUILDS, own | {"backbone": version.backbone, "digest": version.digest}),
            [row | {"settings": json.loads(row["settings"])} for row in answer(connection, EVALUATIONS, key)],
            answer(connection, PROBLEMS, own),
            answer(connection, DENOISERS, {"denoiser": told["recipe"].get("method", {}).get("denoiser")}),
            values,
            {row["column_name"]: row["comment"] for row in answer(connection, COMMENTS, {})},
            tuple(row["image_id"] for row in answer(connection, SAMPLED, key | {"places": places})),
            ends(connection, key, ranking, pictures),
            ranking,
        )


def answer(connection: duckdb.DuckDBPyConnection, sql: str, given: Row) -> list[Row]:
    """Return the rows of an answer."""
    return as_dicts(connection.execute(sql, given))


def values_of(connection: duckdb.DuckDBPyConnection, key: Row) -> dict[str, NDArray[np.float64]]:
    """Return each statistic's finite values over the images stored, in no order that means anything."""
    columns = connection.execute(f"SELECT {', '.join(STATISTICS)} FROM {STORED}", key).fetchnumpy()
    found = {}
    for name in STATISTICS:
        column = np.ma.filled(np.ma.asarray(columns[name], np.float64), np.nan)
        column = column[np.isfinite(column)]
        if len(column):
            found[name] = column
    return found


def ends(
    connection: duckdb.DuckDBPyConnection, key: Row, ranking: str | None, count: int
) -> tuple[tuple[str, float], ...]:
    """Return the ``count`` images with the smallest values and those with the largest, from small to large, none twice."""
    if ranking is None or not count:
        return ()
    sql = (
        f"SELECT image_id, {ranking}::DOUBLE FROM {STORED} WHERE isfinite({ranking}) "
        f"QUALIFY least(row_number() OVER (ORDER BY {ranking}, image_id), "
        f"row_number() OVER (ORDER BY {ranking} DESC, image_id DESC)) <= $count ORDER BY {ranking}, image_id"
    )
    return tuple(connection.execute(sql, key | {"count": count}).fetchall())
