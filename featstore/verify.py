"""Verify a store: every byte of every shard, every row of the manifest. Finds all there is, changes nothing."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from . import manifest
from .denoiser_check import check_denoisers
from .errors import CorruptError
from .examination import Row, examine
from .findings import Finding, VerifyReport
from .listed import ListedShard, features_of, listed_shards, scope_versions
from .table_checks import check_manifest, check_recipes, check_strays
from .trailer import LENGTH, digest_before, read_trailer

__all__ = ["Watcher", "check_shard", "verify_store"]

THREADS = max(1, min(4, os.cpu_count() or 1))
GROUP = 32
"""How many shards' rows are fetched from the manifest at a time: it is held for that moment only."""


@dataclass(frozen=True)
class Watcher:
    """Who is told how a verification goes: ``started`` with how many samples there are, ``advanced`` with those done."""

    started: Callable[[int], None] = lambda count: None
    advanced: Callable[[int], None] = lambda count: None


def verify_store(
    root: Path, name: str | None = None, quick: bool = False, watcher: Watcher | None = None
) -> VerifyReport:
    """Look at a whole store, a data set or a version, and report all that is not as it should be.

    ``quick`` looks at sizes, last lines and tables and reads no features. A shard is read a sample at a time, several shards at
    once. Raises NotInStoreError for a name that means nothing, CorruptError for a manifest that cannot be opened.
    """
    watcher, started = watcher or Watcher(), time.monotonic()
    with manifest.reading(root) as connection:
        versions = scope_versions(connection, name)
        everything = listed_shards(connection)
        digests = {version.digest for version in versions}
        shards = everything if name is None else [shard for shard in everything if shard.digest in digests]
        findings = list(check_manifest(connection)) + list(check_recipes(root, connection, versions, shards))
        denoisers = check_denoisers(root, connection, versions if name else None, quick)
    findings += denoisers
    folders = {shard.folder for shard in shards} | {f"{v.dataset}/{v.backbone}/{v.digest[:12]}" for v in versions}
    findings += check_strays(root, everything, sorted(folders))
    watcher.started(sum(shard.samples for shard in shards))
    owners = {shard.checksum: shard.path for shard in everything if shard.checksum}
    findings += check_shards(root, shards, quick, owners, watcher.advanced)
    return VerifyReport(
        root=str(root),
        scope=name or "the whole store",
        quick=quick,
        versions=len(versions),
        shards=len(shards),
        samples=sum(shard.samples for shard in shards),
        bytes=0 if quick else sum(shard.bytes for shard in shards),
        seconds=time.monotonic() - started,
        findings=tuple(findings),
    )


def check_shards(
    root: Path, shards: Sequence[ListedShard], quick: bool, owners: Mapping[str, str], advance: Callable[[int], None]
) -> list[Finding]:
    """Check shards several at a time; returns what was found, in their order."""
    found: list[Finding] = []
    with ThreadPoolExecutor(THREADS) as pool:
        jobs: deque[Future[list[Finding]]] = deque()
        for shard, rows in with_rows(root, shards):
            jobs.append(pool.submit(check_shard, root, shard, rows, quick, owners, advance))
            while len(jobs) > 2 * THREADS:
                found += jobs.popleft().result()
        for job in jobs:
            found += job.result()
    return found


def with_rows(root: Path, shards: Sequence[ListedShard]) -> Iterator[tuple[ListedShard, Sequence[Row]]]:
    """Yield each shard with its rows of the manifest."""
    for start in range(0, len(shards), GROUP):
        group = shards[start : start + GROUP]
        rows = features_of(root, [shard.shard_id for shard in group])
        yield from ((shard, rows[shard.shard_id]) for shard in group)


def check_shard(
    root: Path,
    listed: ListedShard,
    rows: Sequence[Row],
    quick: bool = False,
    owners: Mapping[str, str] | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> list[Finding]:
    """Return all that is wrong with one shard; ``advance`` is told of its samples."""
    told = 0

    def forward(count: int) -> None:
        nonlocal told
        told += count
        advance(count)

    try:
        found = list(check_file(root, listed, quick, owners or {}))
        if not any(finding.kind in ("missing", "swapped") for finding in found):
            found += examine(root, listed, rows, forward, samples=not quick)
    except OSError as error:
        found = [Finding("unreadable", listed.path, error.strerror or str(error))]
    advance(listed.samples - told)
    return [Finding("removed", f.path, f.text) if f.kind == "missing" and listed.removed else f for f in found]


def check_file(root: Path, listed: ListedShard, quick: bool, owners: Mapping[str, str]) -> Iterator[Finding]:
    """Yield what a shard's length and digests tell, HDF5 aside. ``owners`` are the paths of all shards by their digest."""
    path = root / listed.path
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        yield Finding("missing", listed.path, f"{listed.samples} samples of {listed.digest[:12]} are gone with it")
        return
    trailer = trailer_of(path)
    actual = trailer
    if not quick and (listed.checksum or trailer):
        with path.open("rb") as file:
            actual = digest_before(file, size - LENGTH)
    owner = owners.get(trailer or "")
    if trailer and trailer == actual and listed.checksum not in (None, trailer) and (owner or not quick):
        yield Finding("swapped", listed.path, f"it is {owner}" if owner else "a whole shard, but not the one listed")
    elif size != listed.bytes:
        how = "cut short" if size < listed.bytes else "grown"
        yield Finding("size", listed.path, f"{how}: {size:,} bytes, sealed with {listed.bytes:,}")
    elif trailer != actual and actual == listed.checksum:
        yield Finding("changed", listed.path, "its last line is damaged, all before it is whole")
    elif trailer != actual or listed.checksum not in (None, trailer):
        yield Finding("changed", listed.path, "its bytes are not those that were sealed")
    elif listed.checksum is None and not trailer:
        yield Finding("format 1", listed.path, "made by an older featstore")


def trailer_of(path: Path) -> str | None:
    """Return the digest of a shard's last line, None where it has no such line."""
    try:
        return read_trailer(path)
    except CorruptError:
        return None
