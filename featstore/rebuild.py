"""Make a lost or broken manifest again from what lies on the disk; the old one, where there is one, is kept."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from . import manifest
from .errors import FeatstoreError, InputError, LockedError, NewerError
from .places import as_remote
from .restoration import (
    Found,
    close_bare,
    restore_dataset,
    restore_denoisers,
    restore_shards,
    restore_version,
    versions_found,
)
from .root import build_lock, ensure_root
from .sealing import flush, storing
from .snapshots import FOLDER

__all__ = ["RebuildReport", "rebuild_manifest"]

TABLES = (
    "datasets",
    "revisions",
    "images",
    "objects",
    "versions",
    "shards",
    "features",
    "failures",
    "denoisers",
    "builds",
    "evaluations",
)


@dataclass
class RebuildReport:
    """What was found: rows by table, where the old manifest lies now, and what could not be restored or read."""

    manifest: str
    dry_run: bool
    kept: str | None = None
    rows: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def rebuild_manifest(
    root: Path, dry_run: bool = False, wait: float = 0.0, advance: Callable[[int], None] = lambda count: None
) -> RebuildReport:
    """Make the manifest of ``root`` from shards and from the notes beside them.

    The new one is made aside and takes its place when it is whole. Without notes (a store of an older featstore) versions are
    numbered in the order of their recipes' times, and of images only name and SHA-256 are known until they are indexed again.
    ``advance`` is told of every shard. Raises LockedError while a build runs, NewerError where a newer featstore wrote the
    manifest, InputError for a remote root, StoreError where the disk refuses.
    """
    if as_remote(root) is not None:
        raise InputError(
            f"{root} is remote: rebuild its manifest in a copy of the store (shards and notes), and copy it back"
        )
    if not root.is_dir():
        raise InputError(f"there is no store at {root}")
    ensure_root(root)
    path = manifest.manifest_path(root)
    report = RebuildReport(str(path), dry_run)
    refuse_newer(root)
    with build_lock(root, wait), tempfile.TemporaryDirectory(prefix=".rebuild-", dir=root) as place:
        fill(root, Path(place), report, advance)
        if dry_run:
            return report
        with storing(path):
            report.kept = put_aside(path)
            made = manifest.manifest_path(Path(place))
            flush(made)
            made.replace(path)
            flush(root)
    return report


def refuse_newer(root: Path) -> None:
    """Raise NewerError or LockedError where the manifest is of a newer featstore or in use: it is not lost."""
    try:
        with manifest.reading(root):
            pass
    except (NewerError, LockedError):
        raise
    except FeatstoreError:
        return  # lost or broken, which is what rebuilding is for


def put_aside(path: Path) -> str | None:
    """Give the old manifest another name, with its log where a killed process left one; returns it."""
    log = path.with_name(path.name + ".wal")
    if not path.exists() and not log.exists():
        return None
    number = 1
    while (kept := path.with_name(f"{path.name}.before-{number}")).exists():
        number += 1
    if path.exists():
        path.rename(kept)
    if log.exists():
        log.rename(kept.with_name(kept.name + ".wal"))
    return str(kept)


def fill(root: Path, place: Path, report: RebuildReport, advance: Callable[[int], None]) -> None:
    """Write a new manifest in the folder ``place``."""
    found = versions_found(root)
    names = {path.parent.parent.name for path in root.glob(f"*/{FOLDER}/*.json")} | {one.dataset for one in found}
    with manifest.writing(place) as connection:
        for name in sorted(names):
            restore_dataset(connection, root, name)
        for one in in_order(found):
            report.notes += restore_version(connection, one)
    for one in found:
        report.notes += restore_shards(place, root, one, advance)
    with manifest.writing(place) as connection:
        for name in sorted(names):
            report.notes += close_bare(connection, name)
        report.notes += restore_denoisers(connection, root)
    with manifest.reading(place) as connection:
        for table in TABLES:
            report.rows[table] = int(connection.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0])


def in_order(found: list[Found]) -> Iterator[Found]:
    """Yield versions with a number first, then the others by time, so that those get the numbers left."""
    yield from sorted(found, key=lambda one: (one.note is None, one.made_at, one.digest))
