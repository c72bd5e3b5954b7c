"""Rows of a new manifest, one topic after another, from notes where there are notes and from shards where there are none."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from . import manifest
from .denoiser_check import denoiser_digest
from .errors import FeatstoreError
from .geometry import Geometry
from .notes import DENOISER, REMOVED, VERSION, read_note
from .registry import PATTERN, feature_rows, shard_row
from .shard import ShardContents, ShardHeader, read_contents
from .snapshots import read_problems, read_snapshots

__all__ = [
    "Found",
    "close_bare",
    "restore_dataset",
    "restore_denoisers",
    "restore_shards",
    "restore_version",
    "versions_found",
]

UNKNOWN = {"bytes": 0, "mtime_ns": 0, "width": 0, "height": 0, "mode": "", "splits": []}


@dataclass(frozen=True)
class Found:
    """One folder of a recipe. ``first`` is what its first readable shard holds."""

    folder: Path
    dataset: str
    backbone: str
    digest: str
    recipe: str
    note: dict[str, Any] | None
    shards: tuple[Path, ...]
    first: ShardContents | None

    @property
    def made_at(self) -> datetime:
        """Return when the folder was made, as far as anything tells (UTC)."""
        if self.note and "created_at" in self.note:
            return datetime.fromisoformat(self.note["created_at"])
        times = [path.stat().st_mtime for path in (self.folder / "recipe.json", *self.shards) if path.exists()]
        return datetime.fromtimestamp(min(times), UTC).replace(tzinfo=None)


def versions_found(root: Path) -> list[Found]:
    """Return every folder of a recipe below the root."""
    folders = {path.parent for pattern in ("recipe.json", VERSION, PATTERN) for path in root.glob(f"*/*/*/{pattern}")}
    return [found for folder in sorted(folders) if (found := look_into(folder)) is not None]


def look_into(folder: Path) -> Found | None:
    """Return what a folder is of, None where neither its recipe nor a shard tells it."""
    shards = tuple(sorted(folder.glob(PATTERN)))
    first = next(contents_of(shards), None)
    texts = [first[1].header.recipe] if first else []
    if (folder / "recipe.json").is_file():
        texts.append((folder / "recipe.json").read_bytes().decode("utf-8", "replace"))
    for text in texts:
        digest = hashlib.sha256(text.encode()).hexdigest()
        if digest.startswith(folder.name):
            note = read_note(folder / VERSION)
            note = note if note and note.get("digest") == digest else None
            names = (folder.parent.parent.name, folder.parent.name)
            return Found(folder, *names, digest, text, note, shards, first[1] if first else None)
    return None


def contents_of(shards: tuple[Path, ...]) -> Iterator[tuple[Path, ShardContents]]:
    """Yield what the readable ones of some shards hold."""
    for path in shards:
        try:
            yield path, read_contents(path)
        except FeatstoreError:
            continue


def restore_dataset(connection: duckdb.DuckDBPyConnection, root: Path, dataset: str) -> None:
    """List a data set with its revisions, images and boxes, and its removed versions, as they were kept."""
    manifest.insert(connection, "removed", read_note(root / dataset / REMOVED) or [])
    last = None
    for revision in read_snapshots(root, dataset):
        last = revision
        manifest.insert(connection, "revisions", [revision.row])
        number = revision.row["revision"]
        if "retired" in revision.files:
            connection.execute(
                "UPDATE images SET last_revision = ? WHERE dataset = ? AND (image_id, first_revision) IN "
                "(SELECT (image_id, first_revision) FROM read_parquet(?))",
                [number - 1, dataset, str(revision.files["retired"])],
            )
        for table in ("images", "objects"):
            if table in revision.files:
                connection.execute(
                    f"INSERT INTO {table} BY NAME SELECT * FROM read_parquet(?)", [str(revision.files[table])]
                )
    if last is None:
        return
    head = {key: last.row[key] for key in ("dataset", "source", "revision")} | last.about
    manifest.insert(connection, "datasets", [head])
    manifest.insert(connection, "failures", read_problems(root, dataset))


def restore_version(connection: duckdb.DuckDBPyConnection, found: Found) -> Iterator[str]:
    """List a version, its builds and what failed in them; yields what had to be guessed."""
    key = {"dataset": found.dataset, "backbone": found.backbone, "digest": found.digest}
    note = found.note or {}
    query = "SELECT count(*) FROM removed WHERE dataset = ? AND backbone = ? AND digest = ?"
    if connection.execute(query, [*key.values()]).fetchall()[0][0]:
        return
    row = {name: note[name] for name in note if name not in ("builds", "failures", "evaluations")}
    if not note:
        if found.first is None:
            yield f"{found.folder}: neither a note nor a shard that can be read; it is left alone"
            return
        row = told_by_shard(connection, found, found.first.header)
        yield f"{found.dataset}/{found.backbone}/v{row['number']}: no note is kept; its number is by age, a tag is lost"
    query = "SELECT coalesce(max(version_id), 0) + 1 FROM versions"
    row |= key | {"version_id": connection.execute(query).fetchall()[0][0], "recipe": found.recipe}
    manifest.insert(connection, "versions", [row])
    query = "SELECT coalesce(max(build_id), 0) + 1 FROM builds"
    start = int(connection.execute(query).fetchall()[0][0])
    builds = [build | {"build_id": number} for number, build in enumerate(note.get("builds", []), start)]
    manifest.insert(connection, "builds", builds)
    manifest.insert(connection, "failures", note.get("failures", []))
    manifest.insert(connection, "evaluations", note.get("evaluations", []))


def told_by_shard(connection: duckdb.DuckDBPyConnection, found: Found, header: ShardHeader) -> dict[str, Any]:
    """Return a version's row as far as a shard tells it."""
    recipe = json.loads(found.recipe)
    method = recipe.get("method", {})
    names = [str(method[name]) for name in ("name", "solver") if name in method]
    taken = connection.execute(
        "SELECT coalesce(max(number), 0) + 1 FROM versions WHERE dataset = ? AND backbone = ?",
        [found.dataset, found.backbone],
    ).fetchall()
    row = {"number": taken[0][0], "method": "/".join(names) or "unknown", "created_at": found.made_at}
    geometry = Geometry.of(recipe)
    grid = header.grid if geometry is None else geometry.nominal(header.grid, recipe["backbone"]["stride"])
    row |= {"grid_height": grid[0], "grid_width": grid[1], "channels": header.channels}
    return row | {"prefix_tokens": header.prefix_tokens, "provenance": header.provenance}


