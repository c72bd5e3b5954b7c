"""Which images are left to compute: DuckDB compares what is wanted with what is stored, and only what is left comes here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from .errors import QueryError
from .manifest import first_line
from .places import images_folder, joined, listed
from .query import check_condition

__all__ = ["Pending", "Planned", "StoredRaw", "find_pending", "first_by_sha256", "is_whole"]


@dataclass(frozen=True, slots=True)
class StoredRaw:
    """Where the raw map of an image lies, and its checksum."""

    shard: Path
    row: int
    checksum: int


@dataclass(frozen=True, slots=True)
class Planned:
    """One image to compute; ``path`` is absolute. ``stored`` is its raw map where that is to be cleaned, not the image.

    ``given`` is what the decomposer takes in place of both. ``size`` is the image's (height, width) [pixels],
    ``grid`` (H, W) that of its maps where grids differ.
    """

    image_id: str
    path: str
    sha256: str
    bytes: int
    stored: StoredRaw | None = None
    given: Any = None
    size: tuple[int, int] = (0, 0)
    grid: tuple[int, int] | None = None


@dataclass(frozen=True)
class Pending:
    """Images to compute, each SHA-256 once, those that failed before last; how many are wanted, there, and given up.

    ``variants`` are those that images to compute have stored already, which their new shards have to hold as well.
    """

    todo: tuple[Planned, ...]
    variants: frozenset[str]
    wanted: int
    present: int
    given_up: int


def find_pending(
    connection: duckdb.DuckDBPyConnection,
    root: Path,
    digest: str,
    variants: Sequence[str],
    where: str | None = None,
    limit: int | None = None,
    retry_failed: bool = False,
    stored: str | None = None,
    given: Mapping[str, Any] | None = None,
) -> Pending:
    """Compare on a connection restricted to one data set; the parameters are those of ``Request``.

    An image that failed at a step other than ``read``, which may pass next time, is given up unless ``retry_failed``. Raises
    QueryError for a wrong ``where``.
    """
    list_wanted(connection, where, limit, stored, given)
    list_whole(connection, root, digest)
    state = (
        "SELECT w.*, h.variants AS held, coalesce(list_has_all(h.variants, CAST($variants AS VARCHAR[])), false) AS present, "
        "x.step FROM wanted w LEFT JOIN (SELECT f.sha256, s.variants FROM manifest.features f JOIN whole s USING (shard_id) "
        "WHERE f.digest = $digest) h USING (sha256) LEFT JOIN (SELECT sha256, max(step) AS step FROM failures "
        "WHERE digest = $digest GROUP BY sha256) x USING (sha256)"
    )
    up = "NOT present AND held IS NULL AND coalesce(step, 'read') <> 'read' AND NOT $retry"
    known = {"variants": list(variants), "digest": digest}
    counts = connection.execute(
        f"SELECT count(*), coalesce(count_if(present), 0), coalesce(count_if({up}), 0) FROM ({state})",
        known | {"retry": retry_failed},
    ).fetchall()[0]
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE todo AS SELECT image_id, path, sha256, bytes, height, width, held, "
        f"step IS NOT NULL AS failed FROM ({state}) WHERE NOT present AND NOT ({up}) "
        "QUALIFY row_number() OVER (PARTITION BY sha256 ORDER BY image_id) = 1",
        known | {"retry": retry_failed},
    )
    held = connection.execute("SELECT DISTINCT unnest(held) FROM todo").fetchall()
    return Pending(planned(connection, root, stored, given), frozenset(row[0] for row in held), *counts)


def list_wanted(
    connection: duckdb.DuckDBPyConnection,
    where: str | None,
    limit: int | None,
    stored: str | None,
    given: Mapping[str, Any] | None,
) -> None:
    """Make the table ``wanted``: the current images that are asked for."""
    condition = check_condition(where) if where else "true"
    parts, known = [f"({condition}\n)"], {}
    if stored is not None:
        parts.append(f"sha256 IN (SELECT sha256 FROM ({RAW}))")
        known["raw"] = stored
    if given is not None:
        parts.append("sha256 IN (SELECT unnest(CAST($given AS VARCHAR[])))")
        known["given"] = list(given)  # type: ignore[assignment]
    sql = f"SELECT image_id, path, sha256, bytes, height, width FROM images WHERE {' AND '.join(parts)}"
    sql += f" ORDER BY image_id LIMIT {int(limit)}" if limit is not None else ""
    try:
        connection.execute(f"CREATE OR REPLACE TEMP TABLE wanted AS {sql}", known)
    except duckdb.Error as error:
        raise QueryError(f"--where {where!r}: {first_line(str(error))}") from error


RAW = (
    "SELECT f.sha256, s.path, f.shard_row, f.checksum_raw FROM manifest.features f JOIN manifest.shards s "
    "USING (shard_id) WHERE f.digest = $raw AND list_contains(s.variants, 'raw')"
)


def list_whole(connection: duckdb.DuckDBPyConnection, root: Path, digest: str) -> None:
    """Make the table ``whole``: shards of a recipe, in whatever data set, that are there at their full length."""
    shards = connection.execute(
        "SELECT shard_id, path, bytes FROM manifest.shards WHERE digest = ?", [digest]
    ).fetchall()
    root = listed(root) if len(shards) > 1 else root
    whole = [shard_id for shard_id, path, size in shards if is_whole(root / path, size)]
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE whole AS SELECT shard_id, variants FROM manifest.shards "
        "WHERE shard_id IN (SELECT unnest(CAST(? AS INTEGER[])))",
        [whole],
    )


def is_whole(path: Path, size: int) -> bool:
    """Whether a sealed shard is still there at its full length; its checksums are verified elsewhere."""
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def planned(
    connection: duckdb.DuckDBPyConnection, root: Path, stored: str | None, given: Mapping[str, Any] | None
) -> tuple[Planned, ...]:
    """Return the table ``todo`` in the order of the shards: so that a retry moves no other's, those that failed come last."""
    folder = folder_of(connection)
    columns, beside, known = "", "", {}
    if stored is not None:
        columns, beside = ", r.path, r.shard_row, r.checksum_raw", f"JOIN ({RAW}) r USING (sha256)"
        known["raw"] = stored
    rows = connection.execute(
        f"SELECT image_id, t.path, sha256, bytes, height, width{columns} FROM todo t {beside} ORDER BY failed, image_id",
        known,
    ).fetchall()
    return tuple(
        Planned(
            row[0],
            joined(folder, row[1]),
            row[2],
            row[3],
            StoredRaw(root / row[6], row[7], row[8]) if stored is not None else None,
            given[row[2]] if given is not None else None,
            (row[4], row[5]),
        )
        for row in rows
    )


def first_by_sha256(connection: duckdb.DuckDBPyConnection, count: int, where: str | None = None) -> list[Planned]:
    """Return ``count`` images of the one data set that a restricted connection sees, the first by SHA-256, each once.

    Only those for which the condition ``where`` holds. Raises QueryError for a wrong one.
    """
    folder = folder_of(connection)
    condition = check_condition(where) if where else "true"
    sql = (
        f"SELECT image_id, path, sha256, bytes FROM images WHERE ({condition}\n) "
        "QUALIFY row_number() OVER (PARTITION BY sha256 ORDER BY image_id) = 1 ORDER BY sha256 LIMIT ?"
    )
    try:
        rows = connection.execute(sql, [count]).fetchall()
    except duckdb.Error as error:
        raise QueryError(f"--where {where!r}: {first_line(str(error))}") from error
    return [Planned(row[0], joined(folder, row[1]), row[2], row[3]) for row in rows]


def folder_of(connection: duckdb.DuckDBPyConnection) -> str:
    """Return the folder of the images of the one data set that a restricted connection sees."""
    return str(images_folder(connection.execute("SELECT source FROM datasets").fetchall()[0][0]))
