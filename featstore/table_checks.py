"""Does the manifest contradict itself, and do recipes and folders fit it? No shard is opened."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb

from .findings import Finding
from .listed import ListedShard
from .manifest import FILE
from .sealing import PREFIX
from .versions import Version

__all__ = ["check_manifest", "check_recipes", "check_strays"]

RULES = {
    "features that point to no shard": (
        "SELECT left(digest, 12) || ' ' || sha256 FROM features WHERE shard_id NOT IN (SELECT shard_id FROM shards)"
    ),
    "features that point behind the last sample of their shard": (
        "SELECT s.path || ' row ' || f.shard_row FROM features f JOIN shards s USING (shard_id) "
        "WHERE f.shard_row < 0 OR f.shard_row >= s.samples"
    ),
    "features of another recipe than their shard": (
        "SELECT s.path || ' row ' || f.shard_row FROM features f JOIN shards s USING (shard_id) WHERE f.digest <> s.digest"
    ),
    "several features in one row of a shard": (
        "SELECT s.path || ' row ' || f.shard_row FROM features f JOIN shards s USING (shard_id) "
        "GROUP BY s.path, f.shard_row HAVING count(*) > 1"
    ),
    "shards that lie in another folder than their recipe's": (
        "SELECT path FROM shards WHERE NOT starts_with(path, dataset || '/' || backbone || '/' || left(digest, 12) || '/')"
    ),
    "shards of no version, and none was removed": (
        "SELECT path FROM shards s WHERE digest NOT IN (SELECT digest FROM versions) AND digest NOT IN "
        "(SELECT digest FROM removed)"
    ),
    "versions of a data set that is not listed": (
        "SELECT dataset || '/' || backbone || '/v' || number FROM versions WHERE dataset NOT IN "
        "(SELECT dataset FROM datasets)"
    ),
    "data sets whose newest revision is not listed": (
        "SELECT d.dataset FROM datasets d LEFT JOIN (SELECT dataset, max(revision) AS last FROM revisions GROUP BY dataset) r "
        "USING (dataset) WHERE d.revision IS DISTINCT FROM r.last"
    ),
    "revisions that count other images than are listed": (
        "SELECT r.dataset || ' revision ' || r.revision || ': ' || r.images || ' told, ' || count(i.image_id) || ' listed' "
        "FROM revisions r LEFT JOIN images i ON i.dataset = r.dataset AND i.first_revision <= r.revision AND "
        "(i.last_revision IS NULL OR i.last_revision >= r.revision) GROUP BY r.dataset, r.revision, r.images "
        "HAVING r.images <> count(i.image_id)"
    ),
    "images listed twice": (
        "SELECT dataset || ' ' || image_id FROM images WHERE last_revision IS NULL GROUP BY dataset, image_id "
        "HAVING count(*) > 1"
    ),
    "boxes of no image": (
        "SELECT DISTINCT o.dataset || ' ' || o.image_id FROM objects o ANTI JOIN images i "
        "USING (dataset, image_id, first_revision)"
    ),
}
"""What must find nothing, by what it means where it does find something."""

SHOWN = 5


def check_manifest(connection: duckdb.DuckDBPyConnection) -> Iterator[Finding]:
    """Yield one finding a rule that is broken, with how often and where first."""
    for meaning, sql in RULES.items():
        rows = [str(row[0]) for row in connection.execute(f"{sql} ORDER BY 1").fetchall()]
        if rows:
            more = f" and {len(rows) - SHOWN:,} more" if len(rows) > SHOWN else ""
            yield Finding("manifest", FILE, f"{len(rows):,} {meaning}: {', '.join(rows[:SHOWN])}{more}")


def check_recipes(
    root: Path, connection: duckdb.DuckDBPyConnection, versions: Sequence[Version], shards: Sequence[ListedShard]
) -> Iterator[Finding]:
    """Yield versions whose recipe, in the manifest or in their folder, is not that of their digest."""
    recipes = dict(connection.execute("SELECT version_id, recipe FROM versions").fetchall())
    owned = {shard.folder for shard in shards}
    for version in versions:
        if sha256(str(recipes[version.version_id])) != version.digest:
            yield Finding(
                "recipe", FILE, f"the recipe of {version.name} is not that of its digest {version.digest[:12]}"
            )
        folder = f"{version.dataset}/{version.backbone}/{version.digest[:12]}"
        path = root / folder / "recipe.json"
        if path.is_file():
            if sha256(path.read_bytes()) != version.digest:
                yield Finding("recipe", f"{folder}/recipe.json", f"not that of {version.name}")
        elif folder in owned:
            yield Finding("recipe", f"{folder}/recipe.json", f"gone; {version.name} has shards beside it")


def sha256(data: str | bytes) -> str:
    """Return the SHA-256 of a text or of bytes, in hex."""
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def check_strays(root: Path, shards: Sequence[ListedShard], folders: Sequence[str]) -> Iterator[Finding]:
    """Yield shards and leftovers in some folders that nothing lists: notes, no damage."""
    listed = {shard.path for shard in shards}
    for folder in sorted(folders):
        for path in sorted((root / folder).glob("*")):
            name = path.relative_to(root).as_posix()
            if path.name.startswith(PREFIX):
                yield Finding("leftover", name, "the next build in this folder removes it")
            elif path.suffix == ".h5" and name not in listed:
                yield Finding("unlisted", name, "the next build takes it in, or featstore manifest rebuild")
