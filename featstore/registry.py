"""What the manifest is told of versions and shards: the one committer."""

from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path

import duckdb

from . import manifest
from .builds import begin_build
from .compute import VARIANTS
from .errors import CorruptError
from .layout import PREFIX_SUM
from .pending import is_whole
from .places import listed
from .plan import Plan
from .shard import ShardContents, read_contents

__all__ = [
    "PATTERN",
    "adopt",
    "commit_shard",
    "feature_rows",
    "forget_damaged",
    "free_shard_numbers",
    "register_version",
    "shard_row",
]

PATTERN = "shard-*.h5"


def register_version(root: Path, plan: Plan, method: str, provenance: str) -> tuple[str, int | None]:
    """Make sure that the version is listed, and its build where there is something to do.

    Returns "v1", "v2" … and the build's number in the log, None for one that has nothing to do.
    """
    with manifest.writing(root, create=False) as connection:
        key = [plan.dataset, plan.backbone]
        known = connection.execute(
            "SELECT number FROM versions WHERE dataset = ? AND backbone = ? AND digest = ?", [*key, plan.recipe.digest]
        ).fetchone()
        number = int(known[0]) if known else add_version(connection, plan, method, provenance)
        if not plan.todo:
            return f"v{number}", None
        if known:
            connection.execute(
                "UPDATE versions SET provenance = ? WHERE dataset = ? AND backbone = ? AND digest = ?",
                [provenance, *key, plan.recipe.digest],
            )
        return f"v{number}", begin_build(connection, plan, provenance)


def add_version(connection: duckdb.DuckDBPyConnection, plan: Plan, method: str, provenance: str) -> int:
    """List a new version; returns its number."""
    key = [plan.dataset, plan.backbone]
    number = number_of(connection, plan.dataset, plan.backbone, plan.recipe.digest)
    identity = following(connection, "versions", "version_id")
    connection.execute(
        "INSERT INTO versions VALUES (?, ?, ?, ?, ?, NULL, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            *(identity, *key, plan.recipe.digest, number, method, *plan.grid, plan.channels, plan.prefix_tokens),
            *(plan.recipe.text, provenance, manifest.now()),
        ],
    )
    connection.execute(
        "DELETE FROM removed WHERE dataset = ? AND backbone = ? AND digest = ?", [*key, plan.recipe.digest]
    )
    return number


def number_of(connection: duckdb.DuckDBPyConnection, dataset: str, backbone: str, digest: str) -> int:
    """Return the number of a version that is to be listed: its old one where it was removed, else one never used before."""
    key = [dataset, backbone]
    old = connection.execute(
        "SELECT number FROM removed WHERE dataset = ? AND backbone = ? AND digest = ? AND number IS NOT NULL",
        [*key, digest],
    ).fetchone()
    if old is not None:
        return int(old[0])
    where = "WHERE dataset = ? AND backbone = ?"
    return max(following(connection, table, "number", where, key) for table in ("versions", "removed"))


def following(
    connection: duckdb.DuckDBPyConnection, table: str, column: str, where: str = "", values: list[str] | None = None
) -> int:
    """Return one more than the largest number in a column, 1 where there is none."""
    row = connection.execute(f"SELECT coalesce(max({column}), 0) + 1 FROM {table} {where}", values or []).fetchone()
    return int(row[0]) if row else 1


def commit_shard(root: Path, path: Path, contents: ShardContents, seconds: Mapping[str, float]) -> None:
    """List a sealed shard, its features and its failures in one transaction; earlier rows of the same images give way.

    ``seconds`` is what each image took, by SHA-256 [s]; it is not in the shard, whose bytes must not depend on the clock.
    A shard in which every image failed is removed once its failures are listed.
    """
    header = contents.header
    with manifest.writing(root, create=False) as connection:
        if contents.image_ids:
            shard_id = following(connection, "shards", "shard_id")
            manifest.insert(connection, "shards", [shard_row(root, path, contents, shard_id)])
            manifest.insert(connection, "features", feature_rows(contents, shard_id, seconds), verb="INSERT OR REPLACE")
        seen = [*contents.sha256s, *(failure.sha256 for failure in contents.failures)]
        connection.execute(
            "DELETE FROM failures WHERE dataset = ? AND digest = ? AND list_contains(CAST(? AS VARCHAR[]), sha256)",
            [header.dataset, header.digest, seen],
        )
        when = manifest.now()
        manifest.insert(
            connection,
            "failures",
            [
                vars(failure) | {"dataset": header.dataset, "digest": header.digest, "failed_at": when}
                for failure in contents.failures
            ],
        )
    if not contents.image_ids:
        path.unlink()


