"""What nobody needs any more: planned here, deleted by ``collection``."""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import duckdb

from .croissant_tables import IMAGES, SHARDS
from .notes import VERSION
from .places import as_remote
from .places import listed as listed_below
from .query import viewed
from .recipe import Recipe
from .registry import PATTERN
from .root import LOCK, is_held
from .sealing import PREFIX as TEMPORARY
from .sealing import leftovers

__all__ = ["Garbage", "GarbagePlan", "plan_garbage"]

REMOVED, OLD = "its version was removed", "none of its images is in a revision"
SUPERSEDED = "other shards hold all of its images"
FOLDER = re.compile(r"[0-9a-f]{12}")
CALIBRATIONS, JOBS = ".calibrations", ".slurm"
ENDED = "jobs of a build that has ended wrote it"
DOCUMENTS = ("recipe.json", VERSION, "croissant.json", IMAGES, SHARDS)
REBUILD = "the manifest does not know it: featstore manifest rebuild, or the build that made it, takes it in"

# Which features a version lists: those of its recipe whose image is in a revision of its data set.
LISTED = "SELECT DISTINCT v.digest, i.sha256 FROM manifest.versions v JOIN manifest.images i USING (dataset) WHERE {revisions}"
JUDGED = (
    "SELECT s.shard_id, s.path, s.bytes, count(f.sha256) AS held, count(l.sha256) AS listed, "
    "bool_or(v.digest IS NOT NULL) AS living FROM manifest.shards s LEFT JOIN manifest.features f USING (shard_id) "
    "LEFT JOIN ({listed}) l ON l.digest = f.digest AND l.sha256 = f.sha256 "
    "LEFT JOIN (SELECT DISTINCT digest FROM manifest.versions) v ON v.digest = s.digest "
    "GROUP BY s.shard_id, s.path, s.bytes HAVING count(l.sha256) = 0 ORDER BY s.path"
)
ROWS = (
    "SELECT count(*) FROM manifest.features WHERE digest NOT IN (SELECT digest FROM manifest.versions) "
    "OR shard_id NOT IN (SELECT shard_id FROM manifest.shards)"
)

Tree = dict[str, list[str]]
"""The names of the files in each folder, by its path below the root."""


@dataclass(frozen=True)
class Garbage:
    """One file to delete: ``kind`` is shard, temporary, document, training or calibration; ``path`` below the root."""

    kind: str
    path: str
    bytes: int
    why: str
    shard_id: int | None = None


@dataclass(frozen=True)
class GarbagePlan:
    """What ``gc`` would do. ``rows`` of ``features`` belong to no version; ``left`` is left alone: (path, reason)."""

    garbage: tuple[Garbage, ...]
    rows: int
    left: tuple[tuple[str, str], ...]
    gone: frozenset[str] = field(default=frozenset(), repr=False)
    """Folders of removed versions that hold no shard of another version."""

    @property
    def bytes(self) -> int:
        """How much the files take [bytes]."""
        return sum(item.bytes for item in self.garbage)


@dataclass(frozen=True)
class Known:
    """What the manifest says: shards by path, folders of versions and of removed ones, digests, denoisers,
    and the recipes' backbones, as names of calibrations have them.
    """

    shards: frozenset[str]
    versions: frozenset[str]
    removed: frozenset[str]
    digests: frozenset[str]
    runs: frozenset[str]
    denoisers: frozenset[str]
    features: frozenset[str]


def plan_garbage(root: Path, old_revisions: bool = False, alone: bool = False) -> GarbagePlan:
    """Compare manifest and disk. ``old_revisions`` counts shards as garbage whose images are all in no *current* revision.

    ``alone`` says that the caller holds the store's lock: then what jobs of Slurm left is of no build that runs.

    Raises NotInStoreError where there is no store.
    """
    with viewed(root) as connection:
        known = read_known(connection)
        listed = LISTED.format(revisions="i.last_revision IS NULL" if old_revisions else "true")
        judged = connection.execute(JUDGED.format(listed=listed)).fetchall()
        rows = connection.execute(ROWS).fetchall()[0][0]
    root = listed_below(root)
    tree = walk(root)
    doomed = [Garbage("shard", path, on_disk(root / path), why(*told), shard_id) for shard_id, path, _, *told in judged]
    dead = {item.path for item in doomed}
    kept = {Path(path).parent.as_posix() for path in known.shards - dead}
    gone = frozenset(known.removed - kept)
    left: list[tuple[str, str]] = []
    found = [*doomed, *strays(root, tree, known, left), *documents(root, tree, known, kept)]
    found += [*trainings(root, tree, known, left), *calibrations(root, tree, known)]
    found += jobs(root, tree) if alone or not is_held(root / LOCK) else []
    return GarbagePlan(tuple(found), rows, tuple(left), gone)