def restore_shards(place: Path, root: Path, found: Found, advance: Callable[[int], None]) -> Iterator[str]:
    """List a folder's shards and their features; where two hold an image, that with more variants counts, then the later.

    Yields those that cannot be read, which are left where they are.
    """
    known = [entry for entry in contents_of(found.shards) if entry[1].header.digest == found.digest]
    for path in sorted({*found.shards} - {path for path, _ in known}):
        yield f"{path.relative_to(root)}: not a whole shard of this version; its images are computed again by the next build"
    known.sort(key=lambda entry: (len(entry[1].header.variants), entry[0].name))
    with manifest.writing(place) as connection:
        bare = is_bare(connection, found.dataset)
        for path, contents in known:
            shard_id = connection.execute("SELECT coalesce(max(shard_id), 0) + 1 FROM shards").fetchall()[0][0]
            manifest.insert(connection, "shards", [shard_row(root, path, contents, shard_id)])
            manifest.insert(connection, "features", feature_rows(contents, shard_id, {}), verb="INSERT OR REPLACE")
            if not found.note:
                told = {"dataset": found.dataset, "digest": found.digest, "failed_at": found.made_at}
                manifest.insert(connection, "failures", [vars(failure) | told for failure in contents.failures])
            if bare:
                rows = zip(contents.image_ids, contents.sha256s, strict=True)
                manifest.insert(
                    connection, "images", [bare_image(found.dataset, *row) for row in rows], "INSERT OR IGNORE"
                )
            advance(1)


def is_bare(connection: duckdb.DuckDBPyConnection, dataset: str) -> bool:
    """Whether a data set has versions and is not listed; one that was removed has none."""
    query = "SELECT count(*) FROM versions WHERE dataset = ? AND dataset NOT IN (SELECT dataset FROM datasets)"
    return bool(connection.execute(query, [dataset]).fetchall()[0][0])


def bare_image(dataset: str, image_id: str, sha256: str) -> dict[str, Any]:
    """Return the row of an image of which nothing but name and SHA-256 is known."""
    key = {"dataset": dataset, "image_id": image_id, "path": image_id, "sha256": sha256, "first_revision": 1}
    return UNKNOWN | key


def close_bare(connection: duckdb.DuckDBPyConnection, dataset: str) -> Iterator[str]:
    """List a data set of which versions but no index is kept, with the images that its shards named; yields that it is so."""
    if not is_bare(connection, dataset):
        return
    yield f"{dataset}: no index is kept; its images are known by name until featstore index {dataset} --source DIR"
    count = connection.execute("SELECT count(*) FROM images WHERE dataset = ?", [dataset]).fetchall()[0][0]
    head = {"dataset": dataset, "source": "", "revision": 1}
    manifest.insert(connection, "datasets", [head | {"layout": ""}])
    counts = {"added": count, "changed": 0, "removed": 0, "images": count, "created_at": manifest.now()}
    manifest.insert(connection, "revisions", [head | counts])


def restore_denoisers(connection: duckdb.DuckDBPyConnection, root: Path) -> Iterator[str]:
    """List denoisers with their images from their notes; yields those without one, which are left where they are."""
    for path in sorted(root.glob("*/*/denoisers/*/denoiser.safetensors")):
        note = read_note(path.with_name(DENOISER))
        name = path.relative_to(root).as_posix()
        try:
            digest = denoiser_digest(path)
        except Exception as error:  # safetensors has its own errors, JSON and numpy theirs
            yield f"{name}: cannot be read ({' '.join(str(error).split())})"
            continue
        if note is None or note.get("digest") != digest:
            yield f"{name}: no note is kept; --denoiser takes the file, or featstore train lists it again"
            continue
        parts = {part: note.pop(part, []) for part in ("train", "heldout")}
        manifest.insert(connection, "denoisers", [note | {"path": name}])
        rows = [
            {"run": note["run"], "sha256": image, "part": part} for part, images in parts.items() for image in images
        ]
        manifest.insert(connection, "denoiser_images", rows, verb="INSERT OR REPLACE")
