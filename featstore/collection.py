"""Delete garbage: rows that refer to it first, then files, then the rows that tell of the files."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import duckdb

from . import manifest
from .errors import RemoteError, StoreError
from .garbage import GarbagePlan, plan_garbage
from .places import as_remote
from .root import build_lock, ensure_root

__all__ = ["collect_garbage"]


def collect_garbage(
    root: Path,
    old_revisions: bool = False,
    wait: float = 0.0,
    planned: Callable[[GarbagePlan], None] = lambda plan: None,
) -> GarbagePlan:
    """Delete what ``plan_garbage`` finds, and return that; ``planned`` is told before anything is deleted.

    Killed at any moment nothing is lost and the next call goes on: features are taken off the manifest before their file
    goes, so that no reader is sent to a file that is not there, and a shard's own row goes after its file, so that a file
    that is still there is known for what it is. Raises LockedError while a build runs, StoreError where a file cannot be
    deleted.
    """
    manifest.require(root)
    ensure_root(root)
    with build_lock(root, wait):
        plan = plan_garbage(root, old_revisions, alone=True)
        planned(plan)
        forget_features(root, plan)
        for item in plan.garbage:
            delete(root / item.path)
        remove_empty(root)
        forget_shards(root, plan)
    return plan


def doom(writer: duckdb.DuckDBPyConnection, plan: GarbagePlan) -> None:
    """Make the temporary table ``doomed`` of shard ids."""
    writer.execute("CREATE TEMP TABLE doomed (shard_id INTEGER)")
    manifest.insert(writer, "doomed", ({"shard_id": i.shard_id} for i in plan.garbage if i.shard_id is not None))


def forget_features(root: Path, plan: GarbagePlan) -> None:
    """Take the features off the manifest that lie in doomed shards, belong to no version, or lie nowhere."""
    if not plan.rows and all(item.shard_id is None for item in plan.garbage):
        return
    with manifest.writing(root) as writer:
        doom(writer, plan)
        writer.execute(
            "DELETE FROM features WHERE shard_id IN (FROM doomed) OR digest NOT IN (SELECT digest FROM versions) "
            "OR shard_id NOT IN (SELECT shard_id FROM shards)"
        )


def delete(path: Path) -> None:
    """Delete a file that may be gone already; raises StoreError where it cannot be."""
    try:
        path.unlink(missing_ok=True)
    except RemoteError:
        raise
    except OSError as error:
        raise StoreError(
            f"cannot delete {path}: {error.strerror}; what is left goes with the next featstore gc"
        ) from error


def remove_empty(root: Path) -> None:
    """Remove empty folders below the root."""
    if as_remote(root) is not None:  # folders of object stores are but beginnings of names
        return
    for folder, _, _ in os.walk(root, topdown=False):
        path = Path(folder)
        if path != root:
            with suppress(OSError):
                path.rmdir()


def forget_shards(root: Path, plan: GarbagePlan) -> None:
    """Take deleted shards off the manifest, and note which removed versions are wholly gone."""
    doomed = any(item.shard_id is not None for item in plan.garbage)
    if not doomed and not plan.gone:
        return
    with manifest.writing(root) as writer:
        doom(writer, plan)
        writer.execute("DELETE FROM shards WHERE shard_id IN (FROM doomed)")
        writer.execute(
            "UPDATE removed SET purged_at = ? WHERE purged_at IS NULL AND list_contains(CAST(? AS VARCHAR[]), "
            "dataset || '/' || backbone || '/' || left(digest, 12))",
            [manifest.now(), sorted(plan.gone)],
        )