def read_known(connection: duckdb.DuckDBPyConnection) -> Known:
    """Read what the manifest lists."""

    def column(sql: str) -> frozenset[str]:
        return frozenset(str(row[0]) for row in connection.execute(sql).fetchall())

    folder = "dataset || '/' || backbone || '/' || left(digest, 12)"
    used = "SELECT recipe->>'$.method.denoiser' FROM manifest.versions WHERE recipe->>'$.method.denoiser' IS NOT NULL"
    backbones = "SELECT DISTINCT recipe->'$.backbone' FROM manifest.versions"
    return Known(
        shards=column("SELECT path FROM manifest.shards"),
        versions=column(f"SELECT {folder} FROM manifest.versions"),
        removed=column(f"SELECT {folder} FROM manifest.removed WHERE purged_at IS NULL"),
        digests=column("SELECT digest FROM manifest.versions"),
        runs=column("SELECT run FROM manifest.denoisers"),
        denoisers=column(f"SELECT digest FROM manifest.denoisers UNION {used}"),
        features=frozenset(Recipe.of({"backbone": json.loads(one)}).digest[:12] for one in column(backbones)),
    )


def why(held: int, listed: int, living: bool) -> str:
    """Say why a shard is garbage of which no version lists an image."""
    if not living:
        return REMOVED
    return OLD if held else SUPERSEDED


def on_disk(path: Path) -> int:
    """Return a file's size [bytes], 0 where it is gone already."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def walk(root: Path) -> Tree:
    """Return the names of the files in each folder below the root, which is "."."""
    if as_remote(root) is None:
        return {Path(folder).relative_to(root).as_posix(): names for folder, _, names in os.walk(root)}
    tree: Tree = {}
    for path in root.rglob("*"):
        tree.setdefault(path.parent.relative_to(root).as_posix(), []).append(path.name)
    return tree


def strays(root: Path, tree: Tree, known: Known, left: list[tuple[str, str]]) -> Iterator[Garbage]:
    """Yield what dead processes were writing, and shards of removed versions that the manifest does not list.

    What may still be written, and unlisted shards of other versions, are ``left``.
    """
    for folder, names in tree.items():
        path = root / folder
        if any(name.startswith(TEMPORARY) for name in names):
            dead, alive = leftovers(path)
            for file in dead:
                yield Garbage(
                    "temporary", f"{folder}/{file.name}".removeprefix("./"), on_disk(file), "its process is dead"
                )
            left += [
                (f"{folder}/{file.name}".removeprefix("./"), "it is being written, or was on another host")
                for file in alive
            ]
        if not FOLDER.fullmatch(path.name):
            continue
        for name in sorted(name for name in names if fnmatchcase(name, PATTERN)):
            if f"{folder}/{name}" in known.shards:
                continue
            if folder in known.removed - known.versions:
                yield Garbage("shard", f"{folder}/{name}", on_disk(path / name), REMOVED)
            else:
                left.append((f"{folder}/{name}", REBUILD))


def jobs(root: Path, tree: Tree) -> Iterator[Garbage]:
    """Yield what jobs of Slurm and a driver that has ended told each other, and their logs."""
    for folder, names in sorted(tree.items()):
        if f"{folder}/".startswith(f"{JOBS}/"):
            yield from (
                Garbage("temporary", f"{folder}/{name}", on_disk(root / folder / name), ENDED) for name in names
            )


def documents(root: Path, tree: Tree, known: Known, kept: set[str]) -> Iterator[Garbage]:
    """Yield recipe and Croissant files in folders of removed versions of which no shard is left."""
    for folder in sorted(known.removed - known.versions - kept):
        for name in DOCUMENTS:
            if name in tree.get(folder, ()):
                yield Garbage("document", f"{folder}/{name}", on_disk(root / folder / name), REMOVED)


def trainings(root: Path, tree: Tree, known: Known, left: list[tuple[str, str]]) -> Iterator[Garbage]:
    """Yield the files of trainings that made no denoiser and cannot go on, their version being gone."""
    for place, names in sorted(tree.items()):
        folder = root / place
        if folder.parent.name != "denoisers" or "recipe.json" not in names:
            continue
        if any(run.startswith(folder.name) for run in known.runs):
            continue
        try:
            version = str(json.loads((folder / "recipe.json").read_text(encoding="utf-8"))["version"])
            if version in known.digests or is_held(folder / ".lock"):
                continue
        except (OSError, ValueError, LookupError, TypeError) as error:
            left.append((f"{place}/recipe.json", f"it cannot be read: {' '.join(str(error).split())}"))
            continue
        for name in sorted(name for name in names if not name.startswith(TEMPORARY)):
            told = "the version that it was training on was removed"
            yield Garbage("training", f"{place}/{name}", on_disk(folder / name), told)


def calibrations(root: Path, tree: Tree, known: Known) -> Iterator[Garbage]:
    """Yield what was taken for denoisers that are listed no more and that no version was cleaned with, or of other features."""
    for name in sorted(tree.get(CALIBRATIONS, ())):
        own, *_, features = name.removesuffix(".npy").split("-")
        of_denoiser = re.fullmatch(r"[0-9a-f]{12}", own) is not None
        used = any(digest.startswith(own) for digest in known.denoisers) if of_denoiser else features in known.features
        if name.endswith(".npy") and not used:
            told = "no version and no denoiser of the store has a use for it"
            yield Garbage("calibration", f"{CALIBRATIONS}/{name}", on_disk(root / CALIBRATIONS / name), told)
