"""The log of builds: when each began and ended, by which command, and what came of it."""

from pathlib import Path

import duckdb

from . import manifest
from .plan import Plan

__all__ = ["begin_build", "end_build"]


def begin_build(connection: duckdb.DuckDBPyConnection, plan: Plan, provenance: str) -> int:
    """Note in an open transaction that a build begins; returns its number. ``provenance`` is JSON."""
    query = "SELECT coalesce(max(build_id), 0) + 1 FROM builds"
    number = int(connection.execute(query).fetchall()[0][0])
    row = {"build_id": number, "dataset": plan.dataset, "backbone": plan.backbone, "digest": plan.recipe.digest}
    row |= {"started_at": manifest.now(), "wanted": plan.wanted, "present": plan.present, "provenance": provenance}
    manifest.insert(connection, "builds", [row])
    return number


def end_build(root: Path, number: int, computed: int, failed: int, shards: int, size: int) -> None:
    """Note what came of a build: images computed and failed, shards and bytes written."""
    with manifest.writing(root, create=False) as connection:
        connection.execute(
            "UPDATE builds SET finished_at = ?, computed = ?, failed = ?, shards = ?, bytes = ? WHERE build_id = ?",
            [manifest.now(), computed, failed, shards, size, number],
        )
