"""Remove versions and data sets from the manifest; their files wait for ``gc``, and a build until then takes them back."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from . import manifest
from .errors import InputError, NotInStoreError
from .notes import keep_notes
from .query import check_dataset, viewed
from .root import build_lock, ensure_root
from .snapshots import forget_snapshots
from .versions import Version, find_version, list_versions

__all__ = ["Removal", "remove_dataset", "remove_version"]

TABLES = ("objects", "images", "revisions", "failures", "datasets")


@dataclass(frozen=True)
class Removal:
    """What was removed. ``bytes`` and ``shards`` wait for ``gc``, ``kept_shards`` stay because another version refers to them.

    ``notes`` are lines about what the versions were used for.
    """

    dataset: str | None
    versions: tuple[str, ...]
    images: int
    shards: int
    bytes: int
    kept_shards: int
    notes: tuple[str, ...]


def remove_version(root: Path, name: str, force: bool = False, dry_run: bool = False) -> Removal:
    """Take one version off the manifest and remember that it was.

    Raises NotInStoreError for an unknown version, InputError for a tagged one without ``force``, LockedError while a build
    runs.
    """
    with alone(root, dry_run):
        with viewed(root) as connection:
            try:
                version = find_version(connection, name)
            except NotInStoreError as error:
                known = connection.execute("SELECT count(*) FROM datasets WHERE dataset = ?", [name]).fetchall()[0][0]
                hint = f"; featstore rm {name} --dataset removes the data set with all its versions" if known else ""
                raise NotInStoreError(f"{error}{hint}") from error
            removal = describe(connection, None, [version], force)
        if not dry_run:
            with manifest.writing(root) as writer:
                bury(writer, [version])
            keep_notes(root, version.dataset)
    return removal


def remove_dataset(root: Path, dataset: str, force: bool = False, dry_run: bool = False) -> Removal:
    """Take a data set off the manifest: all its versions, its images in every revision and their boxes. Denoisers stay.

    Raises NotInStoreError for an unknown data set, InputError where a version is tagged, without ``force``, LockedError while
    a build runs.
    """
    with alone(root, dry_run):
        with viewed(root) as connection:
            check_dataset(connection, dataset)
            versions = [one for one in list_versions(connection) if one.dataset == dataset]
            removal = describe(connection, dataset, versions, force)
        if not dry_run:
            with manifest.writing(root) as writer:
                bury(writer, versions)
                for table in TABLES:
                    writer.execute(f"DELETE FROM {table} WHERE dataset = ?", [dataset])
            forget_snapshots(root, dataset)
            keep_notes(root, dataset)
    return removal


@contextmanager
def alone(root: Path, dry_run: bool) -> Iterator[None]:
    """Hold the build lock of a store that is there, unless nothing is to be written."""
    manifest.require(root)
    if dry_run:
        yield
        return
    ensure_root(root)
    with build_lock(root):
        yield


def describe(
    connection: duckdb.DuckDBPyConnection, dataset: str | None, versions: list[Version], force: bool
) -> Removal:
    """Say what removing the versions (and the data set) leaves behind; raises InputError for a tagged one."""
    tagged = [one for one in versions if one.tag]
    if tagged and not force:
        names = ", ".join(f"{one.name} ({one.tag})" for one in tagged)
        raise InputError(f"{names} is tagged: --force removes it all the same")
    gone = [one.version_id for one in versions]
    digests = [one.digest for one in versions]
    # A shard stays where a version that is left lists one of its images.
    rows = connection.execute(
        "SELECT s.bytes, bool_or(l.sha256 IS NOT NULL) FROM manifest.shards s JOIN manifest.features f USING (shard_id) "
        "LEFT JOIN (SELECT DISTINCT v.digest, i.sha256 FROM versions v JOIN manifest.images i USING (dataset) "
        "WHERE NOT list_contains(?::INTEGER[], v.version_id)) l ON l.digest = f.digest AND l.sha256 = f.sha256 "
        "WHERE list_contains(?::VARCHAR[], s.digest) GROUP BY s.shard_id, s.bytes",
        [gone, digests],
    ).fetchall()
    images = connection.execute("SELECT count(*) FROM images WHERE dataset = ?", [dataset]).fetchall()[0][0]
    lineage = connection.execute(
        "SELECT dataset || '/' || backbone || '/d' || number, trained_on FROM denoisers "
        "WHERE list_contains(?::VARCHAR[], trained_on) OR dataset = ? ORDER BY 1",
        [digests, dataset],
    ).fetchall()
    free = [size for size, listed in rows if not listed]
    return Removal(
        dataset=dataset,
        versions=tuple(one.name for one in versions),
        images=images if dataset else 0,
        shards=len(free),
        bytes=sum(free),
        kept_shards=len(rows) - len(free),
        notes=tuple(f"the denoiser {name}, trained on it, stays" for name, _ in lineage),
    )


def bury(writer: duckdb.DuckDBPyConnection, versions: list[Version]) -> None:
    """Move versions from ``versions`` to ``removed``, and forget what failed in them and what they were worth."""
    when = manifest.now()
    for one in versions:
        key = [one.dataset, one.backbone, one.digest]
        writer.execute(
            "INSERT OR REPLACE INTO removed (dataset, backbone, digest, removed_at, number) VALUES (?, ?, ?, ?, ?)",
            [*key, when, one.number],
        )
        writer.execute("DELETE FROM versions WHERE version_id = ?", [one.version_id])
        writer.execute("DELETE FROM failures WHERE dataset = ? AND digest = ?", [one.dataset, one.digest])
        writer.execute("DELETE FROM evaluations WHERE dataset = ? AND backbone = ? AND digest = ?", key)
