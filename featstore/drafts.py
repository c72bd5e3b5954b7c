"""What a damaged shard should be again, from the manifest, from its neighbours and from what is left of it."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from . import manifest
from .compute import FINE
from .contents import Failure, ShardContents
from .errors import CorruptError, FeatstoreError
from .examination import Row
from .findings import Finding
from .layout import FLOAT16, INT8, ShardHeader
from .listed import ListedShard, image_places
from .registry import PATTERN
from .remake import Draft, readable, slots_of
from .shard import read_contents
from .trailer import LENGTH, digest_before, read_trailer

__all__ = ["drafts_of", "is_sealed", "whole_digest"]

T = TypeVar("T")
COMMAND = frozenset({"command", "git", "reproduce"})
"""What a version's provenance has beside the environment, which alone stands in shards."""


def whole_digest(path: Path) -> str | None:
    """Return the digest that a file's last line tells where its bytes agree, None otherwise."""
    try:
        told = read_trailer(path)
        with path.open("rb") as file:
            return told if digest_before(file, path.stat().st_size - LENGTH) == told else None
    except (CorruptError, OSError):
        return None


def is_sealed(root: Path, listed: ListedShard) -> bool:
    """Whether a shard's file is the one that was sealed, whatever the manifest's rows say of it."""
    return listed.checksum is not None and whole_digest(root / listed.path) == listed.checksum


def drafts_of(root: Path, listed: ListedShard, rows: Sequence[Row], findings: Iterable[Finding]) -> Iterator[Draft]:
    """Yield what a shard may have been, the likeliest first; they differ in what the manifest does not tell for certain."""
    path = root / listed.path
    contents = readable(path, listed)
    neighbours = [one for one in neighbours_of(path) if one.header.digest == listed.digest]
    images = {row["sha256"] for row in rows} | {*(contents.sha256s if contents else ())}
    slots = tuple(slots_of(listed.samples, rows, contents, image_places(root, listed.dataset, sorted(images))))
    unsummed = frozenset(row for finding in findings if finding.kind == "residual" for row in finding.rows)
    donor = path if contents else None
    for header in unique(headers(root, listed, contents, neighbours)):
        for failures in unique(failures_of(root, listed, contents, neighbours)):
            yield Draft(path, header, slots, failures, donor, unsummed)


def neighbours_of(path: Path) -> list[ShardContents]:
    """Return what the whole shards of the same folder hold."""
    found = []
    for other in sorted(path.parent.glob(PATTERN)):
        if other.name != path.name:
            try:
                found.append(read_contents(other))
            except FeatstoreError:
                continue
    return found


def headers(
    root: Path, listed: ListedShard, contents: ShardContents | None, neighbours: Sequence[ShardContents]
) -> Iterator[ShardHeader]:
    """Yield what the shard may have said of itself."""
    with manifest.reading(root) as connection:
        found = connection.execute(
            "SELECT recipe, provenance FROM versions WHERE digest = ? ORDER BY dataset <> ?",
            [listed.digest, listed.dataset],
        ).fetchall()
    if not found or listed.grid is None or listed.channels is None or listed.prefix_tokens is None:
        return
    recipe, provenance = found[0]
    fine = json.loads(recipe).get("method", {}).get("clean_grid") if FINE in listed.variants else None
    store, codec = (INT8, listed.codec.partition("+")[2] or "none") if INT8 in listed.codec else (FLOAT16, listed.codec)
    facts = {key: value for key, value in json.loads(provenance).items() if key not in COMMAND}
    told = ShardHeader(
        *(listed.dataset, listed.backbone, listed.digest, str(recipe), listed.variants, listed.grid, listed.channels),
        prefix_tokens=listed.prefix_tokens,
        provenance=json.dumps(facts, sort_keys=True),
        fine_grid=(fine[0], fine[1]) if fine else None,
        store=store,
        codec=codec,
    )
    for one in (contents, *neighbours):
        if one is not None:
            yield replace(told, provenance=one.header.provenance)
    yield told


def failures_of(
    root: Path, listed: ListedShard, contents: ShardContents | None, neighbours: Sequence[ShardContents]
) -> Iterator[tuple[Failure, ...]]:
    """Yield which images may have failed when the shard was made: its own list, or what no neighbour accounts for."""
    if contents is not None:
        yield contents.failures
    with manifest.reading(root) as connection:
        rows = connection.execute(
            "SELECT image_id, path, sha256, step, error FROM failures WHERE dataset = ? AND digest = ? ORDER BY rowid",
            [listed.dataset, listed.digest],
        ).fetchall()
    theirs = {failure for one in neighbours for failure in one.failures}
    yield tuple(failure for failure in (Failure(*row) for row in rows) if failure not in theirs)
    yield ()


def unique(values: Iterable[T]) -> list[T]:
    """Return values without repetition, in order."""
    return list(dict.fromkeys(values))
