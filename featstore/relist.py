"""Bring the manifest's rows of one shard in line with the file."""

from collections.abc import Mapping
from pathlib import Path

from . import manifest
from .listed import stored_images
from .registry import feature_rows, shard_row
from .shard import ShardContents

__all__ = ["drop_dangling", "relist_shard"]


def relist_shard(
    root: Path, shard_id: int, path: Path, contents: ShardContents, seconds: Mapping[str, float] | None = None
) -> None:
    """Replace the rows of a shard and of its features by what the file holds; its number stays.

    Samples that another shard holds for the manifest stay that one's. ``seconds`` are what images took that were computed
    again, by SHA-256 [s]; the others keep theirs. A shard without samples is taken off, and its file removed.
    """
    header, took = contents.header, dict(seconds or {})
    with manifest.writing(root) as connection:
        known = connection.execute("SELECT sha256, seconds FROM features WHERE shard_id = ?", [shard_id]).fetchall()
        connection.execute("DELETE FROM features WHERE shard_id = ?", [shard_id])
        connection.execute("DELETE FROM shards WHERE shard_id = ?", [shard_id])
    failed = [failure.sha256 for failure in contents.failures]
    others = stored_images(root, header.digest, [*contents.sha256s, *failed])
    rows = feature_rows(contents, shard_id, {sha256: value for sha256, value in known if value is not None} | took)
    with manifest.writing(root) as connection:
        if contents.image_ids:
            manifest.insert(connection, "shards", [shard_row(root, path, contents, shard_id)])
            manifest.insert(connection, "features", [row for row in rows if row["sha256"] not in others])
        seen = [*contents.sha256s, *failed]
        connection.execute(
            "DELETE FROM failures WHERE dataset = ? AND digest = ? AND list_contains(CAST(? AS VARCHAR[]), sha256)",
            [header.dataset, header.digest, seen],
        )
        told = {"dataset": header.dataset, "digest": header.digest, "failed_at": manifest.now()}
        failures = [vars(failure) | told for failure in contents.failures if failure.sha256 not in others]
        manifest.insert(connection, "failures", failures)
    if not contents.image_ids:
        path.unlink(missing_ok=True)


def drop_dangling(root: Path, dry_run: bool = False) -> int:
    """Take features off the manifest that point to no sample of any shard; returns how many there are."""
    condition = (
        "FROM features WHERE shard_id NOT IN (SELECT shard_id FROM shards) OR shard_row < 0 OR EXISTS "
        "(SELECT 1 FROM shards s WHERE s.shard_id = features.shard_id AND features.shard_row >= s.samples)"
    )
    with manifest.reading(root) as connection:
        count = int(connection.execute(f"SELECT count(*) {condition}").fetchall()[0][0])
    if count and not dry_run:
        with manifest.writing(root) as connection:
            connection.execute(f"DELETE {condition}")
    return count
