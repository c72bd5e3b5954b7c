"""Revisions of a data set: what the manifest knew, what differs, and the rows that say so."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb

from . import manifest
from .errors import NotInStoreError
from .records import Problem

__all__ = ["COLUMNS", "Previous", "Row", "previous", "record"]

Row = tuple[dict[str, Any], list[dict[str, Any]]]
"""An image's columns and its boxes' columns."""

COLUMNS: tuple[str, ...] = (
    *("path", "sha256", "bytes", "width", "height", "mode", "part", "split", "splits", "label"),
    *("mask_path", "instance_path", "depth_path"),
)


@dataclass(frozen=True)
class Previous:
    """A data set as the manifest knows it before indexing; rows keyed by image_id."""

    revision: int
    source: str
    layout: str
    images: dict[str, dict[str, Any]]
    objects: dict[str, list[dict[str, Any]]]


def previous(root: Path, dataset: str) -> Previous:
    """Read the newest revision of a data set; an empty one where there is none."""
    try:
        with manifest.reading(root) as connection:
            head = connection.execute(
                "SELECT revision, source, layout FROM datasets WHERE dataset = ?", [dataset]
            ).fetchone()
            if head is None:
                return Previous(0, "", "", {}, {})
            images = as_dicts(
                connection.execute("SELECT * FROM images WHERE dataset = ? AND last_revision IS NULL", [dataset])
            )
            objects: dict[str, list[dict[str, Any]]] = {}
            query = "SELECT * FROM current_objects WHERE dataset = ? ORDER BY image_id, number"
            for row in as_dicts(connection.execute(query, [dataset])):
                objects.setdefault(row.pop("image_id"), []).append(
                    {k: v for k, v in row.items() if k not in {"dataset", "number"}}
                )
    except NotInStoreError:
        return Previous(0, "", "", {}, {})
    return Previous(head[0], head[1], head[2], {row["image_id"]: row for row in images}, objects)


def as_dicts(cursor: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Return the rows of an executed query as dicts."""
    names = [column[0] for column in cursor.description or []]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def record(
    connection: duckdb.DuckDBPyConnection,
    dataset: str,
    source: str,
    layout: str,
    before: Previous,
    rows: dict[str, Row],
    problems: list[Problem],
) -> tuple[int, int, int, int, int]:
    """Write a revision where anything changed; returns (revision, images, added, changed, removed)."""
    added = [key for key in rows if key not in before.images]
    removed = [key for key in before.images if key not in rows]
    changed = [key for key in rows if key in before.images and differs(before, key, *rows[key])]
    fresh = bool(added or removed or changed or not before.revision or before.source != source)
    revision = before.revision + fresh
    if fresh:
        retire(connection, dataset, before.revision, removed + changed)
        write_images(connection, dataset, revision, {key: rows[key] for key in added + changed})
        counts = {"added": len(added), "changed": len(changed), "removed": len(removed), "images": len(rows)}
        head = {"dataset": dataset, "revision": revision, "source": source}
        manifest.insert(connection, "revisions", [head | {"created_at": manifest.now()} | counts])
        manifest.insert(connection, "datasets", [head | {"layout": layout}], verb="INSERT OR REPLACE")
    touched = [(rows[k][0]["mtime_ns"], dataset, k) for k in rows if is_touched(before.images.get(k), rows[k][0])]
    touched = [entry for entry in touched if entry[2] not in set(changed)]
    if touched:
        connection.executemany(
            "UPDATE images SET mtime_ns = ? WHERE dataset = ? AND image_id = ? AND last_revision IS NULL", touched
        )
    connection.execute("DELETE FROM failures WHERE dataset = ? AND digest IS NULL", [dataset])
    when = manifest.now()
    manifest.insert(
        connection, "failures", [asdict(problem) | {"dataset": dataset, "failed_at": when} for problem in problems]
    )
    return revision, len(rows), len(added), len(changed), len(removed)


def is_touched(known: dict[str, Any] | None, row: dict[str, Any]) -> bool:
    """Whether only the modification time may have moved."""
    return known is not None and known["mtime_ns"] != row["mtime_ns"]


def differs(before: Previous, key: str, row: dict[str, Any], objects: list[dict[str, Any]]) -> bool:
    """Whether an image's row or boxes are other than the manifest has."""
    known = before.images[key]
    return any(known[name] != row[name] for name in COLUMNS) or before.objects.get(key, []) != objects


def retire(connection: duckdb.DuckDBPyConnection, dataset: str, revision: int, keys: list[str]) -> None:
    """Close the revision range of images that are gone or changed."""
    connection.execute(
        "UPDATE images SET last_revision = ? WHERE dataset = ? AND last_revision IS NULL "
        "AND list_contains(CAST(? AS VARCHAR[]), image_id)",
        [revision, dataset, keys],
    )


def write_images(
    connection: duckdb.DuckDBPyConnection,
    dataset: str,
    revision: int,
    rows: dict[str, Row],
) -> None:
    """Insert images and their boxes as of ``revision``."""
    images = (
        {"dataset": dataset, "image_id": key, "first_revision": revision, **row} for key, (row, _) in rows.items()
    )
    manifest.insert(connection, "images", images)
    boxes = (
        {"dataset": dataset, "image_id": key, "first_revision": revision, "number": number, **box}
        for key, (_, objects) in rows.items()
        for number, box in enumerate(objects)
    )
    manifest.insert(connection, "objects", boxes)
