"""Revisions of a data set: what the manifest knew, what differs (DuckDB compares), and the rows that say so."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from . import manifest
from .errors import InputError, NotInStoreError
from .records import Problem

__all__ = ["COLUMNS", "Counts", "Head", "KnownFiles", "as_dicts", "head_of", "known_files", "record", "staged_line"]

FILE = ("sha256", "width", "height", "mode")
"""What is read from an image's bytes, and taken over where the file is as it was."""

DESCRIBED = ("path", "bytes", "part", "split", "splits", "label", "mask_path", "instance_path", "depth_path")
COLUMNS: tuple[str, ...] = (*DESCRIBED, *FILE)
SEEN = ("mtime_ns", "masks_read")
"""How files were found when they were read: moves no revision."""
BOX = (
    'STRUCT("class" VARCHAR, xmin DOUBLE, ymin DOUBLE, xmax DOUBLE, ymax DOUBLE, difficult BOOLEAN, truncated BOOLEAN, '
    "occluded BOOLEAN, pose VARCHAR)"
)
FIELDS = ("class", "xmin", "ymin", "xmax", "ymax", "difficult", "truncated", "occluded", "pose")


@dataclass(frozen=True)
class Head:
    """A data set as the manifest has it; revision 0 where it has none."""

    revision: int = 0
    source: str = ""
    layout: str = ""


@dataclass(frozen=True)
class Counts:
    """What a revision is made of [images]."""

    revision: int
    images: int
    added: int
    changed: int
    removed: int


class KnownFiles:
    """Files of the newest revision with size and time, asked one at a time: those that are as they were need no reading."""

    def __init__(self, columns: Mapping[str, Any]) -> None:
        self.place = {name: place for place, name in enumerate(columns["image_id"].tolist())}
        self.paths, self.bytes, self.mtime = columns["path"], columns["bytes"], columns["mtime_ns"]
        self.width, self.height = columns["width"], columns["height"]
        self.masks = np.ma.filled(columns["masks_read"], 0)

    def find(self, image_id: str, path: str, size: int | None, mtime_ns: int) -> tuple[int, int, int] | None:
        """Return (size [bytes], width, height) of a file known under this name, of this size and time; None where it is not.

        ``size`` None is of a file whose size only reading would tell: its time decides alone.
        """
        at = self.place.get(image_id)
        if at is None or self.mtime[at] != mtime_ns or self.paths[at] != path:
            return None
        if size is not None and self.bytes[at] != size:
            return None
        return int(self.bytes[at]), int(self.width[at]), int(self.height[at])

    def masks_of(self, image_id: str) -> int:
        """Return what `images.masks_read` says of an image, 0 where that is nothing."""
        at = self.place.get(image_id)
        return 0 if at is None else int(self.masks[at])


def head_of(root: Path, dataset: str) -> Head:
    """Return the newest revision of a data set; an empty one where there is none."""
    try:
        with manifest.reading(root) as connection:
            return head_in(connection, dataset)
    except NotInStoreError:
        return Head()


def head_in(connection: duckdb.DuckDBPyConnection, dataset: str) -> Head:
    """Return the newest revision that an open manifest has of a data set."""
    row = connection.execute("SELECT revision, source, layout FROM datasets WHERE dataset = ?", [dataset]).fetchone()
    return Head(*row) if row else Head()


def known_files(root: Path, dataset: str) -> KnownFiles | None:
    """Return the files of the newest revision, None where there is none."""
    query = (
        "SELECT image_id, path, bytes, mtime_ns, width, height, masks_read FROM images "
        "WHERE dataset = ? AND last_revision IS NULL"
    )
    try:
        with manifest.reading(root) as connection:
            return KnownFiles(connection.execute(query, [dataset]).fetchnumpy())
    except NotInStoreError:
        return None