def shard_row(root: Path, path: Path, contents: ShardContents, shard_id: int) -> dict[str, object]:
    """Return the row of ``shards`` of a sealed shard."""
    header = contents.header
    row: dict[str, object] = {
        "shard_id": shard_id,
        "path": path.relative_to(root).as_posix(),
        "dataset": header.dataset,
    }
    row |= {"backbone": header.backbone, "digest": header.digest, "variants": list(header.variants)}
    row |= {"grid_height": header.grid[0], "grid_width": header.grid[1]}
    row |= {"codec": header.codecs, "samples": len(contents.image_ids), "bytes": contents.bytes}
    return row | {"checksum": contents.digest, "sealed_at": manifest.now()}


def feature_rows(contents: ShardContents, shard_id: int, seconds: Mapping[str, float]) -> list[dict[str, object]]:
    """Return one row of ``features`` a sample."""
    rows = []
    for row, sha256 in enumerate(contents.sha256s):
        entry: dict[str, object] = {"digest": contents.header.digest, "sha256": sha256, "shard_id": shard_id}
        entry |= {"shard_row": row, "seconds": seconds.get(sha256)} | {
            name: float(values[row]) for name, values in contents.stats.items()
        }
        for column, variant in enumerate(contents.header.variants):
            if variant in VARIANTS:
                entry[f"checksum_{variant}"] = int(contents.checksums[row, column])
        if contents.prefix_checksums is not None:
            entry[PREFIX_SUM] = int(contents.prefix_checksums[row])
        rows.append(entry)
    return rows


def adopt(root: Path, plan: Plan) -> tuple[int, list[str]]:
    """List shards that were sealed but not yet listed when an earlier build was killed.

    Returns how many, and a line for each file in the folder that is no shard of this version and is left alone.
    """
    with manifest.reading(root) as connection:
        rows = connection.execute("SELECT path FROM shards WHERE digest = ?", [plan.recipe.digest]).fetchall()
    listed = {row[0] for row in rows}
    adopted, foreign = 0, []
    for path in sorted(plan.folder.glob(PATTERN)):
        if path.relative_to(root).as_posix() in listed:
            continue
        try:
            contents = read_contents(path)
        except CorruptError as error:
            foreign.append(f"left alone: {error}")
            continue
        if contents.header.digest != plan.recipe.digest:
            foreign.append(f"left alone: {path} belongs to another recipe")
            continue
        commit_shard(root, path, contents, {})
        adopted += 1
    return adopted, foreign


def forget_damaged(root: Path, digest: str) -> list[str]:
    """Take shards of a recipe that are gone or cut short off the manifest, so that they are computed again."""
    query = "SELECT shard_id, path, bytes FROM shards WHERE digest = ?"
    with manifest.reading(root) as connection:
        rows = connection.execute(query, [digest]).fetchall()
    root = listed(root) if len(rows) > 1 else root
    damaged = [(shard_id, path) for shard_id, path, size in rows if not is_whole(root / path, size)]
    if damaged:
        with manifest.writing(root, create=False) as connection:
            for shard_id, _ in damaged:
                connection.execute("DELETE FROM features WHERE shard_id = ?", [shard_id])
                connection.execute("DELETE FROM shards WHERE shard_id = ?", [shard_id])
    return [path for _, path in damaged]


def free_shard_numbers(root: Path, folder: Path) -> Iterator[int]:
    """Yield the numbers that no shard of this folder bears, on disk or in the manifest, lowest first.

    Several workers seal in no fixed order: a build that is killed leaves gaps, which must be filled for the next one to end
    with the names and bytes of a build that nobody disturbed.
    """
    prefix = folder.relative_to(root).as_posix()
    with manifest.reading(root) as connection:
        rows = connection.execute("SELECT path FROM shards WHERE starts_with(path, ?)", [prefix + "/"]).fetchall()
    names = [Path(row[0]).name for row in rows] + [path.name for path in folder.glob(PATTERN)]
    taken = {int(name[6:-3]) for name in names if name[6:-3].isdigit()}
    return (number for number in count() if number not in taken)