def as_dicts(cursor: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Return the rows of an executed query as dicts."""
    names = [column[0] for column in cursor.description or []]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def staged_line(row: Mapping[str, Any], boxes: Iterable[Mapping[str, Any]]) -> str:
    """Return one image as ``record`` reads it: its columns, without those of ``FILE`` where its file is as it was."""
    return json.dumps({**row, "boxes": list(boxes)}) + "\n"


def record(
    connection: duckdb.DuckDBPyConnection,
    dataset: str,
    about: Mapping[str, Any],
    before: Head,
    staged: Path,
    problems: list[Problem],
) -> Counts:
    """Write a revision where anything changed; ``staged`` has a line of ``staged_line`` an image.

    ``about`` has the columns of `datasets` but its name and revision: source, layout, what masks and depth maps mean.

    Raises InputError where another process has written one since ``before`` was read.
    """
    if head_in(connection, dataset) != before:
        raise InputError(f"{dataset} was indexed by another process meanwhile: run the command again")
    compare(connection, dataset, staged)
    images, added, changed = connection.execute(
        "SELECT count(*), coalesce(count_if(added), 0), coalesce(count_if(changed), 0) FROM fresh"
    ).fetchall()[0]
    removed = connection.execute("SELECT count(*) FROM gone").fetchall()[0][0]
    fresh = bool(added or changed or removed or not before.revision or before.source != about["source"])
    revision = before.revision + fresh
    if fresh:
        write(connection, dataset, before.revision, revision)
        counts = {"added": added, "changed": changed, "removed": removed, "images": images}
        head = {"dataset": dataset, "revision": revision, "source": about["source"]}
        manifest.insert(connection, "revisions", [head | {"created_at": manifest.now()} | counts])
    named = {"dataset": dataset, "revision": revision}
    manifest.insert(connection, "datasets", [named | dict(about)], verb="INSERT OR REPLACE")
    connection.execute(
        f"UPDATE images SET {', '.join(f'{name} = f.{name}' for name in SEEN)} FROM fresh f "
        "WHERE images.dataset = ? AND images.image_id = f.image_id AND images.last_revision IS NULL "
        f"AND ({' OR '.join(f'images.{name} IS DISTINCT FROM f.{name}' for name in SEEN)})",
        [dataset],
    )
    connection.execute("DROP TABLE fresh; DROP TABLE gone")
    connection.execute("DELETE FROM failures WHERE dataset = ? AND digest IS NULL", [dataset])
    when = manifest.now()
    manifest.insert(
        connection, "failures", [asdict(problem) | {"dataset": dataset, "failed_at": when} for problem in problems]
    )
    return Counts(revision, images, added, changed, removed)


def compare(connection: duckdb.DuckDBPyConnection, dataset: str, staged: Path) -> None:
    """Make the tables ``fresh``, every image with whether it is added or changed, and ``gone``, the names of the others."""
    known = {row[0]: row[1] for row in connection.execute("DESCRIBE images").fetchall()}
    types = ", ".join(f"'{name}': '{known[name]}'" for name in ("image_id", *SEEN, *COLUMNS))
    connection.execute(
        f"CREATE TEMP TABLE staged AS SELECT * FROM read_json(?, format='newline_delimited', "
        f"columns={{{types}, 'boxes': '{BOX}[]'}}) QUALIFY row_number() OVER (PARTITION BY image_id) = 1",
        [str(staged)],
    )
    pack = ", ".join(f'"{name}" := "{name}"' for name in FIELDS)
    connection.execute(
        "CREATE TEMP TABLE known AS SELECT i.*, coalesce(o.boxes, []) AS boxes FROM images i LEFT JOIN "
        f"(SELECT image_id, first_revision, list(struct_pack({pack}) ORDER BY number) AS boxes FROM objects "
        "WHERE dataset = $name GROUP BY ALL) o USING (image_id, first_revision) "
        "WHERE i.dataset = $name AND i.last_revision IS NULL",
        {"name": dataset},
    )
    taken = ", ".join(f"coalesce(s.{name}, k.{name}) AS {name}" for name in FILE)
    differs = " OR ".join(f"s.{name} IS DISTINCT FROM k.{name}" for name in (*DESCRIBED, "boxes"))
    read = " OR ".join(f"(s.{name} IS NOT NULL AND s.{name} <> k.{name})" for name in FILE)
    connection.execute(
        f"CREATE TEMP TABLE fresh AS SELECT s.* EXCLUDE ({', '.join(FILE)}), {taken}, k.image_id IS NULL AS added, "
        f"k.image_id IS NOT NULL AND ({differs} OR {read}) AS changed FROM staged s LEFT JOIN known k USING (image_id)"
    )
    connection.execute(
        "CREATE TEMP TABLE gone AS SELECT image_id FROM known WHERE image_id NOT IN (SELECT image_id FROM staged)"
    )
    connection.execute("DROP TABLE staged; DROP TABLE known")


def write(connection: duckdb.DuckDBPyConnection, dataset: str, before: int, revision: int) -> None:
    """Close the revision range of images that are gone or changed, and add those that are new or changed, with their boxes."""
    connection.execute(
        "UPDATE images SET last_revision = ? WHERE dataset = ? AND last_revision IS NULL AND image_id IN "
        "(SELECT image_id FROM gone UNION ALL SELECT image_id FROM fresh WHERE changed)",
        [before, dataset],
    )
    columns = ", ".join((*SEEN, *COLUMNS))
    connection.execute(
        f"INSERT INTO images (dataset, image_id, first_revision, {columns}) "
        f"SELECT ?, image_id, ?, {columns} FROM fresh WHERE added OR changed",
        [dataset, revision],
    )
    fields = ", ".join(f'"{name}"' for name in FIELDS)
    connection.execute(
        f"INSERT INTO objects (dataset, image_id, first_revision, number, {fields}) SELECT ?, image_id, ?, number - 1, box.* "
        "FROM (SELECT image_id, unnest(boxes) AS box, generate_subscripts(boxes, 1) AS number "
        "FROM fresh WHERE added OR changed)",
        [dataset, revision],
    )
